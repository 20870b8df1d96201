"""Which formats are worth trying for a model, from the largest to the smallest, with the bits they usually take."""

from __future__ import annotations

import msgspec

from sizeup.measure.quality.measured import UNQUANTIZED, divergence_measured
from sizeup.models.model import Model
from sizeup.techniques.quantization_loss import divergence

#: (format, bits per weight of a whole model: Llama-3.1-8B's, from llama.cpp's table of quantizations).
WORTH_RUNNING = (
    ("Q8_0", 8.50), ("Q6_K", 6.56), ("Q5_K_M", 5.70), ("Q4_K_M", 4.89), ("IQ4_XS", 4.46), ("Q3_K_M", 4.00),
    ("IQ3_XXS", 3.25),
)  # fmt: skip
#: Trained in four bits: any other format is larger and no better.
_NATIVE_MXFP4 = (("MXFP4_MOE", 4.60),)


def is_native_mxfp4(model: Model) -> bool:
    """Whether a model's experts were trained in MXFP4 (gpt-oss)."""
    return model.family == "gpt_oss" or (model.scheme or "").startswith("mxfp4")


def formats_for(model: Model) -> tuple[tuple[str, float], ...]:
    """The formats worth trying."""
    return _NATIVE_MXFP4 if is_native_mxfp4(model) else WORTH_RUNNING


class FormatLoss(msgspec.Struct, frozen=True):
    """What a format costs: divergence from the unquantized model, nats a token.

    evidence: `measured here` (this model, by `sizeup eval`), `published` (another model's, scaled by size), `none`
    (nothing is lost in the format a model was trained in), or `assumed` (nobody measured the format).
    """

    divergence: float
    evidence: str
    because: str


#: Taken for formats that nobody measured: about that of three bits.
UNKNOWN_DIVERGENCE = 0.12


def loss_of(model: Model, format_: str) -> FormatLoss:
    """What a format costs a model: measured here, else by the published curve."""
    if is_native_mxfp4(model):
        return FormatLoss(0.0, "none", "the format it was trained in")
    if format_ in {"", *UNQUANTIZED}:
        return FormatLoss(0.0, "none", "not quantized")
    here = divergence_measured(model.name, format_)
    if here:
        because = f"{here.nats:.3g} nats a token on {here.tokens:,} tokens of {here.text}, measured here ({here.date})"
        return FormatLoss(here.nats, "measured here", because)
    found = divergence(format_, model.parameters)
    if found is None:
        return FormatLoss(UNKNOWN_DIVERGENCE, "assumed", f"nobody measured {format_}")
    return FormatLoss(found, "published", f"{found:.3g} nats a token: Llama-3-8B's, scaled by size")
