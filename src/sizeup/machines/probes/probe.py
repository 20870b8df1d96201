"""The whole probe: host, containers' limits, disk, then every vendor whose traces are there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

from sizeup.machines.device import Device, Limits, Machine
from sizeup.machines.probes.cgroup import read_limits
from sizeup.machines.probes.disk import read_disk
from sizeup.machines.probes.files import Files
from sizeup.machines.probes.host import allowed_threads, read_host

_Found = TypeVar("_Found")
_SYSTEMS = {"darwin": "macos", "win32": "windows", "cygwin": "windows"}


def probe(env: Mapping[str, str] | None = None, files: Files | None = None, system: str | None = None) -> Machine:
    """The machine at hand. Never raises: what can't be read becomes a note.

    env: the environment, for the variables that hide devices; files and system: for tests.
    """
    environment = os.environ if env is None else env
    tree = files or Files()
    name = system or _SYSTEMS.get(sys.platform, sys.platform)
    notes: list[str] = []
    cpu, threads, gpus = _host_and_apple(tree, name, notes)
    gpus += _other_gpus(tree, name, environment, cpu.memory_bytes, notes)
    gpus = without_idle_graphics(gpus, notes)
    limits = _tried("the container's limits", lambda: read_limits(tree), Limits(), notes)
    disk = _tried("the disk", lambda: read_disk(environment), None, notes)
    return Machine(
        name=_node_name(), cpu=cpu, gpus=tuple(gpus), cpu_threads=allowed_threads(threads, limits.cpus), disk=disk,
        os=name, limits=limits, evidence="probed", notes=tuple(notes),
    )  # fmt: skip


def without_idle_graphics(gpus: list[Device], notes: list[str]) -> list[Device]:
    """Leaves out a processor's graphics beside a card: engines do, and its memory is the host's."""
    if all(gpu.integrated for gpu in gpus):
        return gpus
    idle = [gpu.name for gpu in gpus if gpu.integrated]
    notes.extend(f"{name} isn't counted, because there is a card with memory of its own" for name in idle)
    return [gpu for gpu in gpus if not gpu.integrated]


def _host_and_apple(files: Files, system: str, notes: list[str]) -> tuple[Device, int | None, list[Device]]:
    """The host, its logical processors, and a Mac's GPU."""
    if system == "macos":
        from sizeup.machines.probes.apple import read_apple

        no_mac: tuple[Device, int | None, list[Device]] = (Device(name="CPU", kind="cpu", vendor="apple"), None, [])
        return _tried("this Mac", lambda: read_apple(notes), no_mac, notes)
    no_host: tuple[Device, int | None] = (Device(name="CPU", kind="cpu", vendor=""), None)
    cpu, threads = _tried("the host", lambda: read_host(files, notes), no_host, notes)
    return cpu, threads, []


def _other_gpus(
    files: Files, system: str, env: Mapping[str, str], host_bytes: int | None, notes: list[str]
) -> list[Device]:
    """NVIDIA, AMD and Intel GPUs; each vendor's failure is its own."""
    readers: list[tuple[str, Callable[[], list[Device]]]] = []
    if system != "macos":
        from sizeup.machines.probes.nvidia import read_nvidia

        readers.append(("NVIDIA GPUs", lambda: read_nvidia(files, system, env, host_bytes, notes)))
    if system == "linux" and files.exists("/sys/class/drm"):
        from sizeup.machines.probes.amd import read_amd
        from sizeup.machines.probes.intel import read_intel

        readers.append(("AMD GPUs", lambda: read_amd(files, env, host_bytes, notes)))
        readers.append(("Intel GPUs", lambda: read_intel(files, env, host_bytes, notes)))
    if system == "windows":
        from sizeup.machines.probes.windows import read_windows

        readers.append(("display adapters", lambda: read_windows(host_bytes, notes)))
    gpus: list[Device] = []
    for what, read in readers:
        gpus += _tried(what, read, list[Device](), notes)
    return gpus


def _tried(what: str, read: Callable[[], _Found], otherwise: _Found, notes: list[str]) -> _Found:
    """What `read` gives; a failure becomes a note, because a broken driver must not stop the program."""
    try:
        return read()
    except Exception as error:
        notes.append(f"{what} can't be read: {type(error).__name__}: {error}")
        return otherwise


def _node_name() -> str:
    try:
        return os.uname().nodename
    except AttributeError:
        return os.environ.get("COMPUTERNAME", "") or "this machine"
