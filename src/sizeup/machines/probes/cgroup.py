"""What a container or a service manager allows this process.

Sources, in this order:
1. /proc/self/cgroup names the groups: `0::/path` is version 2, `4:memory:/path` version 1.
2. Version 2: `memory.max`, `memory.current`, `memory.stat`, `cpu.max` of the group and of every group above it.
3. Version 1: `memory.limit_in_bytes`, `memory.usage_in_bytes`, `cpu.cfs_quota_us`, likewise.
Inside a container the path names the group as the host sees it, so the mount's root is looked at too.
The tightest limit on the way up counts.
"""

from __future__ import annotations

from collections.abc import Iterator

from sizeup.machines.device import Limits
from sizeup.machines.probes.files import Files, to_int

_V2 = "/sys/fs/cgroup"
# Version 1 writes "no limit" as a number near 2^63, rounded down to pages.
_NO_LIMIT = 1 << 60


def read_limits(files: Files) -> Limits:
    """The tightest memory and CPU limits of this process's groups."""
    groups = parse_groups(files.read("/proc/self/cgroup") or "")
    memory = _memory_v2(files, groups) if "" in groups else None
    memory = memory or _memory_v1(files, groups)
    cpus = [count for count in (_cpus_v2(files, groups), _cpus_v1(files, groups)) if count is not None]
    limit, used, source = memory or (None, None, "")
    return Limits(memory_bytes=limit, memory_used_bytes=used, cpus=min(cpus, default=None), source=source)


def parse_groups(text: str) -> dict[str, str]:
    """/proc/self/cgroup: controller → path; the group of version 2 has the empty controller."""
    groups: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and parts[2].startswith("/") and ".." not in parts[2]:
            for controller in parts[1].split(","):
                groups[controller] = parts[2]
    return groups


def parse_cpu_max(text: str | None) -> float | None:
    """`cpu.max` of version 2: `200000 100000` → 2.0 processors; `max 100000` → None."""
    words = (text or "").split()
    if len(words) != 2:
        return None
    return _share(to_int(words[0]), to_int(words[1]))


def parse_inactive_file(text: str | None) -> int:
    """Of `memory.stat`, the page cache that is dropped when memory gets short, bytes."""
    for line in (text or "").splitlines():
        words = line.split()
        if len(words) == 2 and words[0] in {"inactive_file", "total_inactive_file"}:
            return to_int(words[1]) or 0
    return 0


def _memory_v2(files: Files, groups: dict[str, str]) -> tuple[int, int | None, str] | None:
    found = []
    for folder in _upwards(_V2, groups[""]):
        limit = files.number(f"{folder}/memory.max")
        if limit is not None:
            used = files.number(f"{folder}/memory.current")
            found.append(_limit(files, folder, limit, used, "memory.max"))
    return min(found, key=lambda item: item[0] - (item[1] or 0), default=None)


def _memory_v1(files: Files, groups: dict[str, str]) -> tuple[int, int | None, str] | None:
    if "memory" not in groups:
        return None
    found = []
    for folder in _upwards(f"{_V2}/memory", groups["memory"]):
        limit = files.number(f"{folder}/memory.limit_in_bytes")
        if limit is not None and limit < _NO_LIMIT:
            used = files.number(f"{folder}/memory.usage_in_bytes")
            found.append(_limit(files, folder, limit, used, "memory.limit_in_bytes"))
    return min(found, key=lambda item: item[0] - (item[1] or 0), default=None)


def _limit(files: Files, folder: str, limit: int, used: int | None, name: str) -> tuple[int, int | None, str]:
    """The limit, what is in use without droppable cache, and the file that says so."""
    droppable = parse_inactive_file(files.read(f"{folder}/memory.stat"))
    return limit, None if used is None else max(0, used - droppable), f"{folder}/{name}"


def _cpus_v2(files: Files, groups: dict[str, str]) -> float | None:
    if "" not in groups:
        return None
    counts = [parse_cpu_max(files.read(f"{folder}/cpu.max")) for folder in _upwards(_V2, groups[""])]
    return min((count for count in counts if count is not None), default=None)


def _cpus_v1(files: Files, groups: dict[str, str]) -> float | None:
    if "cpu" not in groups:
        return None
    counts = []
    for mount in ("cpu,cpuacct", "cpu"):
        for folder in _upwards(f"{_V2}/{mount}", groups["cpu"]):
            quota = files.number(f"{folder}/cpu.cfs_quota_us")
            counts.append(_share(quota, files.number(f"{folder}/cpu.cfs_period_us")))
    return min((count for count in counts if count is not None), default=None)


def _share(quota: int | None, period: int | None) -> float | None:
    return quota / period if quota and period else None


def _upwards(mount: str, path: str) -> Iterator[str]:
    """The group's folder, and every folder above it up to the mount."""
    parts = [part for part in path.split("/") if part]
    for length in range(len(parts), -1, -1):
        yield "/".join([mount, *parts[:length]])
