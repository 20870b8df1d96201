"""Units: bytes are integers inside, GiB when printed; vendors' GB are converted at the door."""

from __future__ import annotations

import re

from sizeup.errors import BadInput

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
KB, MB, GB, TB = 10**3, 10**6, 10**9, 10**12

_BYTE_UNITS = {
    "b": 1, "kb": KB, "mb": MB, "gb": GB, "tb": TB,
    "kib": KIB, "mib": MIB, "gib": GIB, "tib": TIB,
    "k": KIB, "m": MIB, "g": GIB, "t": TIB,
}  # fmt: skip
_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def format_bytes(count: float | None) -> str:
    """Bytes for people: `4.58 GiB`, `162 MiB`, `68.6 KiB`, `24 B`; `unknown` for None."""
    if count is None:
        return "unknown"
    sign, size = ("-", -count) if count < 0 else ("", count)
    for unit, step in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size >= step:
            value = size / step
            return f"{sign}{value:.0f} {unit}" if value >= 100 else f"{sign}{value:.3g} {unit}"
    return f"{sign}{size:.0f} B"


def format_count(count: float | None) -> str:
    """A count for people, decimal: `8.03 B`, `304 M`, `61.4 K`, `12`."""
    if count is None:
        return "unknown"
    for unit, step in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if abs(count) >= step:
            value = count / step
            return f"{value:.0f} {unit}" if abs(value) >= 100 else f"{value:.3g} {unit}"
    return f"{count:.0f}"


def format_rate(value: float) -> str:
    """`1,480`, `129`, `14.3`, `0.27`: the three digits that matter, and never an exponent above one."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def format_tokens(count: int | None) -> str:
    """A context length as people write it: `128k` for 131,072, `2048` → `2k`, `1M`."""
    if count is None:
        return "unknown"
    if count >= 1 << 20 and count % (1 << 20) == 0:
        return f"{count >> 20}M"
    if count >= 1024 and count % 1024 == 0:
        return f"{count >> 10}k"
    return f"{count:,}"


def parse_bytes(text: str) -> int:
    """`24 GB` → 24·10⁹, `24 GiB` or `24G` → 24·2³⁰. Raises BadInput for anything else."""
    match = _NUMBER.fullmatch(text)
    if match and (step := _BYTE_UNITS.get(match[2].lower() or "b")):
        return int(float(match[1]) * step)
    raise BadInput(f"not an amount of memory: {text!r}", hint="write it as '24 GB' or '512 MiB'")


def parse_tokens(text: str | int) -> int:
    """A context length: `8192`, `32k` (32,768), `1M` (1,048,576). Raises BadInput otherwise."""
    if isinstance(text, int):
        count = text
    else:
        match = _NUMBER.fullmatch(text.replace(",", "").replace("_", ""))
        step = {"": 1, "k": 1 << 10, "m": 1 << 20}.get(match[2].lower()) if match else None
        if match is None or step is None:
            raise BadInput(f"not a number of tokens: {text!r}", hint="write it as 8192 or 32k")
        count = int(float(match[1]) * step)
    if count < 1:
        raise BadInput(f"not a number of tokens: {text!r}", hint="write it as 8192 or 32k")
    return count


def parse_count(text: str) -> int:
    """A decimal count: `8B` → 8·10⁹, `500M`, `1.5B`, `7000000`. Raises BadInput otherwise."""
    match = _NUMBER.fullmatch(text.replace(",", "").replace("_", ""))
    step = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}.get(match[2].lower()) if match else None
    if match is None or step is None:
        raise BadInput(f"not a count: {text!r}", hint="write it as 8B or 500M")
    return round(float(match[1]) * step)
