"""Scaling laws: what loss to expect of so many parameters, tokens and FLOPs, each with its source and where it holds.

    Kaplan 2020     L(N) = (Nc / N)^0.076   L(D) = (Dc / D)^0.095   L(C) = (Cc / C)^0.050      nats a token, WebText2
    Hoffmann 2022   L(N, D) = E + A / N^α + B / D^β                                            nats a token, MassiveText
    Besiroglu 2024  the same form, fitted again to Hoffmann's own points

A loss is comparable only with losses under the same law: tokenizers and texts differ.
"""

from __future__ import annotations

import math

import msgspec

from sizeup.errors import BadInput

#: arXiv 2001.08361, equations 1.1 to 1.3: N without embeddings; C in PF-days at the efficient frontier.
KAPLAN_N, KAPLAN_ALPHA_N = 8.8e13, 0.076
KAPLAN_D, KAPLAN_ALPHA_D = 5.4e13, 0.095
KAPLAN_C, KAPLAN_ALPHA_C = 3.1e8, 0.050
KAPLAN_SOURCE = "Kaplan et al. 2020, arXiv 2001.08361"
_PF_DAY = 1e15 * 86400
#: FLOPs of a training step for each parameter and token: 2 forward, 4 backward.
FLOPS_PER_PARAMETER_TOKEN = 6
#: Tokens for each parameter of Hoffmann's approaches 1 and 2.
TOKENS_PER_PARAMETER = 20


class ParametricLaw(msgspec.Struct, frozen=True):
    """L(N, D) = irreducible + a / N^alpha + b / D^beta. least, most: parameters it was fitted on."""

    name: str
    source: str
    irreducible: float
    a: float
    b: float
    alpha: float
    beta: float
    least: float
    most: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Predicted loss in nats a token."""
        return float(self.irreducible + self.a / parameters**self.alpha + self.b / tokens**self.beta)

    def optimal_parameters(self, flops: float) -> float:
        """N that gives the least loss for C = 6·N·D FLOPs: G · (C/6)^(β/(α+β)), G = (αA / βB)^(1/(α+β))."""
        both = self.alpha + self.beta
        scale = (self.alpha * self.a / (self.beta * self.b)) ** (1 / both)
        return float(scale * (flops / FLOPS_PER_PARAMETER_TOKEN) ** (self.beta / both))

    def optimal_tokens(self, flops: float) -> float:
        """D that goes with `optimal_parameters`: C / (6 N)."""
        return flops / (FLOPS_PER_PARAMETER_TOKEN * self.optimal_parameters(flops))

    def holds_for(self, parameters: float) -> bool:
        """Whether the law was fitted on models of such a size."""
        return self.least <= parameters <= self.most


HOFFMANN = ParametricLaw(
    "Hoffmann 2022", "arXiv 2203.15556, equation 10 (approach 3)", 1.69, 406.4, 410.7, 0.34, 0.28, 7e7, 1.6e10
)
BESIROGLU = ParametricLaw(
    "Besiroglu 2024", "arXiv 2404.10102, equation 6", 1.8172, 482.01, 2085.43, 0.3478, 0.3658, 7e7, 1.6e10
)
LAWS = (BESIROGLU, HOFFMANN)


def kaplan_loss_of_parameters(parameters: float) -> float:
    """(Nc / N)^αN: data and compute without limit, N without embeddings; held for 768 to 1.5·10⁹."""
    return float((KAPLAN_N / _positive(parameters)) ** KAPLAN_ALPHA_N)


def kaplan_loss_of_tokens(tokens: float) -> float:
    """(Dc / D)^αD: large models, stopped early; held for 2·10⁷ to 2.3·10¹⁰ tokens."""
    return float((KAPLAN_D / _positive(tokens)) ** KAPLAN_ALPHA_D)


def kaplan_loss_of_compute(flops: float) -> float:
    """(Cc / C)^αC with compute spent as the paper found best; held up to about 10 PF-days."""
    return float((KAPLAN_C / (_positive(flops) / _PF_DAY)) ** KAPLAN_ALPHA_C)


def training_flops(parameters: float, tokens: float) -> float:
    """6 · N · D: attention's share left out, which is a few per cent below 8k tokens of context."""
    return FLOPS_PER_PARAMETER_TOKEN * parameters * tokens


def growth_for_loss(improvement: float, exponent: float) -> float:
    """How many times the parameters (tokens, FLOPs) a loss lower by a share takes: (1 - improvement)^(-1/exponent).

    0.1 at 0.076 gives 4.0: L falls to 0.9 L. It is not 10^(1/0.076), which would be a loss ten times lower.
    """
    if not 0 < improvement < 1:
        raise BadInput(f"an improvement of {improvement}", hint="a share between 0 and 1, such as 0.1")
    return math.exp(-math.log(1 - improvement) / exponent)


def _positive(count: float) -> float:
    if count <= 0:
        raise BadInput(f"{count} is not a positive number", hint="give parameters, tokens or FLOPs above 0")
    return count
