"""Why a Hub page says something else: from the parameters of a model to the elements of its files, line by line.

    stored = parameters + persistent buffers + multi-token prediction + tied tensors stored again + scales
             - weights that share a byte or word

A Hub counts stored elements. For a model read from headers every line is known. For one known by its configuration
some lines depend on who wrote the files; `explain` finds the lines that lead from the parameters to a published
figure exactly, fewest first, or says what stays unexplained.
"""

from __future__ import annotations

from itertools import combinations

import msgspec

from sizeup.models.count import UNIT
from sizeup.models.mixers import Attention, LatentAttention
from sizeup.models.model import Block, Model
from sizeup.models.stored import elements_on_disk
from sizeup.quantity import Term, leaf, total


class Reconciliation(msgspec.Struct, frozen=True):
    """A published figure, the lines that lead to it, and what they leave over (0: explained to the last element)."""

    published: int
    lines: Term
    unexplained: int

    @property
    def explained(self) -> bool:
        """Whether nothing is left over."""
        return self.unexplained == 0


def stored_elements(model: Model) -> Term:
    """The elements of a model's files, with a line for everything that isn't a parameter of its class."""
    return total("stored elements", [_parameters(model), *_lines(model)])


def explain(model: Model, published: int) -> Reconciliation:
    """The shortest sum of lines that gives a published figure exactly; the plain parameters and a rest otherwise."""
    base = _parameters(model)
    candidates = [*_lines(model), *_writer_dependent(model)]
    for count in range(len(candidates) + 1):
        for chosen in combinations(candidates, count):
            left = published - base.value - sum(line.value for line in chosen)
            rest = _rotary(model, int(left))
            if left == 0 or rest is not None:
                lines = [base, *chosen, *([rest] if rest else [])]
                return Reconciliation(published, total("published", lines), 0)
    return Reconciliation(published, total("published", [base]), published - int(base.value))


def _parameters(model: Model) -> Term:
    return leaf("parameters", model.parameters, "as the model's class builds it, ties counted once", unit=UNIT)


def _lines(model: Model) -> list[Term]:
    """What its tensors say is stored beside the parameters; lines of 0 are left out."""
    built = [block for block in model.blocks if block.stack != "mtp"]
    predicting = [block for block in model.blocks if block.stack == "mtp"]
    packed = sum(
        block.count * (tensor.copies * tensor.elements - elements_on_disk(tensor, model.scheme))
        for block in model.blocks
        for tensor in block.tensors
        if tensor.role not in {"scale", "buffer"} and not tensor.tied_to
    )
    lines = [
        leaf("persistent buffers", _elements(built, "buffer"), "stored, but no parameters", unit=UNIT),
        leaf("tied tensors stored again", _elements(built, "buffer", duplicate=True), "read from headers", unit=UNIT),
        leaf("multi-token prediction", sum(b.parameters for b in predicting), "stored, but not built", unit=UNIT),
        leaf("its buffers", _elements(predicting, "buffer"), "of multi-token prediction", unit=UNIT),
        leaf("quantization scales", _elements(list(model.blocks), "scale"), f"of {model.scheme}", unit=UNIT),
        leaf("weights that share a word", -packed, "a word of packed values counts as one element", unit=UNIT),
    ]
    return [line for line in lines if line.value]


def _elements(blocks: list[Block], role: str, *, duplicate: bool = False) -> int:
    return sum(
        block.count * tensor.copies * tensor.elements
        for block in blocks
        for tensor in block.tensors
        if tensor.role == role and (tensor.part == "duplicate") == duplicate
    )


def _writer_dependent(model: Model) -> list[Term]:
    """Lines that a configuration doesn't decide: a tied table written again, masks that older versions saved."""
    lines = [
        leaf(
            f"{tensor.name} stored again",
            block.count * tensor.elements,
            "tied to " + tensor.tied_to + ", and written all the same",
            unit=UNIT,
        )
        for block in model.blocks
        for tensor in block.tensors
        if tensor.tied_to and tensor.elements > tensor.shape[-1]
    ]
    lines.sort(key=lambda line: "head" not in line.name)
    lines += _predicting_layers(model)
    layers = _attention_layers(model)
    if layers and model.context:
        masks = f"{layers} layers × {model.context:,}² truth values, saved by transformers before 4.30"
        lines.append(leaf("causal masks", layers * model.context**2, masks, unit=UNIT))
        lines.append(leaf("position ids", model.context, f"0 … {model.context - 1:,}", unit=UNIT))
    return lines


def _predicting_layers(model: Model) -> list[Term]:
    """One multi-token prediction layer of each kind that the model has: the layer, 2·hidden² and three norms.

    For configurations that don't mention the layer, or whose layer differs from what they say.
    """
    width = 2 * model.hidden**2 + 3 * model.hidden
    amounts = {
        (block.parameters + _elements([block], "buffer")) // block.count + width: block.name
        for block in model.blocks
        if block.layers
        and block.stack == "text"
        and any(isinstance(m, Attention | LatentAttention) for m in block.mixers)
    }
    return [
        leaf("multi-token prediction", amount, f"one {name} + 2·{model.hidden:,}² + 3·{model.hidden:,}", unit=UNIT)
        for amount, name in amounts.items()
    ]


def _attention_layers(model: Model) -> int:
    return sum(
        len(block.layers)
        for block in model.blocks
        if block.stack != "mtp" and any(isinstance(mixer, Attention) for mixer in block.mixers)
    )


def _rotary(model: Model, left: int) -> Term | None:
    """A rest that is the rotary frequencies of every layer: layers × n, n at most half a head."""
    layers = _attention_layers(model)
    heads = [mixer.head_dim for block in model.blocks for mixer in block.mixers if isinstance(mixer, Attention)]
    if left <= 0 or not layers or left % layers or left // layers > max(heads, default=0) // 2:
        return None
    return leaf("rotary frequencies", left, f"{layers} layers × {left // layers}, saved by older versions", unit=UNIT)
