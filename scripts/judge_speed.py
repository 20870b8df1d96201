"""Predictions after calibration against the runs of `measure_speed.py` on the same machine.

SIZEUP_CALIBRATION=FILE python scripts/judge_speed.py OUT.jsonl
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from measure_speed import model_of

from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.traffic import stages
from sizeup.engines.llamacpp.weights import assign
from sizeup.estimate.speed import prompt_seconds, step_seconds
from sizeup.machines.probes import probe_machine
from sizeup.measure.calibration import measured_ceilings


def main() -> None:
    machine = probe_machine()
    measured = measured_ceilings(machine)
    decode, prompt = [], []
    for line in Path(sys.argv[1]).read_text().splitlines():
        row = json.loads(line)
        model = model_of(row["model"])
        setting = LlamaSetting(format=row["format"], gpu_layers=0)
        places = assign(model.layers, 0, ())
        tokens = row["prompt_tokens"]
        read = stages(model, setting, machine, places, 0, tokens=tokens, measured=measured)
        predicted = tokens / prompt_seconds(read, 1)
        prompt.append(predicted / row["prompt"])
        text = f"{row['model'][:36]:36} {row['format']:7} pp {predicted / row['prompt']:.2f}  tg"
        for depth, speed in row["decode"].items():
            found = 1 / step_seconds(stages(model, setting, machine, places, int(depth), measured=measured))
            decode.append(found / speed)
            text += f"  {depth}: {found / speed:.2f}"
        print(text)
    for name, ratios in (("decode", decode), ("prompt", prompt)):
        errors = sorted(abs(ratio - 1) for ratio in ratios)
        worst = errors[min(len(errors) - 1, int(len(errors) * 0.95))]
        print(f"{name}: n={len(errors)} median {statistics.median(errors):.1%} p95 {worst:.1%}")


if __name__ == "__main__":
    main()
