"""What a bench expects: of fewer threads than cores, and of as many."""

import msgspec
import pytest

from sizeup.estimate.speed.ceilings import ceilings
from sizeup.estimate.speed.threads import CORE_BANDWIDTH, with_threads
from sizeup.measure.bench.cells import Cell
from sizeup.operations.prediction import predict
from sizeup.operations.serving import Wish, planned

CELL = Cell(prompt=512, generate=32)
COMPUTE = {"fp32": 2_000_000_000_000}


@pytest.fixture
def served():
    """A small model on a described desktop with 8 cores."""
    found = planned(Wish(model="qwen3-0.6b", format="Q8_0", contexts=(1024,), offline=True, force=True))
    machine = found.machine
    compute = {"fp32": 1_300_000_000_000, "bf16": 2_600_000_000_000}
    cpu = msgspec.structs.replace(machine.cpu, units=8, bandwidth=80_000_000_000, compute=compute)
    machine = msgspec.structs.replace(machine, cpu=cpu, cpu_threads=16, evidence="described", gpus=())
    machine = msgspec.structs.replace(machine, limits=msgspec.structs.replace(machine.limits, cpus=None))
    return msgspec.structs.replace(found, machine=machine)


def test_a_prompt_is_read_in_proportion_to_the_threads(served):
    every, half = predict(served, CELL), predict(served, CELL, 4)
    assert 0.45 < half.prefill.value / every.prefill.value < 0.6


def test_writing_suffers_only_when_the_cores_that_work_cant_fill_the_memory(served):
    speeds = [predict(served, CELL, threads).decode.value for threads in (1, 2, 4, 8)]
    assert speeds == sorted(speeds)
    assert 0.2 < speeds[0] / speeds[-1] < 0.6
    assert speeds[2] / speeds[-1] > 0.7


def test_more_threads_than_cores_change_nothing(served):
    assert predict(served, CELL, 16) == predict(served, CELL, 8) == predict(served, CELL)


def test_the_ceiling_is_the_memorys_whatever_the_threads(served):
    assert predict(served, CELL, 1).ceiling == predict(served, CELL).ceiling


def test_fewer_threads_scale_every_ceiling(served):
    full = ceilings(served.machine.cpu)
    few = with_threads(full, 2, 8)
    assert few.bandwidth == 2 * CORE_BANDWIDTH
    assert few.plain_matrix == full.plain_matrix / 4
    assert with_threads(full, 8, 8) is full
