"""Machines described in words."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sizeup.errors import BadInput, NotFound, SizeupError
from sizeup.machines import load_machine, machine_budget, parse_machine
from sizeup.quantity.units import GIB


def test_two_cards_and_ram():
    machine = parse_machine("2x RTX 4090, 64 GB RAM")
    assert [gpu.name for gpu in machine.gpus] == ["NVIDIA GeForce RTX 4090"] * 2
    assert machine.cpu.memory_bytes == 64 * GIB
    assert machine.evidence == "described"
    assert not machine.unified
    assert machine.gpus[0].provenance["bandwidth"] == "catalogue"


def test_a_mac():
    machine = parse_machine("MacBook Pro M4 Max 64 GB")
    (gpu,) = machine.gpus
    assert machine.unified
    assert machine.os == "macos"
    assert gpu.memory_bytes == machine.cpu.memory_bytes == 64 * GIB
    assert gpu.bandwidth == machine.cpu.bandwidth == 546_000_000_000
    assert gpu.memory_limit_bytes == 48 * GIB
    assert machine_budget(machine).gpus[0].usable_bytes == 48 * GIB


def test_memory_with_type_and_speed():
    machine = parse_machine("RTX 3060 12GB + 32GB DDR4-3200")
    assert machine.gpus[0].catalogue_id == "rtx-3060-12gb"
    assert machine.cpu.memory_bytes == 32 * GIB
    assert machine.cpu.bandwidth == 51_200_000_000
    assert machine.cpu.memory_type == "DDR4-3200"
    assert machine.notes == ()


def test_cpu_only():
    machine = parse_machine("CPU only, 16 GB")
    assert machine.gpus == ()
    assert machine.cpu.memory_bytes == 16 * GIB
    assert "assumed" in machine.cpu.provenance["bandwidth"]
    assert any("DDR4-3200 assumed" in note for note in machine.notes)


def test_servers():
    machine = parse_machine("8x H100 SXM")
    assert len(machine.gpus) == 8
    assert machine.gpus[0].peer_link.bytes_per_s == 450_000_000_000
    assert any("RAM isn't given" in note for note in machine.notes)
    assert len(parse_machine("DGX H100").gpus) == 8


def test_apu_with_its_memory():
    machine = parse_machine("Ryzen AI Max+ 395 128 GB")
    assert machine.unified
    assert machine.gpus[0].memory_limit_bytes == 96 * GIB
    assert any("75%" in note for note in machine.notes)


@pytest.mark.parametrize(
    ("text", "gpu", "ram"),
    [
        ("4090", "rtx-4090", 16),
        ("RTX 4090 24GB VRAM, 64GB DDR5-6000 quad-channel, 16 cores", "rtx-4090", 64),
        ("RTX 3060 12GB 32GB RAM", "rtx-3060-12gb", 32),
        ("RTX 4090 Laptop, 32 GB", "rtx-4090-laptop", 32),
        ("M4 Max, 64 GB RAM", "apple-m4-max-40-core", 64),
        ("M4 Max 36GB", "apple-m4-max-32-core", 36),
        ("Apple M1 4P+4E+7GPU, 8 GB", "apple-m1-7-core", 8),
        ("Mac mini M4 Pro 24GB", "apple-m4-pro-16-core", 24),
        ("Mac Studio M3 Ultra 512 GB", "apple-m3-ultra-80-core", 512),
        ("DGX Spark", "gb10", 128),
        ("Framework Desktop 128GB", "ryzen-ai-max-plus-395", 128),
        ("RX 7900 XTX with 2x16 GB DDR5", "rx-7900-xtx", 32),
        ("Ryzen 9 5950X, RTX 3090, 128 GB", "rtx-3090", 128),
        ("RTX 4060 Ti 16 GB & 32 GB RAM", "rtx-4060-ti-16gb", 32),
        ("3080 Ti 12GB", "rtx-3080-ti", 16),
        ("GTX 970; 16 GB", "gtx-970", 16),
    ],
)
def test_ways_to_write_it(text, gpu, ram):
    machine = parse_machine(text)
    assert [device.catalogue_id for device in machine.gpus] == [gpu]
    assert machine.cpu.memory_bytes == ram * GIB


@pytest.mark.parametrize(
    "text", ["2x 3090, 64 GB", "3090 x2, 64 GB", "3090 * 2 + 64 GB", "2 RTX 3090, 64 GB", "2×3090,64G"]
)
def test_ways_to_count(text):
    assert [gpu.catalogue_id for gpu in parse_machine(text).gpus] == ["rtx-3090", "rtx-3090"]


def test_mixed_cards_keep_their_order():
    machine = parse_machine("RTX 4090, 2x RTX 3090, 128 GB")
    assert [gpu.catalogue_id for gpu in machine.gpus] == ["rtx-4090", "rtx-3090", "rtx-3090"]


def test_known_processors_bring_their_channels():
    machine = parse_machine("EPYC 9654, 768 GB")
    assert machine.cpu.bandwidth == 460_800_000_000
    assert machine.cpu.units == 96
    assert machine.cpu_threads == 192
    two = parse_machine("2x EPYC 9654, 1536 GB")
    assert two.cpu.bandwidth == 2 * 460_800_000_000
    assert two.cpu.units == 192


def test_free_memory_is_what_the_budget_starts_from():
    machine = parse_machine("RTX 4070 (8 GB free), 16 GB RAM (10 GB free)")
    assert machine.gpus[0].free_bytes == 8 * GIB
    assert machine.cpu.free_bytes == 10 * GIB
    budget = machine_budget(machine)
    assert 7.8 * GIB < budget.gpus[0].usable_bytes < 8 * GIB
    assert 9 * GIB < budget.host.usable_bytes < 10 * GIB


def test_disk_system_and_screen():
    machine = parse_machine("RTX 4070, 32 GB, 100 GB disk, Windows, display")
    assert machine.disk.free_bytes == 100 * GIB
    assert machine.os == "windows"
    assert machine.gpus[0].display is True


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("RTX 3060", "several devices"),
        ("RTX 3060, 32 GB RAM", "several devices"),
        ("M4 Max", "several devices"),
        ("M4", "several devices|comes with"),
        ("M4 Pro 20-core", "comes with 24 GB, 48 GB, 64 GB"),
        ("MacBook Pro M4 Max 40 GB", "doesn't come with 40 GB"),
        ("RTX 4090 40 GB", "doesn't come with 40 GB"),
        ("M4 Max 64 GB, 32 GB RAM", "two sizes"),
        ("CPU only, RTX 4090", "no GPU and for"),
        ("2x M4 Max 64 GB", "are 2 machines"),
        ("0x RTX 4090", "out of range"),
        ("9999x RTX 4090", "out of range"),
        ("RTX 4090 (48 GB free)", "more free than"),
        ("CPU only, 16 GB RAM, 20 GB free", "20 GiB free of 16 GiB"),
        ("", "empty"),
        (",,+", "no device and no RAM"),
        ("linux", "no device and no RAM"),
        ("0 GB", "not a size"),
        ("x" * 2000, "2,000 characters"),
    ],
)
def test_bad_descriptions(text, words):
    with pytest.raises(BadInput, match=words) as caught:
        parse_machine(text)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["RTX 9999", "a toaster, 16 GB", "laptop with RTX 4060", "missing.toml"])
def test_unknown_things(text):
    with pytest.raises(NotFound) as caught:
        parse_machine(text)
    assert caught.value.hint


def test_explicit_before_environment_before_probe(tmp_path):
    env = {"SIZEUP_MACHINE": "RTX 4090, 64 GB"}
    assert load_machine("CPU only, 8 GB", env).gpus == ()
    assert load_machine(None, env).gpus[0].catalogue_id == "rtx-4090"
    assert load_machine(None, {}).evidence == "probed"
    assert load_machine(None, {"SIZEUP_MACHINE": " "}).evidence == "probed"


WORDS = ["2x", "RTX", "4090", "RTX 4090", "64 GB", "RAM", "DDR5-6000", "M4 Max", "+", ",", "free", "(", ")", "CPU only",
         "x", "*", "8", "EPYC 9654", "quad-channel", "GB", "12GB", "disk", "cores", "DGX H100", "0", "with", "Max+ 395"]  # fmt: skip


@given(st.one_of(st.text(max_size=80), st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)))
@example("9" * 500 + " GB")
@example("1e400 GB")
@example("٣x RTX 4090")
@example("2x" * 300)
@settings(max_examples=600, deadline=None)
def test_never_anything_but_a_machine_or_a_clear_error(text):
    try:
        machine = parse_machine(text)
    except SizeupError as error:
        assert error.message  # noqa: PT017 - most descriptions are wrong, and none may fail otherwise
        return
    budget = machine_budget(machine)
    for device, share in zip(machine.gpus, budget.gpus, strict=True):
        assert 0 <= share.usable_bytes <= device.memory_bytes
        assert 0 <= share.shared_bytes <= budget.host.usable_bytes
    assert 0 <= budget.host.usable_bytes <= machine.cpu.memory_bytes


@given(
    count=st.integers(1, 64), ram=st.integers(1, 4096), name=st.sampled_from(["RTX 4090", "H100 SXM", "RX 7900 XTX"])
)
@settings(max_examples=60, deadline=None)
def test_what_is_said_is_what_is_there(count, ram, name):
    machine = parse_machine(f"{count}x {name}, {ram} GB RAM")
    assert len(machine.gpus) == count
    assert machine.cpu.memory_bytes == ram * GIB


@pytest.mark.parametrize(
    ("text", "gb_per_s"),
    [
        ("EPYC 9654, 768 GB DDR5-4800", 460.8),
        ("Threadripper 7980X, 256 GB DDR5-4800", 153.6),
        ("Ryzen 9 5950X, 64 GB DDR4-2666", 42.656),
        ("CPU only, 8 channels DDR4-3200, 256 GB", 204.8),
        ("CPU only, 16 GB DDR5X", 25.6),
        ("AWS g5.xlarge", 50.0),
        ("Radeon 780M, 32 GB DDR5-5600", 89.6),
        ("Radeon 780M, 32 GB", 120.0),
    ],
)
def test_bandwidth_of_ram(text, gb_per_s):
    machine = parse_machine(text)
    assert machine.cpu.bandwidth == pytest.approx(gb_per_s * 1e9)
    if machine.unified:
        assert machine.gpus[0].bandwidth == machine.cpu.bandwidth
