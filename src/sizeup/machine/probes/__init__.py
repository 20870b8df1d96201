"""Reading the machine at hand. Nothing here raises: what can't be read becomes a note."""

from __future__ import annotations

from collections.abc import Mapping

from sizeup.machine.device import Machine


def probe_machine(env: Mapping[str, str] | None = None) -> Machine:
    """The machine at hand; see `sizeup.machine.probes.probe`."""
    from sizeup.machine.probes.probe import probe

    return probe(env)
