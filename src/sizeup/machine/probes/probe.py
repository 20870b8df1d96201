"""The whole probe: host, containers' limits, disk, then every vendor whose traces are there."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping

from sizeup.machine.device import Device, Disk, Limits, Machine
from sizeup.machine.probes.cgroup import read_limits
from sizeup.machine.probes.disk import read_disk
from sizeup.machine.probes.files import Files
from sizeup.machine.probes.host import read_host


def probe(env: Mapping[str, str] | None = None, files: Files | None = None) -> Machine:
    """The machine at hand. Never raises: what can't be read becomes a note.

    env: the environment, for the variables that hide devices; files: the file system, for tests.
    """
    environment = os.environ if env is None else env
    tree = files or Files()
    notes: list[str] = []
    system = platform.system().lower()
    cpu, threads = read_host(tree, system, notes)
    limits = _tried(lambda: read_limits(tree), Limits(), "container limits", notes)
    disk = _tried(lambda: read_disk(environment), None, "disk", notes)
    gpus = _read_gpus(tree, system, environment, cpu, notes)
    return Machine(
        name=platform.node() or "this machine", cpu=cpu, gpus=tuple(gpus), cpu_threads=_allowed(threads, limits),
        disk=disk, os={"darwin": "macos"}.get(system, system), limits=limits, evidence="probed", notes=tuple(notes),
    )  # fmt: skip
