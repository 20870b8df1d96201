"""The catalogue: up to date, without shared names, with plausible facts, and knowing what benchmarks are run on."""

import csv
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sizeup.errors import BadInput, NotFound
from sizeup.machines import catalogue
from sizeup.machines.catalogue import entries, find_device, find_entry, sources, systems
from sizeup.machines.names import normalise
from sizeup.machines.words import device_named, parse_machine
from sizeup.quantity.units import GIB, MIB

ROOT = Path(__file__).parents[2]
GPUS = [record for record in entries() if record.kind != "cpu"]


def script():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import build_devices
    finally:
        sys.path.pop(0)
    return build_devices


def test_the_compiled_file_is_up_to_date():
    built = script().build()
    assert (ROOT / "src/sizeup/machines/devices.json").read_bytes() == built, "run scripts/build_devices.py"


def write_catalogue(folder: Path, *devices: str) -> Path:
    head = '[source.s]\ntitle = "t"\nhow = "read"\nchecked = "2026-11-21"\n'
    text = head + "".join(
        f'[[device]]\nkind = "gpu"\nvendor = "v"\nklass = "desktop"\n{device}\n' for device in devices
    )
    (folder / "x.toml").write_text(text, encoding="utf-8")
    return folder


def test_two_devices_must_not_share_a_name(tmp_path):
    folder = write_catalogue(tmp_path, 'id = "a"\nname = "RTX 1"', 'id = "b"\nname = "B"\naliases = ["NVIDIA RTX-1"]')
    with pytest.raises(ValueError, match="two times the device name 'rtx1'"):
        script().build(folder)


def test_facts_need_a_source(tmp_path):
    folder = write_catalogue(tmp_path, 'id = "a"\nname = "A"\nbandwidth = 1000')
    with pytest.raises(ValueError, match="device a: no source for memory"):
        script().build(folder)


def test_a_misspelt_field_is_refused(tmp_path):
    folder = write_catalogue(tmp_path, 'id = "a"\nname = "A"\nbandwith = 1000')
    with pytest.raises(ValueError, match="bandwith"):
        script().build(folder)


def test_size_of_the_catalogue():
    assert len(GPUS) >= 250
    assert {"nvidia", "amd", "intel", "apple"} <= {record.vendor for record in GPUS}
    assert {"desktop", "laptop", "workstation", "datacentre", "embedded", "integrated"} <= {r.klass for r in GPUS}
    assert len(entries()) - len(GPUS) >= 60


@pytest.mark.parametrize("record", entries(), ids=lambda record: record.id)
def test_facts_are_plausible(record):
    for size in record.memory_choices or (record.memory_bytes,):
        if record.kind == "gpu":
            assert 2 * GIB <= size <= 300 * GIB
        elif size is not None:
            assert 4 * GIB <= size <= 512 * GIB
    assert 10e9 <= record.bandwidth <= 8.1e12
    fp32 = record.compute.get("fp32", 0)
    if record.kind != "cpu":
        assert fp32 > 0
        # a sparse or mistyped figure would be out of these ratios, whatever the generation
        assert record.compute.get("fp16", fp32) <= 34 * fp32
        assert record.compute.get("fp8", 0) <= 2.05 * record.compute.get("bf16", 0)
        assert record.compute.get("fp4", 0) <= 4.05 * record.compute.get("fp8", 0)
    assert 1 <= (record.power_w or 100) <= 1500
    assert set(record.compute) <= {"fp32", "fp16", "fp16_acc16", "bf16", "fp8", "int8", "fp4"}
    assert all(key in sources() for key in record.fact_sources.values())


def test_every_source_says_how_and_when():
    for source in sources().values():
        assert source.how in {"read", "recalled", "derived"}
        assert source.checked >= "2026-11-21"


@pytest.mark.parametrize(
    ("name", "memory_mib", "gb_per_s", "kind", "tera"),
    [
        ("RTX 4090", 24564, 1008, "fp16", 165.2),
        ("RTX 4090", 24564, 1008, "fp16_acc16", 330.3),
        ("RTX 4090 Laptop GPU", 16376, 576, "fp16_acc16", 158.8),
        ("RTX 3090", 24576, 936.2, "bf16", 71.2),
        ("RTX 5090", 32607, 1792, "fp4", 1676),
        ("RTX A6000", 49140, 768, "bf16", 154.8),
        ("A100-SXM4-80GB", 81920, 2039, "bf16", 312),
        ("H100 SXM", 81559, 3350, "fp8", 1979),
        ("L4", 23034, 300, "bf16", 121),
        ("L40", 46068, 864, "bf16", 181),
        ("L40S", 46068, 864, "fp8", 733),
        ("B200", 183359, 7700, "bf16", 2250),
        ("B300", 275040, 7750, "int8", 153.5),
        ("MI300X", 192 * 1024, 5300, "bf16", 1307.4),
        ("MI325X", 256 * 1024, 6000, "fp8", 2614.9),
        ("RX 7900 XTX", 24 * 1024, 960, "fp16", 122.9),
        ("Arc B580", 12 * 1024, 456, "int8", 233.5),
        ("Tesla P40", 24576, 347.1, "int8", 47),
    ],
)
def test_golden_facts(name, memory_mib, gb_per_s, kind, tera):
    device = find_device(name)
    assert device.memory_bytes == memory_mib * MIB
    assert device.bandwidth == pytest.approx(gb_per_s * 1e9, rel=1e-3)
    assert device.compute[kind] == pytest.approx(tera * 1e12, rel=2e-3)


def test_names_are_compared_exactly():
    assert find_entry("L4").id == "l4"
    assert find_entry("L40").id == "l40"
    assert find_entry("4090").id == "rtx-4090"
    assert find_entry("NVIDIA GeForce RTX 4090 Laptop GPU").id == "rtx-4090-laptop"
    assert find_entry("nvidia RTX4090").id == "rtx-4090"
    assert find_entry("RTX 4060 Mobile").id == "rtx-4060-laptop"
    for unknown in ("L", "L400", "409", "RTX 40900", "RTX", "40", "H10", "Laptop"):
        with pytest.raises(NotFound):
            find_entry(unknown)


def test_unknown_devices_get_the_nearest_names():
    with pytest.raises(NotFound) as caught:
        find_entry("RTX 4095")
    assert "RTX 4090" in caught.value.hint
    assert "TOML" in caught.value.hint


@pytest.mark.parametrize("name", ["RTX 3060", "RTX 3080", "A100", "4060 Ti", "V100", "RTX 6000", "M4 Max"])
def test_several_memory_sizes_are_ambiguous(name):
    with pytest.raises(BadInput) as caught:
        find_entry(name)
    assert "several" in caught.value.message
    assert caught.value.hint.count("'") >= 4


def test_memory_or_bandwidth_decides():
    assert find_entry("RTX 3060", memory_bytes=8 * GIB).id == "rtx-3060-8gb"
    assert find_entry("RTX 3080", bandwidth=912 * 10**9).id == "rtx-3080-12gb"
    assert find_entry("A100 80GB").id == "a100-sxm4-80gb"
    with pytest.raises(BadInput, match="doesn't come with 10 GB"):
        find_entry("RTX 3060", memory_bytes=10 * GIB)


def test_normalise():
    assert normalise("NVIDIA GeForce RTX\u00a04090") == normalise("rtx-4090") == "rtx4090"
    assert normalise("Intel(R) Arc(TM) A770") == "arca770"
    assert normalise("M1 Max 32\u2011Core GPU") == "m1max32core"
    assert normalise("Ryzen AI Max+ 395") == "ryzenaimax+395"


def test_every_system_can_be_read():
    for system in systems():
        machine = parse_machine(system.name)
        assert machine.gpus, system.id
        assert "assumed" not in machine.cpu.provenance["memory_bytes"], system.id


NOT_DEVICES = {
    "(97 GiB class)", "(not printed)", "2x CUDA", "4070Ti+3090Ti", "CPU", "CUDA", "CUDA0", "CUDA1", "CUDA_Host",
    "Ascend 64GB", "H100 96GB HBM2e",
}  # fmt: skip


def test_names_in_published_measurements(truth_dir):
    """Every hardware name there is a device or a machine here, and its bandwidth agrees where one is given."""
    unknown = set()
    for file, column in (
        ("speed.csv", "hardware"), ("llama_bench.csv", "hardware"), ("train_speed.csv", "system"),
        ("memory_published.csv", "hardware"),
    ):  # fmt: skip
        with (truth_dir / file).open(encoding="utf-8") as rows:
            for row in csv.DictReader(rows):
                name, given = row[column], row.get("mem_bw_gbs")
                if catalogue.find_system(name):
                    continue
                try:
                    record = device_named(name, bandwidth=int(float(given) * 1e9) if given else None)
                except NotFound:
                    unknown.add(name)
                    continue
                # the table gives one figure for both variants of the M5 Max
                if given and record.id != "apple-m5-max-32-core":
                    assert record.bandwidth == pytest.approx(float(given) * 1e9, rel=0.03), name
    assert unknown == NOT_DEVICES


def test_loading_is_fast_and_lazy():
    code = (
        "import sys, time; import msgspec; import sizeup.machines; assert 'sizeup.machines.catalogue' not in sys.modules\n"
        "from sizeup.machines import catalogue; start = time.perf_counter(); catalogue.find_entry('RTX 4090')\n"
        "print(time.perf_counter() - start)"
    )
    best = min(float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(3))
    assert best < 0.010


def test_lookups_are_fast():
    start = time.perf_counter()
    for _ in range(200):
        parse_machine("2x RTX 4090, 64 GB RAM")
    assert (time.perf_counter() - start) / 200 < 0.002
