"""Budgets: what is free and usable, with each deduction named."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizeup.machines import machine_budget, parse_machine
from sizeup.machines.budget import GPU_RESERVE, HOST_RESERVE_LEAST, metal_working_set
from sizeup.machines.device import Device, Limits, Machine
from sizeup.quantity.units import GIB, MIB


def machine(memory=64 * GIB, free=None, gpus=(), **more):
    cpu = Device(name="CPU", kind="cpu", vendor="", memory_bytes=memory, free_bytes=free)
    return Machine(name="m", cpu=cpu, gpus=tuple(gpus), **more)


def card(**fields):
    return Device(**{"name": "G", "kind": "gpu", "vendor": "v", "memory_bytes": 24 * GIB} | fields)


def test_free_memory_counts_and_not_all_of_it():
    budget = machine_budget(machine(gpus=[card(free_bytes=10 * GIB, display=False)]))
    term = budget.gpus[0].usable
    assert term.value == 10 * GIB - GPU_RESERVE
    assert term.find("in use").value == -14 * GIB
    assert [part.name for part in term.parts] == ["memory", "in use", "reserve"]


def test_a_described_card_loses_what_drivers_keep():
    budget = machine_budget(parse_machine("RTX 4090, 64 GB"))
    term = budget.gpus[0].usable
    assert term.find("driver").value == -int(0.015 * 24564 * MIB)
    assert 23 * GIB < term.value < 24 * GIB


def test_a_screen_takes_its_part():
    with_screen = machine_budget(parse_machine("RTX 4090, 64 GB, display")).gpus[0].usable_bytes
    without = machine_budget(parse_machine("RTX 4090, 64 GB, headless")).gpus[0].usable_bytes
    assert without - with_screen > 500 * MIB


@pytest.mark.parametrize(("gib", "limit_mb"), [(16, 11453.25), (24, 17179.87), (36, 28991.03), (64, 51539.61)])
def test_metal_working_set_as_llama_cpp_prints_it(gib, limit_mb):
    assert metal_working_set(gib * GIB) == pytest.approx(limit_mb * 1e6, rel=1e-4)


def test_a_raised_metal_limit_is_obeyed_but_not_beyond_what_is_free():
    mac = parse_machine("M2 Max 38-core 96 GB")
    raised = msgspec.structs.replace(mac.gpus[0], memory_limit_bytes=95 * GIB)
    budget = machine_budget(msgspec.structs.replace(mac, gpus=(raised,)))
    assert budget.gpus[0].usable_bytes == budget.host.usable_bytes < 95 * GIB
    assert budget.gpus[0].shared_bytes == budget.gpus[0].usable_bytes


def test_shared_memory_is_counted_once():
    budget = machine_budget(parse_machine("MacBook Pro M4 Max 64 GB"))
    assert budget.total_bytes() == budget.host.usable_bytes
    two = machine_budget(parse_machine("2x RTX 4090, 64 GB"))
    assert two.total_bytes() == two.host.usable_bytes + 2 * two.gpus[0].usable_bytes


def test_carve_out_and_gtt():
    apu = Device(
        name="APU", kind="unified", vendor="amd", memory_bytes=127 * GIB, dedicated_bytes=96 * GIB,
        free_bytes=95 * GIB, memory_limit_bytes=16 * GIB,
    )  # fmt: skip
    budget = machine_budget(machine(memory=31 * GIB, free=28 * GIB, gpus=[apu]))
    assert budget.gpus[0].shared_bytes == 16 * GIB
    assert budget.gpus[0].usable_bytes == 95 * GIB - GPU_RESERVE + 16 * GIB
    assert budget.total_bytes() == budget.host.usable_bytes + 95 * GIB - GPU_RESERVE


def test_a_container_limits_the_host():
    limits = Limits(memory_bytes=8 * GIB, memory_used_bytes=1 * GIB, source="/sys/fs/cgroup/memory.max")
    budget = machine_budget(machine(free=60 * GIB, limits=limits))
    term = budget.host.usable
    assert budget.host.usable_bytes == 7 * GIB - int(0.03 * 64 * GIB)
    assert term.find("not allowed to this container").source == "/sys/fs/cgroup/memory.max"
    wide = machine_budget(machine(free=60 * GIB, limits=Limits(memory_bytes=1 << 45)))
    assert wide.host.usable.find("not allowed to this container") is None


def test_a_limit_that_is_used_up_leaves_nothing_and_not_less():
    limits = Limits(memory_bytes=2 * GIB, memory_used_bytes=3 * GIB)
    assert machine_budget(machine(limits=limits)).host.usable_bytes == 0


def test_unknown_memory_is_said():
    budget = machine_budget(machine(memory=None, gpus=[card(memory_bytes=None), card(kind="unified")]))
    assert budget.host.usable_bytes is None
    assert budget.gpus[0].usable_bytes is None
    assert budget.gpus[1].usable_bytes is None
    assert "unknown" in budget.host.usable.formula
    with pytest.raises(ValueError, match="unknown"):
        _ = budget.host.usable.value
    assert budget.total_bytes() == 0


sizes = st.integers(1, 1 << 44)


@given(memory=sizes, free=st.none() | sizes, vram=sizes, vram_free=st.none() | sizes, limit=st.none() | sizes,
       used=st.none() | sizes, display=st.booleans(), kind=st.sampled_from(["gpu", "unified"]),
       dedicated=st.none() | sizes, cap=st.none() | sizes)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_budgets_are_never_negative_nor_more_than_there_is(
    memory, free, vram, vram_free, limit, used, display, kind, dedicated, cap
):
    free = None if free is None else min(free, memory)
    own = dedicated if kind == "unified" else vram
    vram_free = None if vram_free is None or own is None else min(vram_free, own)
    gpu = card(kind=kind, memory_bytes=vram, free_bytes=vram_free, display=display, dedicated_bytes=dedicated,
               memory_limit_bytes=cap)  # fmt: skip
    limits = Limits(memory_bytes=limit, memory_used_bytes=used)
    budget = machine_budget(machine(memory, free, [gpu], limits=limits))
    host = budget.host.usable_bytes
    assert 0 <= host <= memory
    assert budget.gpus[0].usable_bytes >= 0
    assert budget.gpus[0].usable_bytes <= (vram if kind == "gpu" else (dedicated or 0) + host)
    assert 0 <= budget.gpus[0].shared_bytes <= host
    assert sum(part.value for part in budget.gpus[0].usable.parts) == budget.gpus[0].usable_bytes


def test_small_hosts_keep_a_reserve():
    budget = machine_budget(machine(memory=4 * GIB, free=3 * GIB))
    assert budget.host.usable_bytes == 3 * GIB - HOST_RESERVE_LEAST


def test_a_described_mac_keeps_more_for_its_system_than_a_linux_box():
    def left(words: str) -> int:
        machine = parse_machine(words)
        return machine.cpu.memory_bytes - machine_budget(machine).host.usable_bytes

    reserve = int(0.03 * 64 * GIB)
    assert left("MacBook Pro M4 Max 64 GB") == 4 * GIB + reserve
    assert left("RTX 4090, 64 GB RAM") == 2 * GIB + reserve
