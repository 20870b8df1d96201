"""Machines described in words: `2x RTX 4090, 64 GB RAM`, `MacBook Pro M4 Max 64 GB`, `CPU only, 16 GB`.

Parts are separated by `,`, `;`, `+` or `with`. Each part is one of

    2x RTX 4090 24 GB (20 GB free)   devices: count, name, memory when the name leaves it open, free memory
    64 GB DDR5-6000 quad-channel     RAM: size, type and speed, channels; a bare size is RAM too
    Ryzen 9 5950X · 16 cores         the CPU: a known one, or its cores or threads
    CPU only · no GPU                no GPU
    100 GB disk · Windows · headless · display
    DGX H100 · Mac mini M4 Pro       a machine sold whole, or the name of a chip's product

GB of RAM and VRAM are 2^30 bytes, as memory is sold.
"""

from __future__ import annotations

import re

import msgspec

from sizeup.errors import BadInput, NotFound
from sizeup.machines import catalogue
from sizeup.machines.catalogue import Entry
from sizeup.machines.describe import GpuWish, HostWish, build_machine
from sizeup.machines.device import Machine
from sizeup.quantity.units import GIB, MIB, TIB

_MAX_TEXT = 1000
_MAX_COUNT = 4096
_SIZE = r"(\d{1,7}(?:\.\d{1,3})?)\s*([gmt])(?:i?b)?"
_SEPARATOR = re.compile(r"[,;+\n]|\s&\s|\s(?:and|with|plus)\s", re.IGNORECASE)
_COUNT = re.compile(r"^(\d{1,5})\s*[x×*]\s*(?=\S)|^(\d{1,5})\s+(?=[a-z]{2})", re.IGNORECASE)
_COUNT_BEHIND = re.compile(r"(?:\s[x×]|\s?[*×])\s*(\d{1,5})$|\s(\d{1,5})[x×]$", re.IGNORECASE)
_FREE = re.compile(rf"\(?\s*{_SIZE}\s*(?:of\s+\w+\s+)?free\s*\)?", re.IGNORECASE)
_MEMORY = re.compile(rf"\(?(?<![\w.])(?:(\d{{1,3}})\s*[x×]\s*)?{_SIZE}(?![\w])\)?", re.IGNORECASE)
_RAM_WORDS = re.compile(
    r"\b(?:(?:system|main|host|unified|shared)\s+)*(?:ram|memory|dram)\b|\b(?:lp)?ddr[2345]x?\b|\bsdram\b",
    re.IGNORECASE,
)
_VRAM = re.compile(r"\b(?:of\s+)?(?:vram|gddr\d\w?|hbm\d?e?)\b", re.IGNORECASE)
_DDR = re.compile(r"\b(lp)?ddr([345])(x)?(?:[\s-]*(\d{3,5}))?\b(?:\s*(?:mt/s|mhz))?", re.IGNORECASE)
_CHANNELS = re.compile(r"\b(single|dual|quad|hexa|octa|\d{1,2})[\s-]*(?:memory[\s-]*)?channels?\b", re.IGNORECASE)
_CHANNEL_WORDS = {"single": 1, "dual": 2, "quad": 4, "hexa": 6, "octa": 8}
_CORES = re.compile(r"^(\d{1,4})\s*[- ]?(?:cpu[- ]?)?(core|thread)s?(?:\s+cpu)?$", re.IGNORECASE)
_CPU_ONLY = re.compile(r"^(?:cpu(?:[\s-]*only)?|no\s+gpu|without\s+(?:a\s+)?gpu)$", re.IGNORECASE)
_DISK = re.compile(r"\b(?:free\s+)?(?:disk|ssd|nvme|hdd|storage)(?:\s+free)?\b", re.IGNORECASE)
_SYSTEMS = {"windows": "windows", "linux": "linux", "macos": "macos", "ubuntu": "linux", "debian": "linux"}
_CORE_LIST = re.compile(r"\b\d{1,2}p\s*\+\s*\d{1,2}e\s*\+\s*(\d{1,2})\s*gpu\b", re.IGNORECASE)
_BACKEND_BEHIND = re.compile(r"\s+(?:rocm|vulkan|cuda|metal|sycl)(?:\s+[\d.]+)?$", re.IGNORECASE)
_PLUS_IN_NAME = re.compile(r"\b(max|pro)\+", re.IGNORECASE)
_BEFORE_RAM = re.compile(
    rf"(?<=[\w)])\s+(?=(?:\d{{1,3}}\s*[x×]\s*)?{_SIZE}\s+(?:(?:of|system|main|host|unified|shared)\s+)*"
    r"(?:ram\b|(?:lp)?ddr\d|memory\b))",
    re.IGNORECASE,
)
_AFTER_CPU_ONLY = re.compile(r"\b(cpu[\s-]+only|no\s+gpu)\b", re.IGNORECASE)
_SCREENS = {"headless": False, "no display": False, "display": True}
_ASIDE = re.compile(r"^(.*?)\s*\(([^()]*)\)\s*$")


def parse_machine(text: str) -> Machine:
    """A machine from words, or from the TOML file that the words name.

    Raises BadInput for what can't be read or can mean several devices, NotFound for an unknown device or file.
    """
    stripped = text.strip()
    if not stripped:
        raise BadInput("an empty machine description", hint="for example '2x RTX 4090, 64 GB RAM'")
    if len(stripped) > _MAX_TEXT:
        raise BadInput(f"a machine description of {len(stripped):,} characters", hint="use a TOML file")
    if stripped.lower().endswith(".toml"):
        from sizeup.machines.machine_file import read_machine_file

        return read_machine_file(stripped)
    gpus, host, notes = _read_parts(stripped)
    return build_machine(stripped, gpus, host, notes)


def device_named(text: str, *, memory_bytes: int | None = None, bandwidth: int | None = None) -> Entry:
    """The record that a free-form hardware name means, as benchmark tables write it.

    `RTX 4090 24GB`, `Apple M1 4P+4E+8GPU`, `Pi CM5 - 16GB (Nvidia RTX 3060)`, `3090 24GB * 4`, `Strix Halo ROCm 7.2`:
    the name, else what stands in its parentheses, else what stands before them; each compared exactly. Of several
    variants the one with that memory or bandwidth, else the most common. Raises NotFound.
    """
    name = _CORE_LIST.sub(r"\1-core GPU", text.strip())
    plain = _BACKEND_BEHIND.sub("", name)
    aside = _ASIDE.match(plain)
    tries = [name, plain, *([aside[2], aside[1]] if aside else [])]
    for candidate in tries:
        wish = _device_words(candidate)
        for words, memory in ((wish.whole, memory_bytes), (wish.name, wish.memory_bytes)):
            found = catalogue.narrowed(catalogue.candidates(words), memory_bytes=memory, bandwidth=bandwidth)
            if found:
                return found[0]
    raise NotFound(f"unknown device: {text!r}", hint=catalogue.nearest(plain))


def _read_parts(text: str) -> tuple[list[GpuWish], HostWish, list[str]]:
    """The devices, the host and the notes that a description amounts to.

    What the host has is read first, because RAM decides between variants of a chip with unified memory.
    """
    protected = _CORE_LIST.sub(r"\1-core GPU", text)
    protected = _PLUS_IN_NAME.sub(r"\1plus ", protected)
    protected = _BEFORE_RAM.sub(" , ", _AFTER_CPU_ONLY.sub(r"\1,", protected))
    host = HostWish()
    named = []
    for part in (piece.strip() for piece in _SEPARATOR.split(protected)):
        read = _read_host_part(part, host) if part else host
        if read is None:
            named.append(part)
        else:
            host = read
    gpus: list[GpuWish] = []
    notes: list[str] = []
    for part in named:
        host = _read_named_part(part, gpus, host, notes)
    return gpus, host, notes


def _read_host_part(part: str, host: HostWish) -> HostWish | None:
    """The host with what the part says of it; None when the part is a name."""
    lowered = part.lower()
    if _CPU_ONLY.match(part):
        return msgspec.structs.replace(host, cpu_only=True)
    if lowered in _SYSTEMS:
        return msgspec.structs.replace(host, os=_SYSTEMS[lowered])
    if lowered in _SCREENS:
        return msgspec.structs.replace(host, display=_SCREENS[lowered])
    if match := _CORES.match(part):
        field = "cores" if match[2].lower() == "core" else "threads"
        return msgspec.structs.replace(host, **{field: _positive(int(match[1]), part)})
    if _DISK.search(part) and (size := _only_size(_DISK.sub(" ", part))):
        return msgspec.structs.replace(host, disk_bytes=size)
    return _read_ram(part, host)


def _read_named_part(part: str, gpus: list[GpuWish], host: HostWish, notes: list[str]) -> HostWish:
    """Adds a device or the devices of a machine sold whole; the host with what comes along."""
    system = catalogue.find_system(part)
    if system is not None:
        more, system_host, system_notes = _read_parts(system.machine)
        gpus.extend(more)
        notes.extend(system_notes)
        return _merged(host, system_host)
    wish = _read_device(part, host.memory_bytes)
    if wish.entry.kind == "cpu":
        return _with_cpu(host, wish)
    gpus.append(wish)
    return host


def _read_ram(part: str, host: HostWish) -> HostWish | None:
    """RAM, when the part speaks of nothing else; None otherwise."""
    rest = part
    free = _FREE.search(rest)
    rest = _FREE.sub(" ", rest)
    ddr = _DDR.search(rest)
    channels = _CHANNELS.search(rest)
    rest = _CHANNELS.sub(" ", _DDR.sub(" ", rest))
    size = _MEMORY.search(rest)
    rest = _RAM_WORDS.sub(" ", _MEMORY.sub(" ", rest, count=1))
    if rest.strip(" ()-@/") or (size is None and ddr is None and channels is None and free is None):
        return None
    changes: dict[str, object] = {}
    if size is not None:
        changes["memory_bytes"] = _size(size[2], size[3], part) * _positive(int(size[1] or 1), part)
    if free is not None:
        changes["free_bytes"] = _size(free[1], free[2], part)
    if ddr is not None:
        changes["memory_type"] = f"{'LP' if ddr[1] else ''}DDR{ddr[2]}{'X' if ddr[3] else ''}"
        changes["transfers_per_s"] = int(ddr[4]) * 10**6 if ddr[4] else None
    if channels is not None:
        word = channels[1].lower()
        changes["channels"] = _positive(_CHANNEL_WORDS.get(word) or int(word), part)
    return msgspec.structs.replace(host, **changes)


class _Words(msgspec.Struct, frozen=True):
    """A part taken to pieces: `2x RTX 3060 12GB` → count 2, whole `RTX 3060 12GB`, name `RTX 3060`, 12 GiB."""

    count: int
    whole: str
    name: str
    memory_bytes: int | None
    free_bytes: int | None


def _device_words(part: str) -> _Words:
    free = _FREE.search(part)
    count, whole = _take_count(_FREE.sub(" ", part).strip())
    whole = whole.replace("plus ", "+ ").strip()
    size = _MEMORY.search(whole)
    name = _VRAM.sub(" ", _RAM_WORDS.sub(" ", _MEMORY.sub(" ", whole, count=1))).strip() if size else whole
    memory = _size(size[2], size[3], part) * _positive(int(size[1] or 1), part) if size else None
    return _Words(count, whole, name, memory, _size(free[1], free[2], part) if free else None)


def _read_device(part: str, ram: int | None) -> GpuWish:
    """A device with its count, its memory and what of it is free. Raises NotFound or BadInput."""
    words = _device_words(part)
    known = catalogue.candidates(words.whole)
    if known or words.memory_bytes is None:
        unified = bool(known) and all(record.kind == "unified" for record in known)
        record = catalogue.find_entry(words.whole, memory_bytes=ram if unified else None)
        return GpuWish(record, words.count, None, words.free_bytes)
    record = catalogue.find_entry(words.name, memory_bytes=words.memory_bytes)
    return GpuWish(record, words.count, words.memory_bytes, words.free_bytes)


def _take_count(text: str) -> tuple[int, str]:
    """`2x NAME`, `2 NAME`, `NAME * 4` or `NAME x2` → the count and the name; a known name as it stands is one."""
    if _is_known(text):
        return 1, text
    readings = []
    for pattern in (_COUNT, _COUNT_BEHIND):
        if match := pattern.search(text):
            rest = (text[: match.start()] + text[match.end() :]).strip()
            readings.append((int(match[1] or match[2]), rest))
    count, name = next((reading for reading in readings if _is_known(reading[1])), (readings or [(1, text)])[0])
    return _positive(count, text), name


def _is_known(name: str) -> bool:
    """Whether a device has that name, with or without a size of memory in it."""
    return bool(catalogue.candidates(name) or catalogue.candidates(_MEMORY.sub(" ", name, count=1)))


def _with_cpu(host: HostWish, wish: GpuWish) -> HostWish:
    memory = host.memory_bytes if wish.memory_bytes is None else wish.memory_bytes
    return msgspec.structs.replace(host, cpu=wish.entry, sockets=wish.count, memory_bytes=memory)


def _merged(host: HostWish, more: HostWish) -> HostWish:
    """What is already known of the host, completed from another description."""
    empty = HostWish()
    fresh = {
        field: getattr(more, field)
        for field in HostWish.__struct_fields__
        if getattr(host, field) == getattr(empty, field)
    }
    return msgspec.structs.replace(host, **fresh)


def _only_size(text: str) -> int | None:
    size = _MEMORY.search(text)
    if size is None or _MEMORY.sub("", text, count=1).strip():
        return None
    return _size(size[2], size[3], text)


def _size(number: str, unit: str, part: str) -> int:
    """`24`, `g` → 24 GiB."""
    size = int(float(number) * {"m": MIB, "g": GIB, "t": TIB}[unit.lower()])
    if not 0 < size <= 1 << 50:
        raise BadInput(f"not a size of memory: {part!r}", hint="write it as '24 GB'")
    return size


def _positive(count: int, part: str) -> int:
    if not 0 < count <= _MAX_COUNT:
        raise BadInput(f"{count} in {part!r} is out of range", hint=f"numbers from 1 to {_MAX_COUNT} are understood")
    return count
