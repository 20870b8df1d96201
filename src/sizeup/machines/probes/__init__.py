"""Reading the machine at hand. Nothing here raises: what can't be read becomes a note."""

from __future__ import annotations

from collections.abc import Mapping

from sizeup.machines.device import Machine


def probe_machine(env: Mapping[str, str] | None = None) -> Machine:
    """The machine at hand; see `sizeup.machines.probes.probe`."""
    from sizeup.machines.probes.probe import probe

    return probe(env)
