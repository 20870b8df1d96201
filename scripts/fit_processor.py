"""Fit llama.cpp's kernels on processors to this project's own runs, and judge them on other shapes.

    python scripts/fit_processor.py tests/data/processor_runs.json [--write]

The file holds a processor (of which one core computed), bytes/s of memory that its threads read, `probes` (the small
models of `machine calibrate`) and `models` (real shapes). The probes alone are fitted; `--write` puts the result into
parameters.json as the kernels of processors that nobody has calibrated. scripts/measure_speed.py writes such a file.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import msgspec

from sizeup.estimate.speed.ceilings import Ceilings
from sizeup.estimate.speed.parameters import Parameters, Stack, parameters
from sizeup.estimate.speed.work import PACKINGS, family
from sizeup.measure.processor_runs import ProcessorRuns, calibrated, errors

OUT = Path(__file__).parents[1] / "src/sizeup/estimate/speed/parameters.json"


def folded(stack: Stack, fitted: Parameters, top: Ceilings) -> Stack:
    """The kernels with the corrections of one core as their own.

    What several cores share isn't taken from it: bandwidth, and the time to start kernels, which grows with threads.
    """
    seen = dict(top.corrections)

    def by_packing(part: str, base: dict[str, float]) -> dict[str, float]:
        return {name: round(base.get(name, 1.0) * seen.get(part, 1.0) * seen.get(f"{part}.{name}", 1.0), 3)
                for name in PACKINGS}  # fmt: skip

    unpack = {name: stack.unpack.get(name) or stack.unpack.get(family(name)) or fitted.unpack[family(name)]
              for name in PACKINGS}  # fmt: skip
    scores = seen["attention"]
    return msgspec.structs.replace(
        stack,
        attention=round(stack.attention / scores, 3),
        attention_one=round(stack.attention_one * seen["attention_one"] / scores, 3),
        scatter=float(f"{stack.scatter * seen['scatter']:.3g}"),
        passing=round(stack.passing / seen["activation"], 4),
        unpack=by_packing("unpack", unpack),
        product=by_packing("flop", stack.product),
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("runs", type=Path)
    arguments.add_argument("--write", action="store_true")
    given = arguments.parse_args()
    runs = msgspec.json.decode(given.runs.read_bytes(), type=ProcessorRuns)
    top = calibrated(runs)
    for part, found in errors(runs, top).items():
        print(part)
        for name, ratio in found:
            print(f"  {name:60} {ratio:.2f}")
        off = sorted(abs(ratio - 1) for _, ratio in found)
        print(f"  n={len(off)} median {statistics.median(off):.1%} p95 {off[int(0.95 * (len(off) - 1))]:.1%}")
    fitted = parameters()
    stack = folded(fitted.stacks["cpu"], fitted, top)
    print(stack)
    if given.write:
        found = msgspec.structs.replace(fitted, stacks=fitted.stacks | {"cpu": stack})
        OUT.write_text(msgspec.json.format(msgspec.json.encode(found), indent=1).decode() + "\n")


if __name__ == "__main__":
    main()
