"""The memory modules that the firmware lists (SMBIOS type 17), for the bandwidth of the RAM.

The table is readable by root only on most systems; then there is nothing here and the catalogue is asked.
"""

from __future__ import annotations

import msgspec

_MEMORY_DEVICE = 17
_END_OF_TABLE = 127
_TYPES = {0x18: "DDR3", 0x1A: "DDR4", 0x1D: "LPDDR3", 0x1E: "LPDDR4", 0x20: "HBM", 0x22: "DDR5", 0x23: "LPDDR5"}
_MODULE_BITS = 64


class Module(msgspec.Struct, frozen=True):
    """One populated slot. width_bits: without error correction; transfers_per_s: as configured now."""

    width_bits: int
    transfers_per_s: int
    memory_type: str


def parse_dmi(table: bytes) -> list[Module]:
    """The populated memory modules of a raw SMBIOS table; what can't be read ends the list."""
    modules = []
    offset = 0
    while offset + 4 <= len(table):
        kind, length = table[offset], table[offset + 1]
        if length < 4 or offset + length > len(table) or kind == _END_OF_TABLE:
            break
        if kind == _MEMORY_DEVICE and (module := _module(table[offset : offset + length])):
            modules.append(module)
        end = table.find(b"\x00\x00", offset + length)
        if end < 0:
            break
        offset = end + 2
    return modules


def ram_bandwidth(modules: list[Module], channels: int | None) -> int | None:
    """bytes/s = bits of all channels × transfers/s ÷ 8.

    Slots of 64 bits may share a channel, so no more of them count than the processor has channels, when that is
    known; soldered chips (narrower) each have a channel of their own.
    """
    if not modules:
        return None
    slots = [module for module in modules if module.width_bits == _MODULE_BITS]
    if channels is not None:
        slots = slots[:channels]
    counted = slots + [module for module in modules if module.width_bits != _MODULE_BITS]
    return sum(module.width_bits * module.transfers_per_s for module in counted) // 8


def _module(entry: bytes) -> Module | None:
    """Offsets of the SMBIOS specification 3.7, 7.18: data width 0x0A, size 0x0C, type 0x12, configured speed 0x20."""
    if len(entry) < 0x22:
        return None
    width, size = _word(entry, 0x0A), _word(entry, 0x0C)
    speed = _word(entry, 0x20) or _word(entry, 0x15)
    if size in (0, 0xFFFF) or width in (0, 0xFFFF) or speed in (0, 0xFFFF):
        return None
    return Module(width, speed * 10**6, _TYPES.get(entry[0x12], ""))


def _word(entry: bytes, offset: int) -> int:
    return int.from_bytes(entry[offset : offset + 2], "little")
