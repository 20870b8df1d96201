"""Which formats are worth trying for a model, from the largest to the smallest, with the bits they usually take."""

from __future__ import annotations

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


def loss_of(model: Model, format_: str) -> float:
    """Divergence in nats a token of a format for a model; 0 in the format it was trained in, 0.12 when nobody knows."""
    if is_native_mxfp4(model):
        return 0.0
    found = divergence(format_, model.parameters)
    return 0.12 if found is None else found
