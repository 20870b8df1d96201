"""Run llama.cpp on one core of the machine at hand: the probes of `machine calibrate`, and models to judge it by.

    python scripts/measure_speed.py OUT.json        takes about ten minutes; scripts/fit_processor.py reads the result

One thread, so that processor time counts and other programs disturb little.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.machines.device import Device
from sizeup.machines.probes import probe_machine
from sizeup.measure.calibrate import calibrate
from sizeup.measure.processor_runs import ProcessorRun, ProcessorRuns
from sizeup.measure.speed_runs import speed_run
from sizeup.models.load import load_model

_MIXTURES = (
    "layers=16,embedding=1024,heads=16,kv_heads=4,vocabulary=32000,ffn=2048,experts=16,active_experts=2,expert_ffn=1024",
    "layers=8,embedding=1536,heads=12,kv_heads=4,vocabulary=50000,ffn=2048,experts=8,active_experts=2,expert_ffn=2048",
    "layers=24,embedding=1024,heads=16,kv_heads=8,vocabulary=49152,ffn=512,experts=32,active_experts=8,expert_ffn=512",
)
#: (model or shape, format, depths): 0.1 to 3 · 10⁹ parameters, dense, mixtures, a hybrid.
RUNS = (
    ("HuggingFaceTB/SmolLM2-135M-Instruct", "Q8_0", (0, 2048, 8000)),
    ("HuggingFaceTB/SmolLM2-135M-Instruct", "Q4_0", (0, 1024)),
    ("HuggingFaceTB/SmolLM2-360M-Instruct", "F16", (0, 1024)),
    ("HuggingFaceTB/SmolLM2-360M-Instruct", "IQ4_NL", (0,)),
    ("Qwen/Qwen2.5-0.5B-Instruct", "Q4_0", (0, 4096)),
    ("Qwen/Qwen2.5-0.5B-Instruct", "Q5_0", (0,)),
    ("Qwen/Qwen3-0.6B", "Q4_K_M", (0, 1024, 4096)),
    ("Qwen/Qwen3-0.6B", "Q6_K", (0,)),
    ("Qwen/Qwen3-0.6B", "IQ4_XS", (0, 1024)),
    ("Qwen/Qwen3-0.6B", "BF16", (0,)),
    ("google/gemma-3-1b-it", "Q8_0", (0, 1024)),
    ("meta-llama/Llama-3.2-1B-Instruct", "Q4_K_M", (0, 2048)),
    ("meta-llama/Llama-3.2-1B-Instruct", "Q5_K_M", (0,)),
    ("LiquidAI/LFM2-1.2B", "Q4_0", (0,)),
    ("Qwen/Qwen2.5-1.5B-Instruct", "Q3_K_M", (0, 512)),
    ("Qwen/Qwen3-1.7B", "Q5_K_M", (0,)),
    ("meta-llama/Llama-3.2-3B-Instruct", "Q4_K_M", (0,)),
    (_MIXTURES[0], "Q4_K_M", (0, 1024)),
    (_MIXTURES[0], "IQ4_XS", (0,)),
    (_MIXTURES[0], "F16", (0,)),
    (_MIXTURES[1], "Q8_0", (0, 512)),
    (_MIXTURES[2], "Q4_K_M", (0, 1024)),
)


def main() -> None:
    machine = probe_machine()
    found = calibrate(machine, threads=1)
    probes = tuple(
        ProcessorRun(
            rate.shape, rate.format,
            {tokens: tokens / speed for tokens, speed in rate.prompt_tokens_per_s.items()},
            {depth: 1 / speed for depth, speed in rate.decode_tokens_per_s.items()},
        )
        for rate in found.formats if rate.device == machine.cpu.name
    )  # fmt: skip
    version, models = "", []
    for name, format_, depths in RUNS:
        model = load_model(shape=name) if "=" in name else load_model(name)
        setting = LlamaSetting(format=format_, gpu_layers=0)
        run = speed_run(model, setting, depths=depths, prompts=(256,), decoded=4, repeat=5, threads=1)
        version = run.version
        models.append(ProcessorRun(name, format_, run.prompts, run.decode))
        print(models[-1], flush=True)
    memory = max(rate.bytes_per_s for rate in found.memory)
    date = datetime.now(UTC).date().isoformat()
    runs = ProcessorRuns(one_core(machine.cpu), 1, memory, version, date, probes, tuple(models))
    Path(sys.argv[1]).write_bytes(msgspec.json.format(msgspec.json.encode(runs), indent=1))


def one_core(cpu: Device) -> Device:
    """A core's share of a processor."""
    share = max(1, cpu.units or 1)
    return msgspec.structs.replace(
        cpu, name=f"{cpu.name}, one core", units=1, bandwidth=(cpu.bandwidth or 0) // share,
        compute={name: rate // share for name, rate in cpu.compute.items()},
    )  # fmt: skip


if __name__ == "__main__":
    main()
