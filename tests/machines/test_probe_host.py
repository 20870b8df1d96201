"""Processor, RAM, memory modules, container limits, disk, Macs, and the probe as a whole."""

import json
import os
import struct
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizeup.machines import probe_machine
from sizeup.machines.device import Limits
from sizeup.machines.probes import probe as probe_module
from sizeup.machines.probes.apple import parse_gpu_cores, parse_profiler, parse_sysctl, parse_vm_stat, read_apple
from sizeup.machines.probes.cgroup import parse_cpu_max, parse_groups, read_limits
from sizeup.machines.probes.cpuinfo import parse_cpuinfo, parse_meminfo
from sizeup.machines.probes.disk import model_folder, read_disk
from sizeup.machines.probes.dmi import Module, parse_dmi, ram_bandwidth
from sizeup.machines.probes.files import Files, to_int
from sizeup.machines.probes.host import allowed_threads, count_cpus, product_name, read_host
from sizeup.machines.probes.probe import probe
from sizeup.machines.probes.run import output_of
from sizeup.quantity.units import GIB


def x86_cpuinfo(name, family, model, sockets=1, cores=2, threads=2, vendor="AuthenticAMD", flags="avx avx2 fma"):
    return "\n".join(
        f"processor\t: {thread}\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n"
        f"model name\t: {name}\ncpu MHz\t\t: {3000 + thread}.123\n"
        f"physical id\t: {thread % sockets}\ncore id\t\t: {thread // sockets % cores}\nflags\t\t: fpu {flags}\n"
        for thread in range(sockets * cores * threads)
    )


RYZEN = x86_cpuinfo(
    "AMD Ryzen 9 7950X 16-Core Processor", 25, 97, cores=16, flags="avx avx2 avx512f avx512_vnni avx512_bf16"
)
PI_5 = (
    "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\n"
    "processor\t: 1\nFeatures\t: fp asimd asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\nSerial\t: 1\n"
)
MEMINFO = "MemTotal:       65786432 kB\nMemFree:         1000000 kB\nMemAvailable:   50000000 kB\nCached: 9 kB\n"


def test_cpuinfo_of_x86():
    info = parse_cpuinfo(RYZEN)
    assert (info.cores, info.threads, info.sockets) == (16, 32, 1)
    assert info.number == "AuthenticAMD-25-97"
    assert info.clock_hz == 3_031_123_000
    assert "avx512_double_pumped" in info.features
    two = parse_cpuinfo(x86_cpuinfo("Xeon", 6, 143, sockets=2, cores=4, threads=2, vendor="GenuineIntel"))
    assert (two.cores, two.threads, two.sockets, two.vendor) == (8, 16, 2, "intel")


def test_cpuinfo_of_arm():
    info = parse_cpuinfo(PI_5)
    assert info.number == "ARM-0x41-0xd0b"
    assert info.features == ("neon", "dotprod")
    assert info.threads == 2


def test_meminfo():
    assert parse_meminfo(MEMINFO) == (65786432 * 1024, 50000000 * 1024)
    assert parse_meminfo("MemTotal: 100 kB\nMemFree: 40 kB\nBuffers: 5 kB\nCached: 20 kB\n") == (102400, 65 * 1024)
    assert parse_meminfo("MemTotal: 100 kB\nMemAvailable: 900 kB\n") == (102400, 102400)
    assert parse_meminfo("") == (None, None)


def test_a_known_processor_brings_its_channels(tree):
    files = tree({
        "/proc/cpuinfo": RYZEN, "/proc/meminfo": MEMINFO,
        "/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "5881000\n",
        "/sys/devices/system/cpu/cpu0/cache/index3/size": "32768K\n",
        "/sys/devices/system/cpu/cpu0/cache/index3/shared_cpu_list": "0-7,16-23\n",
    })  # fmt: skip
    device, threads = read_host(files, notes := [])
    assert device.catalogue_id == "ryzen-9-7950x"
    assert device.bandwidth == 83_200_000_000
    assert "assumed" in device.provenance["bandwidth"]
    assert device.cache_bytes == 64 << 20
    assert device.compute["fp32"] == 16 * 5_881_000_000 * 32
    assert device.compute["int8"] == 4 * device.compute["fp32"]
    assert threads == 32
    assert notes == []


def test_a_few_cores_of_a_large_server(tree):
    files = tree({"/proc/cpuinfo": x86_cpuinfo("AMD EPYC", 26, 2, threads=1), "/proc/meminfo": MEMINFO})
    device, _ = read_host(files, [])
    assert device.bandwidth == 2 * 25_000_000_000
    assert device.power_w is None
    assert device.catalogue_id == ""


def test_an_unknown_processor_is_said_to_be_assumed(tree):
    device, _ = read_host(tree({"/proc/cpuinfo": x86_cpuinfo("Foo", 99, 99), "/proc/meminfo": MEMINFO}), notes := [])
    assert device.bandwidth == 51_200_000_000
    assert "assumed" in notes[0]


def test_a_board_is_named_by_its_device_tree(tree):
    files = tree(
        {"/proc/cpuinfo": PI_5, "/proc/meminfo": MEMINFO, "/proc/device-tree/model": "Raspberry Pi 5 Model B\x00"}
    )
    device, _ = read_host(files, [])
    assert device.name == "Raspberry Pi 5 Model B"
    assert device.bandwidth == 17_064_000_000


def dmi_entry(size=16384, width=64, speed=5600, kind=0x22, type_number=17, length=0x28):
    entry = bytearray(length)
    entry[0], entry[1] = type_number, length
    struct.pack_into("<H", entry, 0x0A, width)
    struct.pack_into("<H", entry, 0x0C, size)
    entry[0x12] = kind
    struct.pack_into("<H", entry, 0x20, speed)
    return bytes(entry) + b"DIMM 0\x00Vendor\x00\x00"


def test_memory_modules(tree, tmp_path):
    table = dmi_entry(type_number=1) + dmi_entry() + dmi_entry(size=0) + dmi_entry() + dmi_entry(type_number=127)
    modules = parse_dmi(table)
    assert modules == [Module(64, 5_600_000_000, "DDR5")] * 2
    assert ram_bandwidth(modules, 2) == 89_600_000_000
    assert ram_bandwidth(modules * 2, 2) == 89_600_000_000
    assert ram_bandwidth(modules, None) == 89_600_000_000
    assert ram_bandwidth([Module(32, 8_000_000_000, "LPDDR5")] * 8, 4) == 256_000_000_000
    assert ram_bandwidth([], 2) is None
    files = tree({"/proc/cpuinfo": RYZEN, "/proc/meminfo": MEMINFO})
    path = tmp_path / "sys/firmware/dmi/tables/DMI"
    path.parent.mkdir(parents=True)
    path.write_bytes(table)
    device, _ = read_host(files, [])
    assert device.bandwidth == 89_600_000_000
    assert device.provenance["bandwidth"] == "/sys/firmware/dmi/tables/DMI"
    assert device.memory_type == "DDR5"


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_garbage_memory_modules(data):
    assert all(module.transfers_per_s > 0 for module in parse_dmi(data))
    parse_dmi(dmi_entry() + data)


def test_limits_of_version_2(tree):
    files = tree({
        "/proc/self/cgroup": "0::/user.slice/run-1.scope\n",
        "/sys/fs/cgroup/user.slice/run-1.scope/memory.max": "max\n",
        "/sys/fs/cgroup/user.slice/memory.max": "8589934592\n",
        "/sys/fs/cgroup/user.slice/memory.current": "3221225472\n",
        "/sys/fs/cgroup/user.slice/memory.stat": "anon 5\ninactive_file 1073741824\n",
        "/sys/fs/cgroup/user.slice/cpu.max": "250000 100000\n",
    })  # fmt: skip
    limits = read_limits(files)
    assert limits == Limits(8 * GIB, 2 * GIB, 2.5, "/sys/fs/cgroup/user.slice/memory.max")


def test_limits_inside_a_container_of_version_1(tree):
    files = tree({
        "/proc/self/cgroup": "5:memory:/docker/0123\n4:cpu,cpuacct:/docker/0123\n",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": "4294967296\n",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes": "1073741824\n",
        "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "150000\n",
        "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    })  # fmt: skip
    limits = read_limits(files)
    assert (limits.memory_bytes, limits.memory_used_bytes, limits.cpus) == (4 * GIB, GIB, 1.5)


def test_no_limits(tree):
    files = tree({
        "/proc/self/cgroup": "5:memory:/\n0::/\n", "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "/sys/fs/cgroup/memory.max": "max\n", "/sys/fs/cgroup/cpu.max": "max 100000\n",
    })  # fmt: skip
    assert read_limits(files) == Limits()
    assert read_limits(tree({})) == Limits()


def test_groups_do_not_lead_out_of_the_mount():
    assert parse_groups("0::/../../etc\n4:memory:relative\nnonsense") == {}
    assert parse_cpu_max("0 100000") is None
    assert parse_cpu_max("100000 0") is None


def test_threads_within_limits():
    assert allowed_threads(64, 2.5) == min(2, len(os.sched_getaffinity(0)))
    assert allowed_threads(64, 0.3) == 1
    assert allowed_threads(1, None) == 1


def test_disk(tmp_path):
    disk = read_disk({"HF_HOME": str(tmp_path / "not" / "there")})
    assert disk.path == str(tmp_path)
    assert 0 < disk.free_bytes <= disk.total_bytes
    assert model_folder({"HOME": "/h"}) == "/h/.cache/huggingface"
    assert model_folder({"HOME": "/h", "XDG_CACHE_HOME": "/c", "HF_HUB_CACHE": "/x"}) == "/x"


def test_numbers_in_files():
    assert to_int("42\n") == 42
    assert to_int("0x10") == 16
    for bad in (None, "", "-1", "1.5", "nan", "9" * 50, "0x", "١٢٣x"):
        assert to_int(bad) is None


def test_cpu_lists():
    assert count_cpus("0-7,16-23\n") == 16
    assert count_cpus("3") == 1
    assert count_cpus("7-0") == count_cpus("") == count_cpus("a-b") == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AMD Ryzen 9 5950X 16-Core Processor", "AMD Ryzen 9 5950X"),
        ("Intel(R) Core(TM) i7-8700K CPU @ 3.70GHz", "Intel(R) Core(TM) i7-8700K"),
        ("AMD RYZEN AI MAX+ 395 w/ Radeon 8060S", "AMD RYZEN AI MAX+ 395"),
        ("AMD Ryzen 7 7735HS with Radeon Graphics", "AMD Ryzen 7 7735HS"),
    ],
)
def test_names_of_processors(name, expected):
    assert product_name(name) == expected


SYSCTL = """\
hw.memsize: 68719476736
machdep.cpu.brand_string: Apple M4 Max
hw.physicalcpu: 16
hw.logicalcpu: 16
iogpu.wired_limit_mb: 0
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_BF16: 1
hw.optional.arm.FEAT_DotProd: 1
"""
VM_STAT = """\
Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                             1000000.
Pages active:                            900000.
Pages inactive:                          500000.
Pages speculative:                        10000.
Pages purgeable:                           5000.
"""
IOREG = '+-o AGXAcceleratorG16X\n    "gpu-core-count" = 40\n    "model" = "Apple M4 Max"\n'
PROFILER = json.dumps({"SPDisplaysDataType": [{"sppci_model": "Apple M4 Max", "sppci_cores": "40"}]})


def mac(**answers):
    return lambda command, *arguments, **more: answers.get(command)


def test_a_mac():
    host, threads, (gpu,) = read_apple(notes := [], mac(sysctl=SYSCTL, vm_stat=VM_STAT, ioreg=IOREG))
    assert host.memory_bytes == gpu.memory_bytes == 64 * GIB
    assert host.free_bytes == 16384 * 1_515_000
    assert gpu.catalogue_id == "apple-m4-max-40-core"
    assert gpu.memory_limit_bytes == 48 * GIB
    assert gpu.bandwidth == host.bandwidth == 546_000_000_000
    assert "bf16" in host.features
    assert threads == 16
    assert notes == []


def test_a_mac_with_a_raised_limit():
    text = SYSCTL.replace("wired_limit_mb: 0", "wired_limit_mb: 60000")
    _, _, (gpu,) = read_apple([], mac(sysctl=text, vm_stat=VM_STAT, system_profiler=PROFILER))
    assert gpu.memory_limit_bytes == 60000 << 20
    assert gpu.provenance["memory_limit_bytes"] == "iogpu.wired_limit_mb"
    assert gpu.units == 40


def test_a_mac_that_says_nothing():
    host, threads, gpus = read_apple(notes := [], mac())
    assert (host.memory_bytes, threads, gpus) == (None, None, [])
    assert len(notes) == 2
    _, _, (gpu,) = read_apple(notes := [], mac(sysctl=SYSCTL))
    assert "GPU cores" in notes[0]
    assert gpu.memory_limit_bytes == 48 * GIB


def test_an_intel_mac():
    text = SYSCTL.replace("Apple M4 Max", "Intel(R) Core(TM) i9-9980HK CPU @ 2.40GHz")
    host, _, gpus = read_apple(notes := [], mac(sysctl=text, vm_stat=VM_STAT))
    assert gpus == []
    assert host.vendor == "intel"
    assert "no Apple GPU" in notes[0]


@given(st.text(max_size=300))
@settings(max_examples=150, deadline=None)
def test_garbage_text(text):
    parse_cpuinfo(text)
    parse_cpuinfo("processor: 0\n" + text)
    parse_meminfo(text)
    parse_meminfo("MemTotal:" + text)
    parse_groups(text)
    parse_cpu_max(text)
    parse_sysctl(text)
    parse_vm_stat("(page size of 16384 bytes)\nPages free:" + text)
    parse_gpu_cores(text)
    parse_profiler(text)
    product_name(text)
    count_cpus(text)
    read_apple([], lambda *command, **more: text)


@pytest.mark.parametrize("path", ["/proc/cpuinfo", "/proc/meminfo", "/proc/self/cgroup", "/proc/device-tree/model"])
@pytest.mark.parametrize(
    "garbage", ["", "\x00" * 50, "processor: x\nmodel name:\n\n", "MemTotal: -1 kB", "0::/a\n0::/b"]
)
def test_garbage_files(tree, path, garbage):
    machine = probe({"HOME": "/"}, tree({"/proc/cpuinfo": RYZEN, "/proc/meminfo": MEMINFO} | {path: garbage}), "linux")
    assert machine.evidence == "probed"
    assert not any("can't be read: " in note for note in machine.notes)


def test_a_reader_that_breaks_becomes_a_note(tree, monkeypatch):
    def broken(*arguments):
        raise OSError("the driver is gone")

    for reader in ("read_host", "read_limits", "read_disk"):
        monkeypatch.setattr(probe_module, reader, broken)
    machine = probe({}, tree({}), "linux")
    assert sum("the driver is gone" in note for note in machine.notes) == 3
    assert machine.cpu.memory_bytes is None


def test_tools_that_fail():
    assert output_of("/no/such/tool") is None
    assert output_of(sys.executable, "-c", "import sys; sys.exit(3)") is None
    assert output_of(sys.executable, "-c", "import time; time.sleep(9)", timeout_s=0.2) is None
    assert output_of(sys.executable, "-c", "print('yes')") == "yes\n"


def test_files_never_raise(tmp_path):
    files = Files(str(tmp_path))
    assert files.read("/none") is None
    assert files.read("/\x00") is None
    assert files.names("/none") == []
    assert not files.exists("/none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert files.read("/binary") == "\ufffd\ufffd"
    assert files.read("/") is None


def test_the_machine_at_hand():
    machine = probe_machine()
    assert machine.cpu.memory_bytes > 0
    assert 0 < machine.cpu.free_bytes <= machine.cpu.memory_bytes
    assert machine.cpu_threads >= 1
    assert machine.cpu.bandwidth > 0
    for field in ("memory_bytes", "free_bytes", "bandwidth", "compute"):
        assert machine.cpu.provenance[field]


def test_the_probe_is_fast():
    best = min(_timed_probe() for _ in range(3))
    assert best < (0.060 if not probe_machine().gpus else 1.0)


def _timed_probe():
    code = (
        "import time, msgspec\nstart = time.perf_counter()\nfrom sizeup.machines import probe_machine\nprobe_machine()\n"
        "print(time.perf_counter() - start)"
    )
    start = time.perf_counter()
    taken = float(subprocess.check_output([sys.executable, "-c", code]))
    assert taken < time.perf_counter() - start
    return taken
