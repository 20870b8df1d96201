"""/proc/cpuinfo and /proc/meminfo, as text in and facts out."""

from __future__ import annotations

import msgspec

from sizeup.machines.probes.files import to_int

# What this program wants to know ← what /proc/cpuinfo calls it on x86 and on Arm.
_FEATURES = {
    "avx": "avx", "avx2": "avx2", "f16c": "f16c", "avx512f": "avx512", "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16", "avx_vnni": "avx_vnni", "amx_tile": "amx", "asimd": "neon", "asimddp": "dotprod",
    "i8mm": "i8mm", "bf16": "bf16", "sve": "sve", "sve2": "sve2",
}  # fmt: skip
# Zen 4 runs 512-bit instructions in two halves.
_ZEN4_FAMILY = "25"


class CpuInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What /proc/cpuinfo says. number: the key of the catalogue (`AuthenticAMD-25-33`, `ARM-0x41-0xd0b`)."""

    name: str = ""
    vendor: str = ""
    number: str = ""
    cores: int | None = None
    threads: int | None = None
    sockets: int = 1
    clock_hz: int | None = None
    features: tuple[str, ...] = ()


def parse_cpuinfo(text: str) -> CpuInfo:
    """The processor that /proc/cpuinfo describes; unknown fields stay empty."""
    blocks = [_fields(block) for block in text.split("\n\n")]
    blocks = [block for block in blocks if "processor" in block]
    first = blocks[0] if blocks else {}
    vendor = first.get("vendor_id", "")
    number = f"{vendor}-{first.get('cpu family', '')}-{first.get('model', '')}" if vendor else _arm_number(first)
    sockets = {block["physical id"] for block in blocks if "physical id" in block}
    clocks = [clock for block in blocks if (clock := _megahertz(block.get("cpu MHz")))]
    return CpuInfo(
        name=first.get("model name", "").strip(), vendor=_vendor(vendor), number=number, cores=_cores(blocks),
        threads=len(blocks) or None, sockets=max(1, len(sockets)), clock_hz=max(clocks, default=None),
        features=_features(first),
    )  # fmt: skip


def parse_meminfo(text: str) -> tuple[int | None, int | None]:
    """(total, available) bytes of /proc/meminfo. Available is what can be had without swapping."""
    rows = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    total = _kibibytes(rows.get("MemTotal"))
    available = _kibibytes(rows.get("MemAvailable"))
    if available is None:
        parts = [_kibibytes(rows.get(name)) for name in ("MemFree", "Buffers", "Cached")]
        available = None if parts[0] is None else sum(part or 0 for part in parts)
    if total is not None and available is not None:
        available = min(available, total)
    return total, available


def _fields(block: str) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _cores(blocks: list[dict[str, str]]) -> int | None:
    """Physical cores: distinct (socket, core) pairs; threads where the file doesn't tell them apart."""
    pairs = {(block.get("physical id", "0"), block["core id"]) for block in blocks if "core id" in block}
    return len(pairs) or len(blocks) or None


def _features(block: dict[str, str]) -> tuple[str, ...]:
    words = (block.get("flags") or block.get("Features") or "").split()
    known = [_FEATURES[word] for word in words if word in _FEATURES]
    if "avx512" in known and block.get("vendor_id") == "AuthenticAMD" and block.get("cpu family") == _ZEN4_FAMILY:
        known.append("avx512_double_pumped")
    return tuple(dict.fromkeys(known))


def _arm_number(block: dict[str, str]) -> str:
    implementer, part = block.get("CPU implementer"), block.get("CPU part")
    return f"ARM-{implementer}-{part}" if implementer and part else ""


def _vendor(vendor_id: str) -> str:
    return {"AuthenticAMD": "amd", "GenuineIntel": "intel"}.get(vendor_id, vendor_id.lower())


def _megahertz(text: str | None) -> int | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return int(value * 1e6) if 0 < value < 1e5 else None


def _kibibytes(text: str | None) -> int | None:
    words = (text or "").split()
    count = to_int(words[0]) if words else None
    return None if count is None or count > 1 << 50 else count * 1024
