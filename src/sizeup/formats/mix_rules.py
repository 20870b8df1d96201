"""Which type a llama.cpp mix gives to which kind of tensor: the rules of `llama-quantize`, as tables.

A mix has a default type. For each kind of tensor (kind_of) a rule may answer another one, depending on the layer, the
heads, the experts and whether there is an importance matrix. Rows that don't fit are dealt with afterwards.

Source: src/llama-quant.cpp, llama.cpp 0c1e570 (October 2026).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

# Mix → the type of most of its matrices.
DEFAULTS = {
    "F32": "F32", "F16": "F16", "BF16": "BF16",
    "Q8_0": "Q8_0", "Q5_1": "Q5_1", "Q5_0": "Q5_0", "Q4_1": "Q4_1", "Q4_0": "Q4_0", "Q2_0": "Q2_0", "Q1_0": "Q1_0",
    "Q6_K": "Q6_K", "Q5_K_M": "Q5_K", "Q5_K_S": "Q5_K", "Q4_K_M": "Q4_K", "Q4_K_S": "Q4_K",
    "Q3_K_L": "Q3_K", "Q3_K_M": "Q3_K", "Q3_K_S": "Q3_K", "Q2_K": "Q2_K", "Q2_K_S": "Q2_K",
    "IQ4_XS": "IQ4_XS", "IQ4_NL": "IQ4_NL", "IQ3_M": "IQ3_S", "IQ3_S": "IQ3_S", "IQ3_XS": "IQ3_S",
    "IQ3_XXS": "IQ3_XXS", "IQ2_M": "IQ2_S", "IQ2_S": "IQ2_XS", "IQ2_XS": "IQ2_XS", "IQ2_XXS": "IQ2_XXS",
    "IQ1_M": "IQ1_M", "IQ1_S": "IQ1_S", "TQ2_0": "TQ2_0", "TQ1_0": "TQ1_0",
    "MXFP4_MOE": "MXFP4", "NVFP4": "NVFP4",
}  # fmt: skip

# The lowest mixes have rules of their own; the better of them store their exceptions as IQ3_S, the others as Q2_K.
LOWEST = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M"})
_LOWEST_EXCEPTION = {"IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S"}

# Mixes that llama-quantize refuses to make without an importance matrix.
NEEDS_IMATRIX = LOWEST | {"IQ3_XXS", "IQ3_XS", "Q2_K_S"}


class Spot(msgspec.Struct, frozen=True):
    """What a rule may know about the tensor in hand.

    default: the mix's default type. experts_merged: a 3-D tensor of several experts.
    nth, of: its place among the tensors of its kind, and how many there are (attention) or blocks (ffn).
    layer: the same place for models without experts, else the layer number.
    grouping: heads / KV heads of the first layer; experts: routed experts, 0 for a dense model.
    seventy: an 80-layer model with grouped heads, which llama.cpp calls 70B.
    """

    mix: str
    default: str
    architecture: str
    nth: int
    of: int
    layer: int
    grouping: int
    experts: int
    imatrix: bool
    seventy: bool
    experts_merged: bool

    @property
    def grouped(self) -> bool:
        """Four or more heads share a KV head."""
        return self.grouping >= 4

    @property
    def mixtral(self) -> bool:
        """Exactly eight experts: the rules made for Mixtral 8x7B."""
        return self.experts == 8

    @property
    def falcon(self) -> bool:
        """The architecture with exceptions to most rules."""
        return self.architecture == "falcon"

    def in_first(self, fraction: int) -> bool:
        """In the first 1/fraction of the layers."""
        return self.layer < self.of // fraction

    @property
    def middle(self) -> bool:
        """In neither the first nor the last eighth of the layers."""
        return self.of // 8 <= self.layer < 7 * self.of // 8


def more_bits(place: int, count: int) -> bool:
    """The first and last eighth of the layers, and every third of the others."""
    eighth = count // 8
    return place < eighth or place >= 7 * count // 8 or (place - eighth) % 3 == 2


Rule = Callable[[Spot], str]


def _always(kind: str) -> Rule:
    return lambda _: kind


def _when(test: Callable[[Spot], bool], kind: str) -> Rule:
    return lambda spot: kind if test(spot) else spot.default


def _attention_more_bits(spot: Spot) -> bool:
    return more_bits(spot.nth, spot.of)


def _layer_more_bits(spot: Spot) -> bool:
    return more_bits(spot.layer, spot.of)


_EMBEDDING: dict[str, str] = {
    "IQ1_S": "Q2_K", "IQ1_M": "Q2_K", "IQ2_XXS": "Q2_K", "IQ2_XS": "Q2_K",
    "IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S", "IQ3_XXS": "IQ3_S",
    "TQ1_0": "Q4_K", "TQ2_0": "Q4_K", "Q2_0": "Q4_K",
}  # fmt: skip

_ATTENTION_V: dict[str, Rule] = {
    "Q2_K": lambda spot: "Q4_K" if spot.grouped else "Q3_K",
    "Q2_K_S": _when(lambda spot: spot.grouped, "Q4_K"),
    "IQ3_XXS": lambda spot: "Q4_K" if spot.grouped else "IQ3_XXS" if spot.imatrix else "IQ3_S",
    "IQ3_XS": _when(lambda spot: spot.grouped, "Q4_K"),
    "IQ3_S": _when(lambda spot: spot.grouped, "Q4_K"),
    "IQ3_M": _always("Q4_K"),
    "Q3_K_M": lambda spot: "Q5_K" if spot.nth < 2 else "Q4_K",
    "Q3_K_L": _always("Q5_K"),
    "IQ4_NL": _when(lambda spot: spot.grouped, "Q5_K"),
    "IQ4_XS": _when(lambda spot: spot.grouped, "Q5_K"),
    "Q4_K_S": _when(lambda spot: spot.nth < 4, "Q5_K"),
    "Q4_K_M": _when(_attention_more_bits, "Q6_K"),
    "Q5_K_M": _when(_attention_more_bits, "Q6_K"),
}

_ATTENTION_QK: dict[str, Rule] = {"IQ3_XS": _always("IQ3_XXS"), "IQ3_XXS": _always("IQ2_S")}

_ATTENTION_OUTPUT: dict[str, Rule] = {
    "Q2_K": _always("Q3_K"),
    "IQ3_XXS": _always("IQ3_S"),
    "Q3_K_M": _always("Q4_K"),
    "Q3_K_L": _always("Q5_K"),
    "IQ3_M": _always("Q4_K"),
}
_ATTENTION_OUTPUT_FALCON: dict[str, Rule] = {"Q3_K_L": _always("Q4_K")}
_ATTENTION_OUTPUT_MIXTRAL: dict[str, Rule] = dict.fromkeys(
    ("Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS"),
    _always("Q5_K"),
)

_FFN_DOWN: dict[str, Rule] = {
    "Q2_K": _always("Q3_K"),
    "Q2_K_S": _when(lambda spot: spot.in_first(8), "Q4_K"),
    "IQ3_XXS": lambda spot: spot.default if spot.imatrix else "Q4_K" if spot.in_first(8) else "Q3_K",
    "Q3_K_M": lambda spot: "Q5_K" if spot.in_first(16) else "Q4_K",
    "IQ3_M": _when(lambda spot: spot.in_first(8) or (spot.mixtral and _layer_more_bits(spot)), "Q4_K"),
    "Q3_K_L": _always("Q5_K"),
    "Q4_K_M": _when(_layer_more_bits, "Q6_K"),
    "IQ4_NL": _when(lambda spot: spot.in_first(8) and not spot.imatrix, "Q5_K"),
    "IQ4_XS": _when(lambda spot: spot.in_first(8) and not spot.imatrix, "Q5_K"),
    "Q5_K_M": _when(_layer_more_bits, "Q6_K"),
    "Q4_K_S": _when(lambda spot: spot.in_first(8), "Q5_K"),
    "Q4_0": _when(lambda spot: spot.in_first(8) and spot.imatrix, "Q4_1"),
    "Q5_0": _when(lambda spot: spot.in_first(8) and spot.imatrix, "Q5_1"),
}
_FFN_DOWN_FALCON: dict[str, Rule] = _FFN_DOWN | {
    "Q3_K_M": lambda spot: "Q5_K" if spot.in_first(16) else "Q4_K" if _layer_more_bits(spot) else "Q3_K",
    "Q3_K_L": _always("Q4_K"),
    "Q4_K_M": lambda spot: "Q6_K" if spot.in_first(16) else "Q5_K" if _layer_more_bits(spot) else "Q4_K",
    "Q4_K_S": _always("Q4_K"),
}

_FFN_UP_GATE: dict[str, Rule] = {"IQ3_XS": _when(lambda spot: spot.middle, "IQ3_XXS")}


def depends_on_place(kind: str, mix: str) -> bool:
    """Whether tensors of this kind may get different types in different layers."""
    return kind in {"attention_v", "ffn_down"} or (mix in _FFN_UP_GATE and kind in {"ffn_up", "ffn_gate"})


def output_type(spot: Spot, row_fits: bool) -> str:
    """The type of the output head, or of an embedding that serves as one.

    row_fits: whether its rows are a whole number of the default type's blocks.
    """
    if spot.mix == "MXFP4_MOE" or spot.falcon or not row_fits:
        return "Q8_0"
    if spot.mix in LOWEST or spot.mix == "IQ3_XXS":
        return "Q5_K"
    return "Q8_0" if spot.default == "Q8_0" else "Q6_K"


def embedding_type(spot: Spot) -> str:
    """The type of an embedding beside which the file has an output head."""
    return "Q8_0" if spot.mix == "MXFP4_MOE" else _EMBEDDING.get(spot.mix, spot.default)


def matrix_type(kind: str, spot: Spot) -> str:
    """The type of any other matrix, before its row length is looked at."""
    if spot.mix == "MXFP4_MOE":
        expert = spot.experts_merged and (spot.architecture != "bailingmoe3" or kind.startswith("ffn_"))
        return "MXFP4" if expert else "Q8_0"
    if spot.mix in LOWEST:
        return _lowest(kind, spot)
    return _usual(kind, spot)


def _lowest(kind: str, spot: Spot) -> str:
    better = _LOWEST_EXCEPTION.get(spot.mix, "Q2_K")
    if kind == "attention_v":
        return "Q4_K" if spot.grouped or spot.experts >= 4 else better
    if kind == "attention_k" and spot.mixtral:
        return "Q4_K"
    if kind == "ffn_down" and spot.nth < spot.of // 8:
        return better
    if kind == "attention_output":
        if spot.mixtral:
            return "Q5_K"
        return {"IQ1_S": "IQ2_XXS", "IQ1_M": "IQ2_XXS", "IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S"}.get(spot.mix, spot.default)
    return spot.default


def _usual(kind: str, spot: Spot) -> str:
    if kind in {"attention_v", "attention_k"} and spot.mixtral:
        return "Q8_0"
    rules = _rules_for(kind, spot)
    chosen = rules[spot.mix](spot) if spot.mix in rules else spot.default
    if kind == "attention_v" and spot.seventy and chosen in {"Q3_K", "Q4_K"}:
        return "Q5_K"
    return chosen


def _rules_for(kind: str, spot: Spot) -> dict[str, Rule]:
    if kind == "attention_output":
        if spot.falcon:
            return _ATTENTION_OUTPUT_FALCON
        return _ATTENTION_OUTPUT_MIXTRAL if spot.mixtral else _ATTENTION_OUTPUT
    if kind == "ffn_down":
        return _FFN_DOWN_FALCON if spot.falcon else _FFN_DOWN
    return {
        "attention_v": _ATTENTION_V,
        "attention_k": _ATTENTION_QK,
        "attention_q": _ATTENTION_QK,
        "ffn_up": _FFN_UP_GATE,
        "ffn_gate": _FFN_UP_GATE,
    }.get(kind, {})
