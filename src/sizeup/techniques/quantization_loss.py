"""What a quantization costs in quality: the divergence it causes from the unquantized model's predictions."""

from __future__ import annotations

#: Mean Kullback-Leibler divergence (nats a token) from the fp16 model, Llama-3-8B on wikitext-2, with an importance
#: matrix where one is usual. Source: llama.cpp tools/perplexity/README.md, "LLaMA 3 8b Scoreboard" (revision f364eb6f).
DIVERGENCE = {
    "F32": 0.0, "BF16": 0.0, "F16": 0.0006, "Q8_0": 0.0014, "Q6_K": 0.0055, "Q5_K_M": 0.0108, "Q5_K_S": 0.0166,
    "Q5_1": 0.0180, "Q5_0": 0.0222, "Q4_K_M": 0.0282, "Q4_K_S": 0.0320, "IQ4_NL": 0.0357, "IQ4_XS": 0.0363,
    "Q4_1": 0.0717, "Q4_0": 0.0719, "Q3_K_L": 0.0731, "Q3_K_M": 0.0844, "IQ3_M": 0.1025, "IQ3_S": 0.1113,
    "IQ3_XS": 0.1387, "IQ3_XXS": 0.1836, "Q3_K_S": 0.1998, "IQ2_M": 0.3260, "Q2_K": 0.3322,
}  # fmt: skip
REFERENCE_PARAMETERS = 8.03e9
#: Larger models lose less. An assumption, not a measurement: divergence ∝ parameters^-0.25.
SIZE_EXPONENT = 0.25


def divergence(format_: str, parameters: int) -> float | None:
    """Expected divergence in nats a token for a model of that many parameters; None when nobody measured the format.

    DIVERGENCE[format] · (8.03e9 / parameters)^0.25. Known error: measured on one model; expect a factor of 2.
    """
    measured = DIVERGENCE.get(format_.upper())
    return None if measured is None else measured * (REFERENCE_PARAMETERS / max(parameters, 1)) ** SIZE_EXPONENT
