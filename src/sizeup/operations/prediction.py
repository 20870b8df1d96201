"""What is expected of a bench's cell: the speed estimated at its depth, and the ceiling above it."""

from __future__ import annotations

import msgspec

from sizeup.advice.speeds import speed_of
from sizeup.engines.llamacpp.footprint import assignment_of
from sizeup.engines.llamacpp.traffic import stages
from sizeup.machines.budget import machine_budget
from sizeup.measure.bench.cells import Cell
from sizeup.measure.bench.results import Prediction
from sizeup.operations.serving import Served


def predict(served: Served, cell: Cell) -> Prediction:
    """Decode of one sequence, half of what it generates being behind it.

    ceiling: 1 / Σ over devices of bytes read / theoretical bandwidth. Several at once aren't predicted yet.
    """
    depth = cell.depth + cell.prompt + cell.generate // 2
    if cell.concurrency > 1:
        return Prediction(because="several sequences at once are not predicted yet")
    budget = machine_budget(served.machine)
    at_depth = msgspec.structs.replace(served.plan.setting, context=2 * depth)
    speed = speed_of(served.model, at_depth, served.machine, budget)
    if speed.decode_tokens_per_s is None:
        return Prediction(because=speed.because)
    places = assignment_of(served.model, served.plan.setting, served.machine, budget)
    found = stages(served.model, served.plan.setting, served.machine, places, depth)
    least = sum(stage.ceiling_seconds for stage in found)
    return Prediction(speed.decode_tokens_per_s, None, 1 / least if least else None, speed.because)
