"""What a process holds, by kind, as Linux accounts for it. Standard library only: it runs in any environment."""

from __future__ import annotations

from pathlib import Path

_KIB = 1024


def kibibytes(text: str, field: str) -> int | None:
    """The bytes of a `Field:  123 kB` line; None without it."""
    for line in text.splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * _KIB
    return None


def _read(name: str) -> str:
    try:
        return Path("/proc/self", name).read_text()
    except OSError:
        return ""


def anonymous_bytes() -> int | None:
    """Resident memory of this process that is no file's; None where the system doesn't say."""
    return kibibytes(_read("smaps_rollup"), "Anonymous")


def peak_bytes() -> int | None:
    """The most that was ever resident; None where the system doesn't say."""
    return kibibytes(_read("status"), "VmHWM")


def mapped_bytes(path: str) -> int:
    """Resident memory of this process that is mapped from one file."""
    total, inside = 0, False
    for line in _read("smaps").splitlines():
        if "-" in line.split(" ", 1)[0]:
            inside = line.endswith(path)
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * _KIB
    return total


def snapshot(path: str) -> dict[str, int | None]:
    """All of it now: anonymous, mapped from `path`, resident in all, and the peak so far."""
    rollup = _read("smaps_rollup")
    return {
        "anonymous": kibibytes(rollup, "Anonymous"),
        "mapped": mapped_bytes(path),
        "resident": kibibytes(rollup, "Rss"),
        "peak": peak_bytes(),
    }
