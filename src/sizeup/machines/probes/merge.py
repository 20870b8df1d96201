"""What a probe read, completed with what the catalogue knows of that device."""

from __future__ import annotations

import msgspec

from sizeup.machines import catalogue
from sizeup.machines.catalogue import Entry
from sizeup.machines.device import Device

# Read and catalogued bandwidth should agree; a larger difference means another memory than the catalogue's.
_BANDWIDTH_TOLERANCE = 0.10
_FROM_CATALOGUE = (
    "klass", "arch", "capability", "released", "units", "memory_bytes", "memory_type", "bandwidth", "cache_bytes",
    "compute", "power_w", "price_usd", "host_link", "peer_link",
)  # fmt: skip


def record_named(name: str, memory_bytes: int | None) -> Entry | None:
    """The record of exactly that name, of its variants the one with that memory; None when it isn't known."""
    found = catalogue.candidates(name)
    return next(iter(catalogue.narrowed(found, memory_bytes=memory_bytes) or found), None)


def completed(probed: Device, record: Entry | None, source: str, notes: list[str]) -> Device:
    """The probed device, with the catalogue's facts where the probe has none.

    What was read wins, but for bandwidth within 10 % of the catalogue's, where clocks are rounded.
    """
    read = {field for field in Device.__struct_fields__ if getattr(probed, field) not in (None, "", {}, ())}
    provenance = dict.fromkeys(read - {"provenance", "catalogue_id"}, source) | probed.provenance
    if record is None:
        notes.append(f"{probed.name} isn't in the catalogue: what its driver doesn't say is unknown")
        return msgspec.structs.replace(probed, provenance=provenance)
    facts = record.device()
    taken = {field: getattr(facts, field) for field in _FROM_CATALOGUE if field not in read}
    taken = {field: value for field, value in taken.items() if value not in (None, "", {}, ())}
    if probed.bandwidth and facts.bandwidth:
        difference = abs(probed.bandwidth / facts.bandwidth - 1)
        if difference <= _BANDWIDTH_TOLERANCE:
            taken["bandwidth"] = facts.bandwidth
        else:
            notes.append(
                f"{probed.name}: {probed.bandwidth / 1e9:.0f} GB/s read, {facts.bandwidth / 1e9:.0f} in the catalogue"
            )
    provenance |= dict.fromkeys(taken, "catalogue")
    return msgspec.structs.replace(probed, **taken, catalogue_id=record.id, provenance=provenance)
