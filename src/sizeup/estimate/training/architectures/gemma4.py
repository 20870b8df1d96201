"""What Gemma 4 adds to Gemma 3: keys and values shared by layers, an embedding for every layer, experts beside the MLP.

Source: transformers 5.23, `models/gemma4/modeling_gemma4.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.architectures.experts import Mixture, picked, routed
from sizeup.estimate.training.architectures.layer_norms import norm
from sizeup.estimate.training.basic import add, cast, cut, gathered, heads, multiply, pointwise, scale, scale_in_place
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.norms import rms_norm
from sizeup.estimate.training.tape import EMBEDDING, EXPERTS, MLP, Value

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer
    from sizeup.estimate.training.architectures.shape import DecoderShape


def layer_embeddings(build: Build, shape: DecoderShape, x: Value) -> Value:
    """The embeddings of every layer in one tensor: those of the tokens, and a projection of the stream's, normed."""
    tape = build.tape
    before, tape.label = tape.label, EMBEDDING
    width = shape.layers * shape.layer_width
    own = scale(tape, build.embedding("embed_tokens_per_layer", shape.layer_rows, width, build.tokens))
    projected = build.linear("per_layer_model_projection", x, shape.hidden, width)
    projected = scale(tape, projected) if shape.streams is None else scale_in_place(tape, projected)
    projected = norm(build, shape, "per_layer_projection_norm", projected, shape.layer_width)
    found = scale(tape, add(tape, projected, own))
    tape.label = before
    return found


def projections(layer: Layer, x: Value) -> tuple[Value, Value, Value]:
    """Queries, keys and values, normed and turned; a layer that reuses takes the keys and values of an earlier one."""
    build, shape = layer.build, layer.shape
    q = projected(layer, "q_proj", x, shape.head_count * shape.head_dim)
    q = layer.turned(layer.norm("q_norm", q, shape.head_dim))
    if shape.caches == "reuse":
        k, v = layer.given
        return q, k, v
    small = shape.kv_heads * shape.head_dim
    k = projected(layer, "k_proj", x, small)
    v = k if shape.same_values else projected(layer, "v_proj", x, small)
    k = layer.turned(layer.norm("k_norm", k, shape.head_dim))
    v = rms_norm(build.tape, v, None, shape.head_dim, power=True)
    if shape.caches == "store":
        layer.made.values[:] = [k, v]
    return q, k, v


def projected(layer: Layer, name: str, x: Value, width: int) -> Value:
    """A projection seen as heads."""
    build, shape = layer.build, layer.shape
    return heads(build.tape, build.linear(f"self_attn.{name}", x, shape.hidden, width, bias=shape.qkv_bias))


def gemma4_order(layer: Layer, x: Value) -> Value:
    """Norms around both halves, experts beside the second, then the layer's own embedding, and a number."""
    tape = layer.build.tape
    x = add(tape, x, layer.norm("post_attention_layernorm", layer.attention(layer.norm("input_layernorm", x))))
    fed = layer.dense(layer.norm("pre_feedforward_layernorm", x))
    if layer.sparse and layer.shape.mixture is not None:
        fed = beside_experts(layer, x, fed, layer.shape.mixture)
    x = add(tape, x, layer.norm("post_feedforward_layernorm", fed))
    del fed
    if layer.slice is not None:
        x = add(tape, x, with_embedding(layer, x, layer.slice))
    tape.saved()
    return scale_in_place(tape, x)


def with_embedding(layer: Layer, x: Value, own: Value) -> Value:
    """Norm(up(act(gate(x)) · own)), own: the layer's embeddings."""
    build, shape = layer.build, layer.shape
    tape = build.tape
    before, tape.label = tape.label, MLP
    y = activate(tape, build.linear("per_layer_input_gate", x, shape.hidden, shape.layer_width), shape.activation)
    y = multiply(tape, y, own)
    y = build.linear("per_layer_projection", y, shape.layer_width, shape.hidden)
    tape.label = before
    return layer.norm("post_per_layer_input_norm", y)


def beside_experts(layer: Layer, x: Value, fed: Value, m: Mixture) -> Value:
    """The dense half and the routed experts, each normed, added."""
    tape = layer.build.tape
    first = layer.norm("post_feedforward_layernorm_1", fed)
    before, tape.label = tape.label, EXPERTS
    weights, numbers = route(layer, x, m)
    second = layer.norm("pre_feedforward_layernorm_2", x)
    second = routed(layer.build, second, weights, numbers, layer.shape.hidden, m, layer.shape.activation)
    second = layer.norm("post_feedforward_layernorm_2", second)
    tape.label = before
    return add(tape, first, second)


def route(layer: Layer, x: Value, m: Mixture) -> tuple[Value, Value]:
    """The weights of the chosen experts, and their numbers: a norm, a weight for each channel, a softmax in fp32."""
    build, hidden = layer.build, layer.shape.hidden
    tape = build.tape
    y = rms_norm(tape, x, None, hidden, power=True)
    y = scale(tape, multiply(tape, y, build.weight("router.scale", hidden)))
    logits = build.linear("router.proj", y, hidden, m.experts)
    scores = pointwise(tape, cast(tape, logits, 4), keeps_output=True)
    n = build.tokens * m.chosen
    numbers = tape.value(n, 8)
    top = picked(tape, scores, n, numbers)
    total = tape.result(build.tokens, 4, (top,), lambda g: (g,))
    keep = (tape.value(n, 4).storage, total.storage)
    shared = Value(n, 4, top.storage)
    tape.record((top, total), (shared,), lambda _g, _keep=keep: (tape.value(n, 4), tape.value(n, 4)))
    of_each = gathered(tape, build.weight("router.per_expert_scale", m.experts), n)
    return multiply(tape, shared, of_each), numbers


def layer_slice(build: Build, shape: DecoderShape, whole: Value) -> Value:
    """A layer's part of the embeddings of every layer."""
    return cut(build.tape, whole, build.tokens * shape.layer_width)
