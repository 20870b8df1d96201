"""A row of the ledger: one estimate, simulation or measurement with its full setting, and where it comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from sizeup.errors import BadFile
from sizeup.models.model import Model

KINDS = ("estimate", "simulate", "measure")
#: share: of 1, such as problems that passed. nats: losses and divergences, for each token.
UNITS = ("bytes", "seconds", "tokens/s", "share", "nats")
#: Units of what no estimate is made of: the quality of a model's output.
QUALITY_UNITS = frozenset({"share", "nats"})

Value = str | int | float | bool | None


class ModelRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model that rows refer to: enough to build it again without network.

    key: `shape_key` of the model. config: its configuration, as Hugging Face's `config.json` has it.
    """

    key: str
    model: str
    family: str
    parameters: int
    config: dict[str, Any] = {}


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One estimate, simulation or measurement. What isn't known is left out, never guessed.

    kind: its rank of evidence. model: the name it goes by. shape: `shape_key` of its tensors; empty when only the
    name is known. engine, version: `llama.cpp`, the package's exact version. machine: device in words;
    machine_class: `cpu`, `gpu`, `several gpus`, `unified`. gpus: the backend of each GPU in use (`cuda`).
    setting: what the engine was told. workload: what it was made to do (tokens read and written, sequences).
    components: name → amount in `unit`; names are dotted, `weights.CPU_REPACK` is a part of `weights`.
    method: what produced it, with a version that changes when its numbers would. date: ISO, the day it was made.
    source: `sizeup` for its own runs, else a citation. note: what a reader should know, or why it differs.
    """

    kind: str
    model: str
    engine: str
    components: dict[str, float | int]
    source: str
    shape: str = ""
    family: str = ""
    format: str = ""
    version: str = ""
    machine: str = ""
    machine_class: str = ""
    gpus: tuple[str, ...] = ()
    setting: dict[str, Any] = {}
    workload: dict[str, Value] = {}
    unit: str = "bytes"
    method: str = ""
    date: str = ""
    note: str = ""

    @property
    def key(self) -> str:
        """The row's name: a digest of all it says. The same row imported twice is one row."""
        raw = msgspec.json.encode(self, order="sorted")
        return hashlib.sha256(raw).hexdigest()[:32]

    def amount(self, component: str) -> float | int | None:
        """A component, or the sum of its dotted parts; None when the row has neither."""
        if component in self.components:
            return self.components[component]
        parts = [value for name, value in self.components.items() if name.startswith(component + ".")]
        return sum(parts) if parts else None


def shape_key(model: Model) -> str:
    """A digest of everything that decides bytes: tensor shapes, how many of each, ties, stored types and mixers.

    Names don't enter, so a model read from a GGUF header and from its configuration may differ only where the file
    merges or splits tensors.
    """
    blocks = sorted(
        repr((
            block.stack,
            block.count,
            sorted((t.shape, t.copies, bool(t.tied_to), t.stored or "") for t in block.tensors),
            [repr(mixer) for mixer in block.mixers],
        ))
        for block in model.blocks
    )  # fmt: skip
    return hashlib.sha256("\n".join([model.dtype, *blocks]).encode()).hexdigest()[:16]


def checked(row: Row) -> Row:
    """The row itself. Raises BadFile for an unknown kind or unit, or an amount that can't be one."""
    if row.kind not in KINDS:
        raise BadFile(f"a ledger row of kind {row.kind[:40]!r}", hint=f"one of {', '.join(KINDS)}")
    if row.unit not in UNITS:
        raise BadFile(f"a ledger row in {row.unit[:40]!r}", hint=f"one of {', '.join(UNITS)}")
    if not row.source:
        raise BadFile(f"a ledger row of {row.model[:80]!r} without a source", hint="say where it comes from")
    for name, amount in row.components.items():
        if not 0 <= amount < float("inf"):
            raise BadFile(f"a ledger row of {row.model[:80]!r} with {name} = {amount}", hint="amounts are 0 or more")
    return row


def decode_lines(text: bytes, origin: str) -> Iterator[Row | ModelRecord]:
    """The rows and models of a JSON-lines file: `{"row": …}` or `{"model": …}` on each line.

    Raises BadFile with the line's number for anything else.
    """
    decoder = msgspec.json.Decoder(Line)
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = decoder.decode(line)
            if entry.row is not None:
                yield checked(entry.row)
            elif entry.model is not None:
                yield entry.model
            else:
                raise BadFile("neither a row nor a model")
        except (msgspec.DecodeError, UnicodeDecodeError, BadFile) as error:
            raise BadFile(f"{origin}, line {number}: {error}", hint="one JSON object on each line") from error


class Line(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One line of a ledger file."""

    row: Row | None = None
    model: ModelRecord | None = None


def encode_line(entry: Row | ModelRecord) -> bytes:
    """The line of a ledger file for a row or a model."""
    line = Line(row=entry) if isinstance(entry, Row) else Line(model=entry)
    return msgspec.json.encode(line) + b"\n"
