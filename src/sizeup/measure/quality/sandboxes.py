"""The sandboxes there are: bubblewrap, a container engine, and none (only when it is asked for by name)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from sizeup.errors import MissingPart
from sizeup.measure.quality.sandbox import Limits, Sandbox, works

NOBODY = 65534
#: Holds a Python 3.9 or later; it must be there already, nothing is pulled.
IMAGE_VARIABLE, IMAGE = "SIZEUP_SANDBOX_IMAGE", "python:3-slim"
#: Folders inside the sandbox.
_SCRATCH, _SHARED = "/tmp", "/dev/shm"  # noqa: S108
_ENGINES = ("podman", "docker")
_SYSTEM_LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/lib32", "/lib", "/lib64", "/etc/ld.so.cache")


class Bubblewrap:
    """bubblewrap (bwrap 0.8 or later): name spaces of its own for users, processes, network, mounts.

    Root becomes nobody first: limits on processes don't bind root.
    """

    name = "bubblewrap"

    def __init__(self, program: str, python: str) -> None:
        self._program, self._python = program, Path(python).resolve()

    def command(self, python_arguments: Sequence[str], limits: Limits) -> tuple[list[str], dict[str, Any]]:
        """Bwrap with nothing but a Python inside."""
        scratch = str(limits.scratch)
        command = [
            self._program, "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts",
            "--unshare-cgroup-try", "--disable-userns", "--die-with-parent", "--new-session", "--clearenv",
            "--cap-drop", "ALL", "--setenv", "LANG", "C.UTF-8", "--setenv", "PATH", "/usr/bin",
            *self._mounts(), "--proc", "/proc", "--dev", "/dev", "--size", "65536", "--tmpfs", _SHARED,
            "--size", scratch, "--tmpfs", _SCRATCH, "--remount-ro", _SHARED, "--remount-ro", "/dev",
            "--remount-ro", "/", "--chdir", _SCRATCH, str(self._python), *python_arguments,
        ]  # fmt: skip
        as_nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
        return command, as_nobody

    def ended(self, command: Sequence[str]) -> None:
        """Nothing is left: its processes die with it."""

    def _mounts(self) -> Iterator[str]:
        """The system's libraries and this Python, read-only."""
        own = self._python.parent.parent / "lib"
        for folder in dict.fromkeys((*_SYSTEM_LIBRARIES, str(own))):
            path = Path(folder)
            if path.is_symlink():
                yield from ("--symlink", str(path.readlink()), folder)
            elif path.exists():
                yield from ("--ro-bind", folder, folder)
        yield from ("--ro-bind", str(self._python), str(self._python))


class Container:
    """podman or docker, with an image that is there already."""

    def __init__(self, program: str) -> None:
        self._program = program
        self.name = Path(program).name

    def command(self, python_arguments: Sequence[str], limits: Limits) -> tuple[list[str], dict[str, Any]]:
        """A container with no network, no capabilities and a read-only root."""
        image = os.environ.get(IMAGE_VARIABLE) or IMAGE
        name = f"sizeup-{os.getpid()}-{os.urandom(4).hex()}"
        command = [
            self._program, "run", "--rm", "--interactive", "--name", name, "--pull", "never", "--network", "none",
            "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", f"{NOBODY}:{NOBODY}",
            "--memory", str(limits.total), "--memory-swap", str(limits.total), "--pids-limit", str(limits.processes),
            "--tmpfs", f"{_SCRATCH}:size={limits.scratch}", "--workdir", _SCRATCH, image, "python3", *python_arguments,
        ]  # fmt: skip
        return command, {}

    def ended(self, command: Sequence[str]) -> None:
        """A container outlives its client: remove it by name."""
        name = command[command.index("--name") + 1]
        subprocess.run([self._program, "rm", "--force", name], capture_output=True, check=False)


class Bare:
    """No sandbox: a process of this user with limits. Only for models whose output is trusted."""

    name = "none (unsafe)"

    def command(self, python_arguments: Sequence[str], limits: Limits) -> tuple[list[str], dict[str, Any]]:  # noqa: ARG002
        """The Python that runs sizeup."""
        return [sys.executable, *python_arguments], {"env": {"LANG": "C.UTF-8"}}

    def ended(self, command: Sequence[str]) -> None:
        """Nothing more than the process group."""


@lru_cache(maxsize=1)
def find_sandbox() -> Sandbox:
    """The first sandbox that works here. Raises MissingPart with why the others don't."""
    reasons = []
    for sandbox in _candidates():
        reason = works(sandbox)
        if not reason:
            return sandbox
        reasons.append(f"{sandbox.name}: {reason}")
    raise MissingPart(
        f"no sandbox to run a model's code in ({'; '.join(reasons) or 'neither bwrap nor a container engine'})",
        hint="install bubblewrap (Debian, Ubuntu, Fedora: package bubblewrap)",
    )


def _candidates() -> Iterator[Sandbox]:
    program = shutil.which("bwrap")
    if program:
        pythons = (shutil.which("python3", path="/usr/bin:/bin"), f"{sys.base_prefix}/bin/python3", sys.executable)
        yield from (Bubblewrap(program, python) for python in pythons if python)
    yield from (Container(found) for name in _ENGINES if (found := shutil.which(name)))
