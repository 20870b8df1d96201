"""A header and an anatomy laid side by side: what is missing, extra, reshaped or under another name."""

from __future__ import annotations

from math import prod

import msgspec

from sizeup.formats.checkpoint_configs import scheme_from_config
from sizeup.models import name_rules
from sizeup.models.config import Config
from sizeup.models.from_config import model_from_config
from sizeup.models.from_safetensors import packing_hints
from sizeup.models.model import Model
from sizeup.models.name_match import NameMatch
from sizeup.models.packed import Logical, unpack
from sizeup.models.sources.header import Header


class Difference(msgspec.Struct, frozen=True):
    """Tensors that differ in the same way.

    name: with `{layer}` and `{copy}` for the numbers. count: how many. elements: of all of them.
    expected, found: shapes by the anatomy and in the file; None where it has no such tensor. note: why, where known.
    """

    name: str
    count: int
    elements: int
    expected: tuple[int, ...] | None = None
    found: tuple[int, ...] | None = None
    note: str = ""


class Verification(msgspec.Struct, frozen=True):
    """What was compared, and what differs.

    tensors: how many names were laid side by side. renamed: under another prefix, of the right size.
    """

    model: Model
    tensors: int
    missing: tuple[Difference, ...]
    extra: tuple[Difference, ...]
    reshaped: tuple[Difference, ...]
    renamed: tuple[Difference, ...]

    @property
    def exact(self) -> bool:
        """Whether every tensor is there under its name and with its shape, and no other."""
        return not (self.missing or self.extra or self.reshaped or self.renamed)


def verify(header: Header, config: Config) -> Verification:
    """Compare safetensors headers with the anatomy of a configuration.

    Packed weights are compared by their logical names and shapes, scales by their own. Raises what
    `model_from_config` raises.
    """
    model = model_from_config(config)
    match = NameMatch(model.blocks)
    stored = unpack(header.tensors, packing_hints(scheme_from_config(config.data)))
    collected = _Collected()
    expected = 0
    for item in stored:
        if not item.name.endswith(" padding"):
            _compare(item, match, collected)
    for missing in match.missing():
        expected += 1
        shape = missing.tensor.stored_shape
        optional = missing.tensor.role == "buffer" or missing.block.stack == "mtp"
        note = "not stored by every file" if optional else ""
        name = missing.tensor.name
        collected.add(
            "missing", name, prod(shape) * _copies(missing.tensor.name, missing.tensor.copies), shape, None, note
        )
    return Verification(
        model,
        len(stored) + expected,
        collected.of("missing"),
        collected.of("extra"),
        collected.of("reshaped"),
        collected.of("renamed"),
    )


def _copies(name: str, copies: int) -> int:
    return copies if "{copy}" in name else 1


def _compare(item: Logical, match: NameMatch, collected: _Collected) -> None:
    key, _ = name_rules.split_copy(item.name)
    template, _ = name_rules.split_layer(key)
    found = match.find(key, item.shape, flat=item.flat)
    if found is None:
        collected.add("extra", template, prod(item.shape), None, item.shape)
        return
    shape = found.tensor.stored_shape
    if found.tensor.tied_to:
        collected.add("extra", template, prod(item.shape), None, item.shape, f"tied to {found.tensor.tied_to}")
    elif item.shape != shape and not item.flat:
        collected.add("reshaped", template, prod(item.shape), shape, item.shape)
    elif not match.has(key):
        collected.add("renamed", template, prod(item.shape), shape, item.shape, f"the anatomy has {found.tensor.name}")


class _Collected:
    """Differences gathered by kind, name and shapes."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, object, object, str], list[int]] = {}

    def add(
        self,
        kind: str,
        name: str,
        elements: int,
        expected: tuple[int, ...] | None,
        found: tuple[int, ...] | None,
        note: str = "",
    ) -> None:
        """One more tensor of this difference."""
        held = self._found.setdefault((kind, name, expected, found, note), [0, 0])
        held[0] += 1
        held[1] += elements

    def of(self, kind: str) -> tuple[Difference, ...]:
        """The differences of a kind, in the order they were met."""
        return tuple(
            Difference(name, count, elements, expected, found, note)  # type: ignore[arg-type]
            for (own, name, expected, found, note), (count, elements) in self._found.items()
            if own == kind
        )
