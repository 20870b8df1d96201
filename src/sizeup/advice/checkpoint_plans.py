"""Plans of engines that run checkpoints on GPUs: vLLM, SGLang, MLX; tensor parallel over several GPUs.

Exact: the checkpoint's weights by their layout. Nearly: keys and values, which these engines keep in pages. Assumed,
and said so in each term: what the engine's kernels, graphs and activations take besides.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sizeup.advice.fitting import fits
from sizeup.advice.formats import UNKNOWN_DIVERGENCE, FormatLoss
from sizeup.advice.plans import Plan
from sizeup.advice.speeds import Runner, speed_with
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.mlx.traffic import layout_of as mlx_layout
from sizeup.engines.vllm.traffic import layout_of as vllm_layout
from sizeup.errors import BadInput
from sizeup.estimate.footprint import DeviceFootprint, device_footprint, footprint, item
from sizeup.estimate.speed.ceilings import ceilings
from sizeup.estimate.speed.checkpoint import Demands, Layout, cache_bytes, demands, stored_bytes
from sizeup.estimate.speed.decode import Stage
from sizeup.estimate.speed.links import all_reduce_seconds
from sizeup.machines.budget import machine_budget
from sizeup.machines.device import Machine
from sizeup.models.mixers import Attention
from sizeup.models.model import Model
from sizeup.quantity import leaf
from sizeup.quantity.units import GIB


class Engine(msgspec.Struct, frozen=True):
    """What the estimate knows of an engine.

    stack: its kernels. backends: of GPUs that it runs on. formats: shown when none is asked for. share: of a GPU's
    memory that it takes by default. overhead: bytes of its context, graphs and pools on each GPU. step: prompt tokens
    that it reads at once. splits: whether it knows tensor parallel. command: how to start it.
    """

    name: str
    stack: str
    backends: frozenset[str]
    formats: tuple[str, ...]
    layout: Callable[[str], Layout]
    share: float
    overhead: int
    step: int
    splits: bool
    command: str


_GPUS = frozenset({"cuda", "rocm"})
ENGINES = {
    "vllm": Engine(
        "vllm", "vllm", _GPUS, ("BF16", "FP8", "AWQ"), vllm_layout, 0.9, int(1.5 * GIB), 2048, True,
        "vllm serve {model} --max-model-len {context} --max-num-seqs {users} --tensor-parallel-size {split}",
    ),
    "sglang": Engine(
        "sglang", "vllm", _GPUS, ("BF16", "FP8", "AWQ"), vllm_layout, 0.88, int(1.5 * GIB), 2048, True,
        "python -m sglang.launch_server --model-path {model} --context-length {context} "
        "--max-running-requests {users} --tp {split}",
    ),
    "mlx": Engine(
        "mlx", "mlx", frozenset({"metal"}), ("BF16", "8bit", "6bit", "4bit"), mlx_layout, 1.0, int(0.3 * GIB), 2048,
        False, "mlx_lm.server --model {model}",
    ),
}  # fmt: skip


class Wanted(msgspec.Struct, frozen=True):
    """One plan's choices: tokens of each user's context, and GPUs that share every layer."""

    format: str
    context: int
    users: int = 1
    split: int = 1


def checkpoint_plan(model: Model, machine: Machine, engine: Engine, wanted: Wanted) -> Plan:
    """The plan. Raises BadInput for what the engine can't do on this machine."""
    _possible(model, machine, engine, wanted)
    layout = engine.layout(wanted.format)
    asked = demands(model, layout)
    budget = machine_budget(machine)
    devices = [_device(model, machine, engine, wanted, layout, asked, place) for place in range(wanted.split)]
    held = footprint(devices)
    shared = {d.device: d.total_bytes for d, gpu in zip(devices, budget.gpus, strict=False) if gpu.shared_bytes}
    setting = LlamaSetting(format="", context=wanted.context * wanted.users, parallel=wanted.users)
    return Plan(
        engine=engine.name,
        engine_version="",
        format=wanted.format,
        context=wanted.context * wanted.users,
        cache_type="f16",
        placement="GPU" if wanted.split == 1 else f"{wanted.split} GPUs, tensor parallel",
        fits=fits(held, shared, model.uncertainty),
        footprint=held,
        speed=speed_with(checkpoint_runner(model, machine, engine, wanted, asked)),
        setting=setting,
        command=engine.command.format(
            model=model.name, context=wanted.context, users=wanted.users, split=wanted.split
        ),
        loss=_loss(wanted.format, layout),
    )  # fmt: skip


def _loss(format_: str, layout: Layout) -> FormatLoss:
    if layout.bits >= 16:
        return FormatLoss(0.0, "none", "16 bits, as it was trained")
    return FormatLoss(UNKNOWN_DIVERGENCE, "assumed", f"nobody measured {format_} as these engines hold it")


def checkpoint_runner(
    model: Model, machine: Machine, engine: Engine, wanted: Wanted, asked: Demands | None = None
) -> Runner:
    """The model on its devices: with tensor parallel each does its share at the same time, and sums cross the link."""
    found = asked or demands(model, engine.layout(wanted.format))
    device = machine.gpus[0]

    def passes(tokens: int, depth: float, sequences: int) -> tuple[Stage, ...]:
        work = found.work(tokens=tokens, depth=depth, sequences=sequences, split=wanted.split)
        summed = all_reduce_seconds(model.hidden, tokens * sequences, work.layers, wanted.split, device)
        return (Stage(device.name, ceilings(device, engine.stack), work, summed),)

    return Runner(passes, wanted.context, engine.name, wanted.users, engine.step)


def _possible(model: Model, machine: Machine, engine: Engine, wanted: Wanted) -> None:
    able = [gpu for gpu in machine.gpus if gpu.backend in engine.backends]
    names = " or ".join(sorted(engine.backends))
    if not able:
        raise BadInput(
            f"{engine.name}'s estimate is for {names} GPUs, and {machine.name} has none",
            hint="use --engine llama.cpp, which runs anywhere",
        )
    if wanted.split > 1 and not engine.splits:
        raise BadInput(f"{engine.name} has no tensor parallel", hint="leave --tensor-parallel out")
    if wanted.split > len(able):
        raise BadInput(
            f"tensor parallel over {wanted.split} GPUs, and {machine.name} has {len(able)}",
            hint=f"--tensor-parallel {len(able)} at most",
        )
    for block in model.blocks:
        for mixer in block.mixers:
            if isinstance(mixer, Attention) and mixer.heads % wanted.split:
                raise BadInput(
                    f"{mixer.heads} attention heads can't be shared by {wanted.split} GPUs",
                    hint="tensor parallel must divide the heads",
                )


def _device(
    model: Model, machine: Machine, engine: Engine, wanted: Wanted, layout: Layout, asked: Demands, place: int
) -> DeviceFootprint:
    gpu, budget = machine.gpus[place], machine_budget(machine).gpus[place]
    weights = stored_bytes(model, layout)
    cache = cache_bytes(asked, wanted.context)
    heads = min((m.kv_heads for b in model.blocks for m in b.mixers if isinstance(m, Attention)), default=1)
    kept = min(wanted.split, max(1, heads))  # GPUs beyond the number of heads hold copies
    widest = max((block.feed_forward.width for block in model.blocks if block.feed_forward), default=0)
    activations = engine.step * (4 * model.hidden + 2 * widest // wanted.split) * 2
    usable = budget.usable_bytes
    if usable is not None and gpu.memory_bytes:
        usable = min(usable, int(gpu.memory_bytes * engine.share))
    label = gpu.name if wanted.split == 1 else f"{gpu.name} {place + 1}"
    split = f" / {wanted.split} GPUs" if wanted.split > 1 else ""
    return device_footprint(
        label,
        [
            item("weights", leaf(f"weights in {wanted.format}", weights / wanted.split, f"{weights:,.0f} B{split}")),
            item("cache", leaf("keys and values", wanted.users * cache / kept,
                               f"{wanted.users} × {cache:,.0f} B for {wanted.context:,} tokens / {kept}, 16 bits")),
            item("compute", leaf("activations", activations,
                                 f"{engine.step:,} tokens × (4 hidden + 2 ffn) × 2 B, assumed, ±50 %")),
            item("overhead", leaf(f"{engine.name}", engine.overhead, "context, graphs and pools: assumed, ±50 %")),
        ],
        usable,
    )  # fmt: skip
