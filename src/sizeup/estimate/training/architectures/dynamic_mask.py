"""Doge's mask: a number for each key, made of its value, that every query's scores get; it trains.

Source: transformers 5.23, `models/doge/modeling_doge.py`. Only beyond `keep_window_size` keys are any left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sizeup.estimate.training.basic import cast, multiply, pointwise, same_size, spread
from sizeup.estimate.training.tape import Value

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer


def dynamic_mask(layer: Layer, values: Value, window: int) -> Value:
    """exp(A · softplus(dt(values))) of every key head, masked, repeated for the query heads."""
    build, shape = layer.build, layer.shape
    tape, s = build.tape, build.sequence
    straight = Value(values.n, values.item, values.storage, values.node, values.slot, values.needs)
    dt = build.linear(
        "self_attn.dt_proj", straight, shape.kv_heads * shape.head_dim, shape.kv_heads, bias=shape.qkv_bias
    )
    wide = cast(tape, dt, 4) if tape.autocast else dt
    product = multiply(tape, build.weight("self_attn.A", shape.kv_heads), pointwise(tape, wide))
    numbers = pointwise(tape, cast(tape, product, 4) if tape.autocast else product, keeps_output=True)
    pairs = shape.kv_heads * build.tokens * s
    booleans = layer.mask is None or layer.mask.item == 1
    least = tape.value(build.tokens * s, build.method.item) if booleans else layer.mask
    hidden = tape.value(build.tokens * s, 1)
    seen = Value(pairs, numbers.item, numbers.storage)
    few = numbers.n
    tape.record((numbers,), (seen,), lambda g: (tape.value(few, g.item),))
    masked = tape.result(pairs, numbers.item, (seen,), same_size(tape, hidden.storage))
    del least, hidden
    if s > window:
        active = tape.value(pairs, build.method.item)
        best = tape.value(window * pairs // s, masked.item)
        places = tape.value(window * pairs // s, 8)
        del best
        marked = tape.value(pairs, build.method.item)
        del active
        outside = tape.value(pairs, 1)
        masked = tape.result(pairs, masked.item, (masked,), same_size(tape, outside.storage))
        del marked, outside, places
    groups = shape.head_count // shape.kv_heads
    return spread(tape, masked, pairs * groups) if groups > 1 else masked
