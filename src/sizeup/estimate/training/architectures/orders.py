"""The orders in which norms, halves and residuals of a layer follow each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sizeup.estimate.training.architectures.axk2 import gated_norm
from sizeup.estimate.training.architectures.falcon_h1 import falcon_h1
from sizeup.estimate.training.architectures.feed_forward import plain_down, plain_up
from sizeup.estimate.training.architectures.gemma3n import gemma3n_order
from sizeup.estimate.training.architectures.gemma4 import gemma4_order
from sizeup.estimate.training.architectures.scan_orders import single
from sizeup.estimate.training.architectures.zamba import zamba
from sizeup.estimate.training.basic import add, dropout, multiply, scale
from sizeup.estimate.training.tape import MLP, Value

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer


def _pre(layer: Layer, x: Value) -> Value:
    residual = x
    x = layer.norm("input_layernorm", x)
    x = layer.attention(x)
    x = layer.residual(residual, x)
    residual = x
    x = layer.norm("post_attention_layernorm", x)
    x = layer.feed_forward(x)
    return layer.residual(residual, x)


def _inlined(layer: Layer, x: Value) -> Value:
    """`pre`, but the layer itself has the feed-forward's lines: the norm's output goes before the activation (OPT)."""
    build, shape = layer.build, layer.shape
    x = layer.residual(x, layer.attention(layer.norm("input_layernorm", x)))
    residual, before, build.tape.label = x, build.tape.label, MLP
    x = plain_down(build, shape, plain_up(build, shape, layer.norm("post_attention_layernorm", x)))
    build.tape.label = before
    return layer.residual(residual, x)


def _normed(layer: Layer, x: Value) -> Value:
    """`pre`, but the first norm's output keeps its name until the layer returns (RecurrentGemma)."""
    normed = layer.norm("input_layernorm", x)
    x = layer.residual(x, layer.attention(normed))
    return layer.residual(x, layer.feed_forward(layer.norm("post_attention_layernorm", x)))


def _post(layer: Layer, x: Value) -> Value:
    residual = x
    x = layer.attention(x)
    x = layer.norm("post_attention_layernorm", x)
    x = layer.residual(residual, x)
    residual = x
    x = layer.feed_forward(x)
    x = layer.norm("post_feedforward_layernorm", x)
    return layer.residual(residual, x)


def _sandwich(layer: Layer, x: Value) -> Value:
    residual = x
    x = layer.norm("input_layernorm", x)
    x = layer.attention(x)
    x = layer.norm("post_attention_layernorm", x)
    x = layer.residual(residual, x)
    residual = x
    x = layer.norm("pre_feedforward_layernorm", x)
    x = layer.feed_forward(x)
    x = layer.norm("post_feedforward_layernorm", x)
    return layer.residual(residual, x)


def _weighed(layer: Layer, x: Value) -> Value:
    """`pre`, but the stream is weighed by channel where a half is added to it (Doge)."""
    for half, norm_name, weight in (
        (layer.attention, "input_layernorm", "input_residual"),
        (layer.feed_forward, "post_attention_layernorm", "post_attention_residual"),
    ):
        branch = half(layer.norm(norm_name, x))
        residual = multiply(layer.build.tape, layer.build.weight(weight, layer.shape.hidden), x)
        x = layer.residual(residual, branch)
        del branch, residual
    return x


def _after(layer: Layer, x: Value) -> Value:
    """A norm of the stream and each half's sum (GPT)."""
    layer.build.frozen("attn.bias", layer.shape.triangle**2, item=2 if layer.build.method.four_bit else 0)
    attended = layer.attention(x)
    x = layer.norm("ln_1", add(layer.build.tape, x, attended))
    fed = layer.feed_forward(x)
    return layer.norm("ln_2", add(layer.build.tape, x, fed))


def _gated(layer: Layer, x: Value) -> Value:
    """`pre`, with a gate of low rank on its norms (A.X K2)."""
    x = layer.residual(x, layer.attention(gated_norm(layer, "input_layernorm", x)))
    name = "post_attention_layernorm"
    normed = gated_norm(layer, name, x) if layer.sparse else layer.norm(name, x)
    return layer.residual(x, layer.feed_forward(normed))


def _double(layer: Layer, x: Value) -> Value:
    """Attention and feed-forward twice; the experts see the first one's input and are added last (LongCat)."""
    first, tape = layer.scope, layer.build.tape
    x = layer.residual(x, layer.attention(layer.norm("input_layernorm", x)))
    residual, x = x, layer.norm("post_attention_layernorm", x)
    routed = layer.feed_forward(x)
    x = add(tape, residual, layer.dense(x))
    layer.build.scope = f"{first}second/"
    x = layer.residual(x, layer.attention(layer.norm("input_layernorm", x)))
    residual, x = x, layer.norm("post_attention_layernorm", x)
    return add(tape, add(tape, residual, layer.dense(x)), routed)


def _bare(layer: Layer, x: Value) -> Value:
    """`pre` without the first norm."""
    x = layer.residual(x, layer.attention(x))
    return layer.residual(x, layer.feed_forward(layer.norm("post_attention_layernorm", x)))


def _fed(layer: Layer, x: Value) -> Value:
    """Only the second half (a search left the first out)."""
    return layer.residual(x, layer.feed_forward(layer.norm("post_attention_layernorm", x)))


def _attended(layer: Layer, x: Value) -> Value:
    """Only the first half."""
    return layer.residual(x, layer.attention(layer.norm("input_layernorm", x)))


def _passed(_layer: Layer, x: Value) -> Value:
    """Neither."""
    return x


def _parallel(layer: Layer, x: Value) -> Value:
    residual = x
    x = layer.norm("input_layernorm", x)
    attended = layer.attention(x)
    fed = layer.feed_forward(x)
    return layer.residual(layer.residual(residual, attended), fed)


def _named(layer: Layer, x: Value) -> Value:
    """`pre`, but each half's output has a name of its own until the layer returns (GPT-2)."""
    residual = x
    attended = layer.attention(layer.norm("input_layernorm", x))
    x = residual = layer.build.add(attended, residual)
    x = layer.norm("post_attention_layernorm", x)
    fed = layer.feed_forward(x)
    return layer.build.add(residual, fed)


def _kept(layer: Layer, x: Value) -> Value:
    """`pre`, but the first norm's and the attention's output keep their names until the layer returns (StableLM)."""
    normed = layer.norm("input_layernorm", x)
    attended = layer.attention(normed)
    x = layer.build.add(x, attended)
    fed = layer.feed_forward(layer.norm("post_attention_layernorm", x))
    return layer.residual(x, fed)


def _parallel_sum(layer: Layer, x: Value) -> Value:
    """Both halves of one norm are added first, then the stream."""
    normed = layer.norm("input_layernorm", x)
    attended = layer.attention(normed)
    fed = layer.feed_forward(normed)
    return add(layer.build.tape, add(layer.build.tape, attended, fed), x)


def _bloom(layer: Layer, x: Value) -> Value:
    """`pre`, but each half adds the stream itself, before its names are gone."""
    normed = layer.norm("input_layernorm", x)
    attended = layer.attention(normed)
    x = layer.residual(x, attended)
    layer.names.clear()
    del attended
    normed = layer.norm("post_attention_layernorm", x)
    return layer.residual(x, layer.feed_forward(normed))


def _mpt(layer: Layer, x: Value) -> Value:
    """`pre`, but the first half's output and weights keep names until the layer returns, each norm's until the next."""
    normed = layer.norm("input_layernorm", x)
    attended = layer.attention(normed)
    x = layer.residual(x, attended)
    normed = layer.norm("post_attention_layernorm", x)
    x = layer.residual(x, layer.feed_forward(normed))
    layer.names.clear()
    return x


def _falcon(layer: Layer, x: Value) -> Value:
    """Both halves of one norm or of two; the second is added to in place."""
    normed = beside = layer.norm("input_layernorm", x)
    if layer.shape.order == "falcon2":
        beside = layer.norm("ln_mlp", x)
    attended = layer.attention(normed)
    fed = layer.feed_forward(beside)
    both = Value(fed.n, fed.item, fed.storage)
    layer.build.tape.record((fed, attended), (both,), lambda g: (g, g))
    return layer.residual(x, both)


def _scaled(layer: Layer, x: Value) -> Value:
    """The stream goes on from the norms; it and each half are multiplied before they are added (MiniMax)."""
    tape = layer.build.tape
    x = residual = layer.norm("input_layernorm", x)
    x = layer.attention(x)
    x = add(tape, scale(tape, residual), scale(tape, x))
    x = residual = layer.norm("post_attention_layernorm", x)
    x = layer.feed_forward(x)
    return add(tape, scale(tape, residual), scale(tape, x))


def _parallel2(layer: Layer, x: Value) -> Value:
    attended = layer.attention(layer.norm("input_layernorm", x))
    tape, p = layer.build.tape, layer.shape.residual_dropout
    attended = dropout(tape, attended, p)
    fed = layer.feed_forward(layer.norm("post_attention_layernorm", x))
    fed = dropout(tape, fed, p)
    return add(tape, add(tape, fed, attended), x)


#: By the name that a shape gives; each takes the layer and the stream, and returns the next.
ORDERS: dict[str, Callable[[Layer, Value], Value]] = {
    "pre": _pre, "inlined": _inlined, "post": _post, "sandwich": _sandwich, "named": _named, "kept": _kept,
    "normed": _normed, "bloom": _bloom, "mpt": _mpt, "parallel": _parallel,
    "parallel2": _parallel2, "parallel_sum": _parallel_sum, "gemma4": gemma4_order, "gemma3n": gemma3n_order,
    "weighed": _weighed, "bare": _bare, "fed": _fed, "attended": _attended,
    "passed": _passed,
    "after": _after, "scaled": _scaled, "gated": _gated, "double": _double, "falcon": _falcon,
    "falcon2": _falcon, "single": single, "falcon_h1": falcon_h1, "zamba": zamba,
}  # fmt: skip
