"""Popular rules of thumb, computed just as they are told, beside the exact figure and what they miss."""

from __future__ import annotations

import msgspec

from sizeup.estimate.memory_of_context import cache_term
from sizeup.models.mixers import Attention, LatentAttention
from sizeup.models.model import Model
from sizeup.quantity.units import format_tokens


class Rule(msgspec.Struct, frozen=True):
    """One rule.

    value: what the rule gives. exact: what it stands for, computed from the tensors.
    error: value / exact - 1; None when exact is 0 (a model without attention has no KV cache to be wrong about).
    formula: the rule in symbols. misses: what it leaves out, for this model.
    """

    name: str
    formula: str
    unit: str
    value: int
    exact: int
    error: float | None
    misses: str


def rules_of(model: Model, context: int) -> tuple[Rule, ...]:
    """Every rule for one model, with the cache in fp16 at `context` tokens."""
    weights = 2 * model.parameters
    cache = int(cache_term(model, context).value)
    return (
        _rule("2 bytes a parameter", "2·P", "bytes", 2 * model.parameters, weights + cache, _misses_cache(context)),
        _rule("weights × 1.2", "1.2·2·P", "bytes", round(2.4 * model.parameters), weights + cache,
              "a fixed share can't follow the context: the cache grows with it, the weights don't"),
        *_parameter_rules(model),
        _rule("KV cache = 2·L·d·context", "2·L·d·context·2 bytes", "bytes", 4 * model.layers * model.hidden * context,
              cache, _misses_of_cache(model)),
        *_adam_rules(model),
        _blog_rule(model),
    )  # fmt: skip


def _rule(name: str, formula: str, unit: str, value: int, exact: int, misses: str) -> Rule:
    return Rule(name, formula, unit, value, exact, value / exact - 1 if exact else None, misses)


def _misses_cache(context: int) -> str:
    return f"the KV cache at {format_tokens(context)} tokens, which is as real as the weights"


def _parameter_rules(model: Model) -> tuple[Rule, ...]:
    layers, hidden = model.layers, model.hidden
    body = 12 * layers * hidden**2
    missing = "the embedding tables; " + _shape_of_feed_forward(model)
    return (
        _rule("12·L·d² parameters", "12·L·d²", "parameters", body, model.parameters, missing),
        _rule("12·L·d² + V·d parameters", "12·L·d² + V·d", "parameters", body + model.vocabulary * hidden,
              model.parameters, _shape_of_feed_forward(model)),
    )  # fmt: skip


def _shape_of_feed_forward(model: Model) -> str:
    forwards = [block.feed_forward for block in model.blocks if block.feed_forward and block.stack != "mtp"]
    if any(forward.experts for forward in forwards):
        count = max(forward.experts for forward in forwards)
        return f"{count} experts in a mixture layer: the rule knows one feed-forward of width 4·d"
    if any(forward.gated for forward in forwards):
        return "a gated feed-forward has three matrices and grouped heads shrink keys and values"
    return "biases, norms and position tables"


def _misses_of_cache(model: Model) -> str:
    mixers = [mixer for block in model.blocks for mixer in block.mixers]
    latent = next((m for m in mixers if isinstance(m, LatentAttention)), None)
    if latent:
        full = latent.heads * (latent.head_dim + latent.value_dim)
        return f"latent attention keeps {latent.latent_elements} elements a token and layer, not {full:,} for all heads"
    attention = [m for m in mixers if isinstance(m, Attention) and not m.cross]
    if not attention:
        return "no layer keeps keys and values: the state has a fixed size"
    seen = []
    if any(m.window for m in attention):
        seen.append(f"sliding windows of {min(m.window for m in attention if m.window):,} tokens")
    if any(m.kv_heads < m.heads for m in attention):
        grouped = next(m for m in attention if m.kv_heads < m.heads)
        seen.append(f"grouped heads ({grouped.kv_heads} of {grouped.heads} keep keys and values)")
    if len(attention) < len(mixers):
        seen.append("layers without a cache")
    if any(m.heads * m.head_dim != model.hidden for m in attention):
        seen.append("heads whose size isn't d / heads")
    return "; ".join(seen) or "nothing: full attention with as many key heads as query heads"


def _adam_rules(model: Model) -> tuple[Rule, ...]:
    """Adam in mixed precision: 4 (fp32 weights) + 4 (gradients) + 8 (two moments) bytes a parameter; 2 for a copy."""
    static = 16 * model.parameters
    why = (
        "16 is right for what stays (fp32 weights, gradients, two moments); activations come on top and often dominate"
    )
    return (
        _rule("Adam: 16 bytes a parameter", "16·P", "bytes", 16 * model.parameters, static, why),
        _rule("Adam: 18 bytes a parameter", "18·P", "bytes", 18 * model.parameters, static,
              "counts a 16-bit copy of the weights, which autocast makes and frees layer by layer; no activations"),
    )  # fmt: skip


def _blog_rule(model: Model) -> Rule:
    """The widely copied breakdown: V·d twice, heads·d·(d/heads) a layer for attention, 2·d² for the feed-forward.

    Its own example (d 512, 12 layers, 8 heads, V 50,000) prints 61,423,616 parameters with 3,932,160 for attention,
    where its formula gives 3,145,728; so even the example doesn't follow the rule.
    """
    hidden = model.hidden
    value = 2 * model.vocabulary * hidden + model.layers * (hidden**2 + 2 * hidden**2)
    misses = "attention has four matrices (q, k, v, o), not one; a feed-forward is 8·d² or 3·d·width, not 2·d²"
    if (hidden, model.layers, model.vocabulary) == (512, 12, 50_000):
        misses += (
            "; for this shape the blog prints 61,423,616, of which 3,932,160 for attention where its formula gives "
            "3,145,728, so fp32 weights of 234 MiB, Adam twice that, 952 MB with activations"
        )
    return _rule("blog breakdown", "2·V·d + L·(d² + 2·d²)", "parameters", value, model.parameters, misses)
