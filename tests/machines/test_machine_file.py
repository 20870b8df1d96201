"""Machine files, and back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizeup.errors import BadFile, NotFound, SizeupError
from sizeup.machines import machine_to_toml, parse_machine, probe_machine, read_machine_file
from sizeup.machines.device import Device, Machine
from sizeup.machines.machine_file import machine_from_toml
from sizeup.quantity.units import GIB

LAB = """
name = "lab"
os = "linux"

[cpu]
name = "EPYC 9354"
memory = "384 GB"
free = "350 GB"

[[gpu]]
device = "RTX 6000 Ada"
count = 2
free = "46 GB"

[[gpu]]
name = "Prototype X"
kind = "gpu"
memory = "48 GB"
bandwidth = 1_000_000_000_000
compute = { bf16 = 200_000_000_000_000 }

[limits]
memory = "64 GB"
cpus = 8
"""


def test_known_devices_are_completed():
    machine = machine_from_toml(LAB)
    assert machine.cpu.bandwidth == 460_800_000_000
    assert machine.cpu.memory_bytes == 384 * GIB
    assert [gpu.catalogue_id for gpu in machine.gpus] == ["rtx-6000-ada", "rtx-6000-ada", ""]
    assert machine.gpus[0].free_bytes == 46 * GIB
    assert machine.gpus[0].bandwidth == 960_000_000_000
    assert machine.gpus[0].provenance["free_bytes"] == "file"
    assert machine.gpus[0].provenance["bandwidth"] == "catalogue"
    assert machine.gpus[2].compute == {"bf16": 200_000_000_000_000}
    assert machine.limits.memory_bytes == 64 * GIB
    assert machine.evidence == "file"


@pytest.mark.parametrize(
    "text",
    ["2x RTX 4090, 64 GB RAM", "MacBook Pro M4 Max 64 GB", "CPU only, 16 GB", "DGX H100", "Ryzen AI Max+ 395 128 GB",
     "RTX 4070 (8 GB free), 16 GB RAM, 100 GB disk, windows", "2x EPYC 9654, 1536 GB"],
)  # fmt: skip
def test_round_trip(text):
    machine = parse_machine(text)
    assert machine_from_toml(machine_to_toml(machine)) == machine


def test_round_trip_of_the_probe():
    machine = probe_machine({})
    assert machine_from_toml(machine_to_toml(machine)) == machine


@given(name=st.text(max_size=30), note=st.text(max_size=30), size=st.integers(1, 1 << 50), threads=st.integers(1, 999))
@settings(max_examples=100, deadline=None)
def test_round_trip_of_any_text(name, note, size, threads):
    cpu = Device(name=name, kind="cpu", vendor=note, memory_bytes=size, provenance={note: name})
    machine = Machine(name=name, cpu=cpu, notes=(note,), cpu_threads=threads, evidence="file")
    assert machine_from_toml(machine_to_toml(machine), name=name) == machine


def test_a_file(tmp_path):
    path = tmp_path / "lab.toml"
    path.write_text(LAB.replace('name = "lab"\n', ""), encoding="utf-8")
    assert read_machine_file(path).name == "lab"
    assert parse_machine(str(path)) == read_machine_file(path)
    with pytest.raises(NotFound, match="no machine file"):
        read_machine_file(tmp_path / "other.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cpu = 1", "no \\[cpu\\] table"),
        ("nonsense", "nonsense|Expected"),
        ("[cpu]\nmemory = '16 GB'\n[[gpu]]\ndevice = 'RTX 9999'", "unknown device"),
        ("[cpu]\nmemory = '16 GB'\n[[gpu]]\ndevice = 'RTX 3060'", "several devices"),
        ("[cpu]\nmemory = '16 GB'\n[[gpu]]\nnmae = 'X'", "nmae"),
        ("[cpu]\nmemory = '16 GB'\ncolour = 'red'", "colour"),
        ("[cpu]\nmemory = 'much'", "much"),
        ("[cpu]\nmemory_bytes = -5", "memory_bytes = -5"),
        ("[cpu]\nmemory = '16 GB'\nfree = '20 GB'", "free_bytes"),
        ("[cpu]\nmemory_bytes = '5'", "int"),
        ("[cpu]\nmemory = '16 GB'\n[[gpu]]\ndevice = 'L4'\ncount = 0", "count = 0"),
        ("[cpu]\nmemory = '16 GB'\n[[gpu]]\ndevice = 'L4'\ncount = 99999999", "count"),
        ("colour = 1\n[cpu]\nmemory = '1 GB'", "colour"),
        ("gpu = 3\n[cpu]\nmemory = '1 GB'", "gpu must be"),
        ("limits = 3\n[cpu]\nmemory = '1 GB'", "a table is needed"),
    ],
)
def test_bad_files(text, words):
    with pytest.raises(BadFile, match=words) as caught:
        machine_from_toml(text)
    assert caught.value.hint


def test_files_that_are_not_text(tmp_path):
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadFile):
        read_machine_file(path)
    path.write_bytes(b"#" * (2 << 20))
    with pytest.raises(BadFile, match="too large"):
        read_machine_file(path)


@given(st.one_of(st.text(max_size=120), st.text(alphabet="[]{}=\"'\n,cpugm12_. ", max_size=120)))
@settings(max_examples=200, deadline=None)
def test_hostile_text(text):
    try:
        machine_from_toml(text)
    except SizeupError as error:
        assert error.message  # noqa: PT017 - most descriptions are wrong, and none may fail otherwise


def test_the_documented_example_can_be_read():
    import re
    from pathlib import Path

    text = (Path(__file__).parents[2] / "docs" / "machine-file.md").read_text(encoding="utf-8")
    machine = machine_from_toml(re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1])
    assert [gpu.name for gpu in machine.gpus] == ["NVIDIA RTX 6000 Ada Generation"] * 2 + ["Prototype X"]
    assert machine.limits.cpus == 16
