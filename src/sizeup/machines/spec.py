"""Which machine to plan for."""

from __future__ import annotations

import os
from collections.abc import Mapping

from sizeup.machines.device import Machine


def load_machine(spec: str | None = None, env: Mapping[str, str] | None = None) -> Machine:
    """The machine to plan for: the description given, else SIZEUP_MACHINE, else the one at hand.

    A description is read by `parse_machine`; one that ends in `.toml` is a machine file. Raises BadInput, NotFound or
    BadFile. The parser is imported only when there is something to parse.
    """
    environment = os.environ if env is None else env
    text = spec if spec is not None else environment.get("SIZEUP_MACHINE", "")
    if text.strip() or spec is not None:
        from sizeup.machines.words import parse_machine

        return parse_machine(text)
    from sizeup.machines.probes import probe_machine

    return probe_machine(env=environment)
