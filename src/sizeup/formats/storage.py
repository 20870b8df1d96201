"""How a tensor's values are stored: blocks, and whatever lies beside them."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import msgspec

from sizeup.errors import BadInput
from sizeup.formats.layouts import ALIASES, DTYPES, GGML_TYPES
from sizeup.quantity import Term, leaf, total

Shape = tuple[int, ...]


class Side(msgspec.Struct, frozen=True):
    """Data beside the blocks: scales, zeros, a codebook.

    tile: for which piece of the tensor there is one entry. `(rows, columns)`, where 0 means the whole extent and a
    partial tile counts as one; `(n,)` for every n values in storage order; `()` for one per tensor.
    """

    name: str
    entry_bytes: int
    tile: tuple[int, ...] = ()

    def entries(self, shape: Shape) -> int:
        """The number of entries for a tensor: the product of ⌈extent / tile⌉; leading dimensions each count anew."""
        if not self.tile:
            return 1
        if len(self.tile) == 1:
            return ceil_div(prod(shape), self.tile[0])
        leading, rows, columns = split_shape(shape)
        tile_rows, tile_columns = self.tile
        return leading * ceil_div(rows, tile_rows or rows or 1) * ceil_div(columns, tile_columns or columns or 1)


class Storage(msgspec.Struct, frozen=True):
    """A number format: `block_elements` values in `block_bytes` bytes, blocks along the last dimension.

    whole_rows: a row must be a whole number of blocks (GGML); otherwise the last block of a row is padded.
    about: what a block holds, for people.
    """

    name: str
    block_elements: int
    block_bytes: int
    sides: tuple[Side, ...] = ()
    whole_rows: bool = False
    about: str = ""

    @property
    def bits_per_weight(self) -> float:
        """8 · block_bytes / block_elements: the blocks alone, without side data."""
        return 8 * self.block_bytes / self.block_elements

    def fits(self, shape: Shape) -> bool:
        """Whether a tensor of this shape can be stored like this at all."""
        return not self.whole_rows or not shape or shape[-1] % self.block_elements == 0

    def row_bytes(self, elements: int) -> int:
        """⌈elements / block_elements⌉ · block_bytes. Raises BadInput for a row that this format can't hold."""
        if elements < 0:
            raise BadInput(f"a row of {elements} values", hint="extents are 0 or more")
        if not self.fits((elements,)):
            raise BadInput(
                f"a row of {elements:,} values is not a whole number of {self.name} blocks of {self.block_elements}",
                hint="llama.cpp falls back to another type here: see sizeup.formats.ggml.fallback",
            )
        return ceil_div(elements, self.block_elements) * self.block_bytes

    def bytes_of(self, shape: Shape) -> int:
        """Bytes of a tensor: rows · row_bytes + Σ entries · entry_bytes of the side data. A scalar has shape ()."""
        leading, rows, columns = split_shape(shape)
        blocks = leading * rows * self.row_bytes(columns)
        return blocks + sum(side.entries(shape) * side.entry_bytes for side in self.sides)

    def term(self, name: str, shape: Shape) -> Term:
        """The same bytes as `bytes_of`, with their derivation."""
        leading, rows, columns = split_shape(shape)
        count, row = leading * rows, self.row_bytes(columns)
        how = f"{count:,} × {columns:,} values as {self.name}"
        if self.block_elements > 1:
            how += f": {count:,} rows × {row // self.block_bytes:,} blocks of {self.block_bytes} B"
        else:
            how += f": {self.block_bytes} B each"
        blocks = leaf(f"{name} values" if self.sides else name, count * row, how)
        if not self.sides:
            return blocks
        beside = [
            leaf(
                f"{name} {side.name}",
                side.entries(shape) * side.entry_bytes,
                f"{side.entries(shape):,} × {side.entry_bytes} B",
            )
            for side in self.sides
        ]
        return total(name, [blocks, *beside])


def ceil_div(amount: int, step: int) -> int:
    """⌈amount / step⌉ for integers."""
    return -(-amount // step)


def split_shape(shape: Shape) -> tuple[int, int, int]:
    """(leading, rows, columns): the last two dimensions and the product of those before; a scalar is 1 × 1 × 1.

    Raises BadInput for a negative extent.
    """
    if any(extent < 0 for extent in shape):
        raise BadInput(f"not a shape: {shape}", hint="extents are 0 or more")
    columns = shape[-1] if shape else 1
    rows = shape[-2] if len(shape) > 1 else 1
    return prod(shape[:-2]), rows, columns


def _storages() -> dict[str, Storage]:
    ggml = (Storage(name, n, size, whole_rows=n > 1, about=about) for _, name, n, size, about in GGML_TYPES)
    dtypes = (Storage(name, n, size, about=about) for name, n, size, about in DTYPES)
    return {storage.name: storage for storage in (*ggml, *dtypes)}


STORAGES = _storages()


def lookup(name: str) -> Storage:
    """The storage of a GGML type or a safetensors, torch or numpy dtype, in any usual spelling and case.

    Raises BadInput for an unknown name, naming the nearest known ones.
    """
    key = str(name).strip().lower().removeprefix("torch.").replace("-", "_").replace(".", "_")
    known = STORAGES.get(ALIASES.get(key) or key.upper())
    if known is None:
        raise BadInput(f"unknown number format: {str(name)[:80]!r}", hint=_suggestion(key))
    return known


def _suggestion(key: str) -> str:
    near = nearest(key, [*(known.lower() for known in STORAGES), *ALIASES])
    names = list(dict.fromkeys(ALIASES.get(alias) or alias.upper() for alias in near))
    return f"did you mean {' or '.join(names)}?" if names else f"known formats: {', '.join(STORAGES)}"


def nearest(word: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known words most like this one, best first; empty when none is close."""
    from difflib import get_close_matches

    return get_close_matches(word[:80], list(known), n=count, cutoff=0.6)
