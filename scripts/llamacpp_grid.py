"""Simulate a grid of llama.cpp settings for models described by configuration files, as JSON lines.

    scripts/llamacpp_grid.py --model CONFIG.json [--model …] [--format Q4_K_M] [--context 2048,32768]
        [--cache f16,q8_0,q4_0] [--flash on,off] [--ubatch 128,512,2048] [--parallel 1,4] [--full] [--out FILE]

Needs llama-cpp-python: SIZEUP_LLAMACPP_PYTHON names the Python that has it. Estimates of the same cells come from
sizeup.engines.llamacpp.footprint.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path

import msgspec

from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.simulate import SimulatedFootprint
from sizeup.errors import SizeupError
from sizeup.measure.simulation import simulate
from sizeup.models.config import read_config
from sizeup.models.from_config import model_from_config
from sizeup.models.model import Model


def settings_from(options: argparse.Namespace) -> list[LlamaSetting]:
    """Every combination of the options that llama.cpp accepts."""
    axes = (
        options.format,
        options.context,
        options.cache,
        options.flash,
        options.ubatch,
        options.parallel,
        options.unified,
    )
    cells = itertools.product(*(axis.split(",") for axis in axes))
    return [
        LlamaSetting(
            format=kind,
            context=int(context),
            cache_k=cache,
            cache_v=cache if flash == "on" else "f16",
            flash_attention=flash,
            ubatch=int(ubatch),
            parallel=int(parallel),
            unified=unified == "yes",
        )
        for kind, context, cache, flash, ubatch, parallel, unified in cells
    ]


def row(model: Model, cell: SimulatedFootprint) -> dict[str, object]:
    """One line of the grid."""
    return {
        "model": model.name,
        "setting": msgspec.to_builtins(cell.setting),
        "weights": cell.weights,
        "cache": cell.cache,
        "compute": cell.compute,
        "output": cell.output,
        "buffers": msgspec.to_builtins(cell.buffers),
        "nodes": cell.graph.nodes,
        "refused": cell.refused,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", type=Path, required=True)
    parser.add_argument("--format", default="Q4_K_M")
    parser.add_argument("--context", default="2048,8192,32768,131072")
    parser.add_argument("--cache", default="f16,q8_0,q4_0")
    parser.add_argument("--flash", default="on,off")
    parser.add_argument("--ubatch", default="128,512,2048")
    parser.add_argument("--parallel", default="1,4")
    parser.add_argument("--unified", default="no")
    parser.add_argument("--out", type=argparse.FileType("w"), default=sys.stdout)
    options = parser.parse_args()
    failures = 0
    for path in options.model:
        try:
            model = model_from_config(read_config(path), path.stem.replace("--", "/"))
            for cell in simulate(model, settings_from(options)):
                options.out.write(json.dumps(row(model, cell)) + "\n")
        except (SizeupError, KeyError) as error:
            failures += 1
            print(f"{path.stem}: {error}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
