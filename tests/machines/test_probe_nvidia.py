"""NVIDIA: NVML, nvidia-smi, /proc, MIG, Jetson, hidden devices."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizeup.machines.probes import nvidia
from sizeup.machines.probes.nvidia import NvidiaGpu, nvidia_device, parse_information, parse_smi, read_nvidia, read_nvml
from sizeup.machines.probes.nvidia_rates import tensor_rates
from sizeup.machines.probes.visible import visible
from sizeup.quantity.units import GIB, MIB

SMI = """\
NVIDIA GeForce RTX 4090, GPU-8932f937-d72c-4106-c12f-20bd9faed9f6, 24564, 23028, 10501, 600.00, 8.9, Enabled, 4, 16
NVIDIA GeForce RTX 3090, GPU-1f2e3d4c-0000-1111-2222-333344445555, 24576, 24247, 9751, 366.00, 8.6, Disabled, 4, 16
"""
SMI_OLD_DRIVER = "Tesla K80, GPU-aaaa, 11441, 11441, 2505, 149.00, [N/A], Disabled, 3, 16\n"
INFORMATION = """\
Model: \t\t NVIDIA GeForce RTX 3060
IRQ:   \t\t 136
GPU UUID: \t GPU-????????-????-????-????-????????????
Video BIOS: \t ??.??.??.??.??
Bus Type: \t PCIe
"""


class Nvml:
    """Stands in for the module `pynvml`."""

    NVML_CLOCK_MEM, NVML_CLOCK_SM, NVML_DEVICE_MIG_ENABLE = 2, 1, 1

    def __init__(self, gpus, broken=()):
        self.gpus, self.broken, self.started = gpus, set(broken), 0

    def nvmlInit(self):  # noqa: N802
        if "init" in self.broken:
            raise RuntimeError("Driver/library version mismatch")
        self.started += 1

    def nvmlShutdown(self):  # noqa: N802
        self.started -= 1

    def nvmlDeviceGetCount(self):  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return self.gpus[index]

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle, index):  # noqa: N802
        return handle["slices"][index]

    def nvmlDeviceGetMaxClockInfo(self, handle, kind):  # noqa: N802
        return handle["memory_clock" if kind == self.NVML_CLOCK_MEM else "sm_clock"]

    def __getattr__(self, name):
        fields = {
            "nvmlDeviceGetName": "name", "nvmlDeviceGetUUID": "uuid", "nvmlDeviceGetMemoryInfo": "memory",
            "nvmlDeviceGetCudaComputeCapability": "capability", "nvmlDeviceGetMemoryBusWidth": "bus",
            "nvmlDeviceGetPowerManagementDefaultLimit": "power", "nvmlDeviceGetDisplayActive": "display",
            "nvmlDeviceGetMaxPcieLinkGeneration": "generation", "nvmlDeviceGetMaxPcieLinkWidth": "lanes",
            "nvmlDeviceGetNumGpuCores": "cores", "nvmlDeviceGetMigMode": "mig",
            "nvmlDeviceGetMaxMigDeviceCount": "mig_count",
        }  # fmt: skip
        if name in self.broken or name not in fields:
            raise AttributeError(name)
        return lambda handle: handle[fields[name]]


def memory(total, free):
    return SimpleNamespace(total=total, free=free, used=total - free)


RTX_4090 = {
    "name": b"NVIDIA GeForce RTX 4090", "uuid": "GPU-89", "memory": memory(24564 * MIB, 20000 * MIB),
    "capability": (8, 9), "bus": 384, "memory_clock": 10501, "sm_clock": 3105, "power": 450000, "display": 1,
    "generation": 4, "lanes": 16, "cores": 16384, "mig": (0, 0), "mig_count": 0,
}  # fmt: skip
A100 = {
    "name": "NVIDIA A100-SXM4-80GB", "uuid": "GPU-a1", "memory": memory(80 * GIB, 79 * GIB), "capability": (8, 0),
    "bus": 5120, "memory_clock": 1593, "sm_clock": 1410, "power": 400000, "display": 0, "generation": 4, "lanes": 16,
    "cores": 6912, "mig": (1, 1), "mig_count": 7,
    "slices": [
        {"uuid": "MIG-1", "memory": memory(40 * GIB, 39 * GIB)}, {"uuid": "MIG-2", "memory": memory(20 * GIB, 20 * GIB)},
    ],
}  # fmt: skip


def test_nvml_gives_free_and_total_and_bandwidth():
    nvml = Nvml([RTX_4090])
    notes = []
    device = nvidia_device(read_nvml(nvml)[0], "nvml", 64 * GIB, notes)
    assert nvml.started == 0
    assert (device.memory_bytes, device.free_bytes) == (24564 * MIB, 20000 * MIB)
    assert device.bandwidth == 1_008_000_000_000
    assert device.compute["bf16"] == pytest.approx(165.2e12, rel=1e-3)
    assert device.catalogue_id == "rtx-4090"
    assert device.display is True
    assert device.identity == "GPU-89"
    assert device.provenance["free_bytes"] == "nvml"
    assert device.provenance["compute"] == "catalogue"
    assert notes == []


def test_a_field_that_the_driver_lacks_stays_unknown():
    nvml = Nvml(
        [RTX_4090], broken=["nvmlDeviceGetMemoryInfo", "nvmlDeviceGetDisplayActive", "nvmlDeviceGetMemoryBusWidth"]
    )
    device = nvidia_device(read_nvml(nvml)[0], "nvml", None, [])
    assert device.free_bytes is None
    assert device.display is None
    assert device.memory_bytes == 24564 * MIB
    assert device.provenance["memory_bytes"] == "catalogue"


def test_mig_slices_are_devices():
    slices = [nvidia_device(gpu, "nvml", None, []) for gpu in read_nvml(Nvml([A100]))]
    assert [device.identity for device in slices] == ["MIG-1", "MIG-2"]
    assert [device.memory_bytes for device in slices] == [40 * GIB, 20 * GIB]
    assert slices[1].bandwidth == 2_039_000_000_000 // 4
    assert slices[1].compute["bf16"] == 312_000_000_000_000 // 4
    assert slices[0].free_bytes == 39 * GIB


def test_another_memory_than_the_catalogues_is_noted():
    notes = []
    device = nvidia_device(
        NvidiaGpu(name="GeForce RTX 3060", memory_bytes=12 * GIB, memory_clock_hz=5 * 10**9, bus_bits=192),
        "nvml",
        None,
        notes,
    )
    assert device.bandwidth == 240_000_000_000
    assert "in the catalogue" in notes[0]


def test_a_card_that_is_not_in_the_catalogue_is_described_by_its_driver():
    notes = []
    gpu = NvidiaGpu(
        name="NVIDIA GeForce RTX 6090", memory_bytes=48 * GIB, free_bytes=47 * GIB, memory_clock_hz=16 * 10**9,
        bus_bits=512, capability="12.0", cuda_cores=20480, clock_hz=3 * 10**9,
    )  # fmt: skip
    device = nvidia_device(gpu, "nvml", None, notes)
    assert device.bandwidth == 2_048_000_000_000
    assert device.compute["fp16_acc16"] == 160 * 3 * 10**9 * 1024
    assert device.compute["bf16"] == 160 * 3 * 10**9 * 512
    assert "isn't in the catalogue" in notes[0]


def test_rates_agree_with_the_catalogue():
    rates = tensor_rates("8.0", 6912, 1_410_000_000, "NVIDIA A100-SXM4-80GB")
    assert rates["bf16"] == pytest.approx(312e12, rel=2e-3)
    rates = tensor_rates("9.0", 16896, 1_830_000_000, "NVIDIA H100 80GB HBM3")
    assert rates["fp8"] == pytest.approx(1979e12, rel=2e-3)
    assert tensor_rates("99.0", 1, 1, "X") == {}


def test_smi():
    first, second = parse_smi(SMI)
    assert first.name == "NVIDIA GeForce RTX 4090"
    assert (first.memory_bytes, first.free_bytes) == (24564 * MIB, 23028 * MIB)
    assert (first.display, second.display) == (True, False)
    assert first.memory_clock_hz == 10_501_000_000
    (old,) = parse_smi(SMI_OLD_DRIVER)
    assert old.capability == ""
    assert parse_smi("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.") == []


def test_information():
    gpu = parse_information(INFORMATION)
    assert gpu.name == "NVIDIA GeForce RTX 3060"
    assert gpu.uuid == ""
    assert parse_information("nothing") is None


def test_ladder_without_nvml_and_smi(tree, monkeypatch):
    files = tree({"/proc/driver/nvidia/gpus/0000:01:00.0/information": INFORMATION})
    monkeypatch.setitem(__import__("sys").modules, "pynvml", Nvml([], broken=["init"]))
    monkeypatch.setattr(nvidia, "output_of", lambda *command, **more: None)
    notes = []
    (device,) = read_nvidia(files, "linux", {}, None, notes)
    assert device.catalogue_id == "rtx-3060-12gb"
    assert device.free_bytes is None
    assert any("version mismatch" in note for note in notes)
    assert any("what is free is unknown" in note for note in notes)


def test_smi_when_nvml_is_broken(tree, monkeypatch):
    files = tree({"/proc/driver/nvidia/version": "x"})
    monkeypatch.setitem(__import__("sys").modules, "pynvml", Nvml([], broken=["init"]))
    monkeypatch.setattr(nvidia, "output_of", lambda *command, **more: SMI)
    notes = []
    devices = read_nvidia(files, "linux", {"CUDA_VISIBLE_DEVICES": "1"}, None, notes)
    assert [device.catalogue_id for device in devices] == ["rtx-3090"]
    assert any("CUDA_DEVICE_ORDER" in note for note in notes)


def test_nothing_is_loaded_without_a_driver(tree, monkeypatch):
    def fail(*command, **more):
        raise AssertionError("started a tool")

    monkeypatch.setattr(nvidia, "output_of", fail)
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    notes = []
    assert read_nvidia(tree({}), "linux", {}, None, notes) == []
    assert notes == []


def test_gb10_works_on_the_hosts_memory():
    device = nvidia_device(NvidiaGpu(name="NVIDIA GB10", uuid="GPU-1", capability="12.1"), "nvml", 120 * GIB, [])
    assert device.kind == "unified"
    assert device.memory_bytes == 120 * GIB
    assert device.bandwidth == 273_000_000_000


@pytest.mark.parametrize(("gib", "expected"), [(61, "jetson-agx-orin-64gb"), (30, "jetson-agx-orin-32gb")])
def test_jetson(tree, monkeypatch, gib, expected):
    files = tree({"/proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\x00"})
    monkeypatch.setitem(__import__("sys").modules, "pynvml", Nvml([], broken=["init"]))
    monkeypatch.setattr(nvidia, "output_of", lambda *command, **more: None)
    (device,) = read_nvidia(files, "linux", {}, gib * GIB, [])
    assert device.catalogue_id == expected
    assert device.kind == "unified"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, [0, 1, 2]), ("", []), ("-1", []), ("none", []), ("1", [1]), ("2,0", [2, 0]), ("0,9,1", [0]),
     ("0,0,1", [0]), ("GPU-b", [1]), ("GPU-", []), (" 1 , 2 ", [1, 2]), ("0,-1,1", [0]), ("MIG-x", []), ("²", [])],
)  # fmt: skip
def test_visible_devices(value, expected):
    assert visible(value, ["GPU-a1", "GPU-b2", "GPU-c3"]) == expected


@given(st.text(max_size=300))
@settings(max_examples=150, deadline=None)
def test_garbage(text):
    assert isinstance(parse_smi(text), list)
    parse_information(text)
    assert set(visible(text, ["GPU-a", "GPU-b"])) <= {0, 1}


@given(
    st.lists(
        st.sampled_from(["GPU-1", "1e999", "nan", "-3", "[N/A]", "99999999999999999999", "Enabled", ""]),
        min_size=10,
        max_size=10,
    )
)
@settings(max_examples=100, deadline=None)
def test_garbage_in_fields(values):
    for gpu in parse_smi(", ".join(["X", "GPU-1", *values[:8]])):
        nvidia_device(gpu, "nvidia-smi", None, [])


def test_every_query_exists_in_the_library():
    import re
    from pathlib import Path

    import pynvml

    names = set(re.findall(r"nvml[A-Z]\w+", Path(nvidia.__file__).read_text(encoding="utf-8")))
    assert len(names) >= 18
    assert [name for name in sorted(names) if not hasattr(pynvml, name)] == []
