"""Matches the names in a file with those of an anatomy, also when a prefix differs."""

from __future__ import annotations

from math import prod

import msgspec

from sizeup.models.model import Block
from sizeup.models.tensors import Tensor


class Match(msgspec.Struct, frozen=True):
    """The anatomy's tensor that a name stands for."""

    block: Block
    tensor: Tensor
    layer: int | None


class NameMatch:
    """Names of an anatomy, with `{copy}` for experts and real layer numbers.

    find: by the whole name, then by the longest ending that only one tensor of that many elements has.
    """

    def __init__(self, blocks: tuple[Block, ...]) -> None:
        self._known: dict[str, Match] = {}
        for block in blocks:
            for layer in block.layers or (None,):
                for tensor in block.tensors:
                    name = tensor.name if layer is None else tensor.name.replace("{layer}", str(layer))
                    self._known[name] = Match(block, tensor, layer)
        self._endings: dict[str, list[str]] | None = None
        self._stored: dict[str, str] = {}
        self._renamed: dict[str, str] = {}
        self._modules: dict[str, tuple[Block, int | None]] = {}
        self._layer_blocks: dict[tuple[str, int], Block] = {
            (block.stack, layer): block for block in blocks for layer in block.layers
        }

    def find(self, name: str, shape: tuple[int, ...], *, flat: bool = False) -> Match | None:
        """The anatomy's tensor of that name, or of that ending and size."""
        key = name if name in self._known else self._renamed.get(name) or self._by_ending(name, prod(shape))
        found = self._known.get(key)
        if found is None or (flat and prod(shape) != prod(found.tensor.stored_shape)):
            return None
        self._stored[key] = name
        self._renamed[name] = key
        self._modules[name.removesuffix(".weight")] = (found.block, found.layer)
        return found

    def _by_ending(self, name: str, elements: int) -> str:
        if self._endings is None:
            self._endings = {}
            for known in self._known:
                for ending in _endings(known):
                    self._endings.setdefault(ending, []).append(known)
        for ending in (name, *_endings(name)):
            candidates = [
                known
                for known in self._endings.get(ending, ())
                if known not in self._stored and prod(self._known[known].tensor.stored_shape) == elements
            ]
            if len(candidates) == 1:
                return candidates[0]
            if candidates:
                return ""
        return ""

    def beside(self, name: str) -> tuple[Block, int | None] | None:
        """Block and layer of the weight that a scale lies beside, by the module's name."""
        module = name
        for _ in range(4):
            module = module.rpartition(".")[0]
            if not module:
                return None
            if module in self._modules:
                return self._modules[module]
        stem = name.removesuffix("_scales")
        return self._modules.get(stem)

    def stored_name(self, known: str) -> str | None:
        """The file's name of an anatomy's tensor, when the file has it."""
        return self._stored.get(known)

    def missing(self) -> list[Match]:
        """Tensors of the anatomy that no name was found for, tied ones left out."""
        return [match for name, match in self._known.items() if name not in self._stored and not match.tensor.tied_to]

    def has(self, name: str) -> bool:
        """Whether the anatomy has a tensor of exactly that name."""
        return name in self._known

    def layer_block(self, stack: str, layer: int) -> Block | None:
        """The anatomy's block of a layer; None when the anatomy doesn't have the layer."""
        return self._layer_blocks.get((stack, layer))


def _endings(name: str) -> list[str]:
    """Endings of at least two words, longest first: `a.b.c.weight` → `b.c.weight`, `c.weight`."""
    words = name.split(".")
    return [".".join(words[place:]) for place in range(1, len(words) - 1)]
