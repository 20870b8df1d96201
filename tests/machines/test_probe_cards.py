"""AMD and Intel cards in sysfs, Windows' registry, and a processor's graphics beside a card."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizeup.machines import machine_budget
from sizeup.machines.device import Device
from sizeup.machines.probes.amd import parse_gfx, parse_ids, parse_properties, read_amd
from sizeup.machines.probes.drm import parse_link
from sizeup.machines.probes.intel import read_intel
from sizeup.machines.probes.probe import probe, without_idle_graphics
from sizeup.machines.probes.windows import adapter
from sizeup.quantity.units import GIB, MIB


def card(number, vendor, device, revision="0x00", address="0000:03:00.0", **more):
    base = f"/sys/class/drm/card{number}/device"
    files = {
        f"{base}/vendor": f"{vendor}\n", f"{base}/device": f"{device}\n", f"{base}/revision": f"{revision}\n",
        f"{base}/uevent": f"DRIVER=amdgpu\nPCI_SLOT_NAME={address}\n",
        f"{base}/max_link_speed": "16.0 GT/s PCIe\n", f"{base}/max_link_width": "16\n",
    }  # fmt: skip
    return files | {f"{base}/{name}": str(value) for name, value in more.items()}


RX_7900_XTX = card(
    0, "0x1002", "0x744c", "0xc8", mem_info_vram_total=25753026560, mem_info_vram_used=1_000_000_000,
    mem_info_gtt_total=33_000_000_000, **{"hwmon/hwmon4/power1_cap": 339000000},
) | {"/sys/class/drm/card0-DP-1/enabled": "enabled\n", "/sys/class/drm/card0-HDMI-A-1/enabled": "disabled\n"}  # fmt: skip
KFD = {
    "/sys/class/kfd/kfd/topology/nodes/0/properties": "cpu_cores_count 16\nsimd_count 0\n",
    "/sys/class/kfd/kfd/topology/nodes/1/properties": (
        "cpu_cores_count 0\nsimd_count 192\nsimd_per_cu 2\nlocation_id 768\ndomain 0\n"
        "gfx_target_version 110000\nunique_id 1311768467463790320\n"
    ),
}
STRIX_HALO = card(
    1, "0x1002", "0x1586", "0xc1", "0000:c4:00.0", mem_info_vram_total=96 * GIB, mem_info_vram_used=1 * GIB,
    mem_info_gtt_total=16 * GIB,
)  # fmt: skip
ARC_B580 = card(0, "0x8086", "0xe20b", address="0000:04:00.0")
UHD_770 = card(1, "0x8086", "0xa780", address="0000:00:02.0")


def test_a_radeon_with_rocm(tree):
    (device,) = read_amd(tree(RX_7900_XTX | KFD), {}, 64 * GIB, notes := [])
    assert device.catalogue_id == "rx-7900-xtx"
    assert device.memory_bytes == 25753026560
    assert device.free_bytes == 24753026560
    assert device.units == 96
    assert device.capability == "gfx1100"
    assert device.backend == "rocm"
    assert device.bandwidth == 960_000_000_000
    assert device.power_w == 339
    assert device.display is True
    assert device.identity == "GPU-123456789abcdef0"
    assert device.host_link.generation == "4.0"
    assert notes == []


def test_a_radeon_without_rocm_runs_vulkan(tree):
    (device,) = read_amd(tree(RX_7900_XTX), {}, 64 * GIB, [])
    assert device.backend == "vulkan"
    assert device.identity == "0000:03:00.0"
    assert device.units == 96


def test_carve_out_and_gtt_of_an_apu(tree):
    files = tree(STRIX_HALO)
    (device,) = read_amd(files, {}, 31 * GIB, [])
    assert device.kind == "unified"
    assert (device.dedicated_bytes, device.memory_limit_bytes) == (96 * GIB, 16 * GIB)
    assert device.memory_bytes == 127 * GIB
    assert device.bandwidth == 256_000_000_000
    assert device.host_link is None


def test_an_unknown_radeon_is_named_by_libdrm(tree):
    files = card(0, "0x1002", "0x9999", "0xc5", mem_info_vram_total=32 * GIB) | {
        "/usr/share/libdrm/amdgpu.ids": "# ids\n1.0.0\n9999,\tC5,\tAMD Radeon RX 99000\n"
    }
    (device,) = read_amd(tree(files), {}, None, notes := [])
    assert device.name == "AMD Radeon RX 99000"
    assert device.memory_bytes == 32 * GIB
    assert device.bandwidth is None
    assert "isn't in the catalogue" in notes[0]


def test_tiny_graphics_of_an_unknown_processor_are_not_a_card(tree):
    (device,) = read_amd(
        tree(card(0, "0x1002", "0x9998", mem_info_vram_total=512 * MIB, mem_info_gtt_total=8 * GIB)), {}, 16 * GIB, []
    )
    assert device.kind == "unified"
    assert device.memory_limit_bytes == 8 * GIB


def test_hidden_radeons(tree):
    files = tree(RX_7900_XTX | KFD)
    assert read_amd(files, {"HIP_VISIBLE_DEVICES": ""}, None, []) == []
    assert len(read_amd(files, {"ROCR_VISIBLE_DEVICES": "GPU-1234"}, None, [])) == 1
    assert read_amd(files, {"ROCR_VISIBLE_DEVICES": "0", "HIP_VISIBLE_DEVICES": "1"}, None, []) == []


def test_gfx_names():
    assert parse_gfx(110000) == "gfx1100"
    assert parse_gfx(90010) == "gfx90a"
    assert parse_gfx(90402) == "gfx942"
    assert parse_gfx(120001) == "gfx1201"
    assert parse_gfx(0) == ""


def test_intel_card_and_graphics(tree):
    devices = read_intel(tree(ARC_B580 | UHD_770), {}, 32 * GIB, [])
    by_id = {device.catalogue_id: device for device in devices}
    assert by_id["arc-b580"].memory_bytes == 12 * GIB
    assert by_id["arc-b580"].free_bytes is None
    assert by_id["arc-b580"].bandwidth == 456_000_000_000
    assert by_id["uhd-770"].kind == "unified"
    assert by_id["uhd-770"].memory_limit_bytes == 16 * GIB


def test_intel_memory_as_i915_and_xe_say_it(tree):
    i915 = {
        "/sys/class/drm/card0/lmem_total_bytes": str(12 * GIB),
        "/sys/class/drm/card0/lmem_avail_bytes": str(9 * GIB),
    }
    (device,) = read_intel(tree(ARC_B580 | i915), {}, None, [])
    assert (device.memory_bytes, device.free_bytes) == (12 * GIB, 9 * GIB)
    assert device.provenance["memory_bytes"] == "sysfs"


def test_hidden_intel(tree):
    files = tree(ARC_B580 | UHD_770)
    assert len(read_intel(files, {"ZE_AFFINITY_MASK": "0.0,0.1"}, None, [])) == 1
    assert read_intel(files, {"ZE_AFFINITY_MASK": ""}, None, []) == []


def test_graphics_do_not_count_beside_a_card():
    gpu = Device(name="Card", kind="gpu", vendor="nvidia")
    graphics = Device(name="Graphics", kind="unified", vendor="intel")
    assert without_idle_graphics([graphics, gpu], notes := []) == [gpu]
    assert "Graphics isn't counted" in notes[0]
    assert without_idle_graphics([graphics], []) == [graphics]


def test_the_whole_probe_of_an_amd_machine(tree):
    files = tree(
        RX_7900_XTX | KFD | STRIX_HALO | {"/proc/meminfo": "MemTotal: 32000000 kB\nMemAvailable: 30000000 kB\n"}
    )
    machine = probe({"HOME": "/"}, files, "linux")
    assert [gpu.catalogue_id for gpu in machine.gpus] == ["rx-7900-xtx"]
    assert any("isn't counted" in note for note in machine.notes)
    assert machine_budget(machine).gpus[0].usable_bytes < 24753026560


def test_links():
    assert parse_link("32.0 GT/s PCIe", "8").bytes_per_s == 31_504_000_000
    assert parse_link("Unknown", "16") is None
    assert parse_link("16.0 GT/s PCIe", "255") is None
    assert parse_link(None, None) is None


def test_windows_adapters():
    row = {"DriverDesc": "AMD Radeon RX 7800 XT", "HardwareInformation.qwMemorySize": 16 * GIB,
           "MatchingDeviceId": r"PCI\VEN_1002&DEV_747E&REV_C8"}  # fmt: skip
    device = adapter(row, 32 * GIB, [])
    assert device.catalogue_id == "rx-7800-xt"
    assert device.memory_bytes == 16 * GIB
    halo = {"DriverDesc": "AMD Radeon(TM) 8060S Graphics", "MatchingDeviceId": r"PCI\VEN_1002&DEV_1586",
            "HardwareInformation.qwMemorySize": 64 * GIB}  # fmt: skip
    device = adapter(halo, 64 * GIB, [])
    assert device.kind == "unified"
    assert device.dedicated_bytes == 64 * GIB
    assert device.memory_limit_bytes == 32 * GIB
    assert (
        adapter({"DriverDesc": "Microsoft Basic Display Adapter", "MatchingDeviceId": r"ROOT\BasicDisplay"}, None, [])
        is None
    )
    assert adapter({}, None, []) is None


@pytest.mark.parametrize("name", ["vendor", "device", "revision", "mem_info_vram_total", "mem_info_vram_used", "uevent",
                                  "max_link_speed", "max_link_width", "product_name"])  # fmt: skip
@pytest.mark.parametrize("garbage", ["", "-5", "0x", "nan", "\x00\xff", "9" * 400, "PCI_SLOT_NAME="])
def test_garbage_in_sysfs(tree, name, garbage):
    files = tree(RX_7900_XTX | KFD | {f"/sys/class/drm/card0/device/{name}": garbage})
    machine = probe({"HOME": "/"}, files, "linux")
    assert not any("can't be read: " in note and "AMD" in note for note in machine.notes)


@given(st.text(max_size=200), st.integers(0, 10**9))
@settings(max_examples=150, deadline=None)
def test_garbage(text, version):
    parse_properties(text)
    parse_ids(text, "1002:744c:c8")
    parse_gfx(version)
    parse_link(text, text)
