"""Gemma 3n in llama.cpp's graphs: several residual streams (AltUp), of which a layer computes one and corrects all.

Source: src/models/gemma3n.cpp, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

from sizeup.engines.llamacpp.attention import attention
from sizeup.engines.llamacpp.builder import Builder
from sizeup.engines.llamacpp.graph import Node
from sizeup.engines.llamacpp.layers import Layer, Trunk
from sizeup.models.mixers import Attention

PROJECTION = "altup_proj.weight"
#: The first layers keep only the largest activations (n_layer_sparsity).
SPARSE_LAYERS = 10


def stacked(b: Builder, layers: Trunk, embedded: Node) -> Node:
    """The streams, (hidden, tokens, streams): the embedding, and projections of it brought to its length."""
    g, shape = b.graph, embedded.shape
    others = (*shape, layers.outside[PROJECTION][0])
    length = _length(b, embedded)
    projected = g.op(others, g.op(others, embedded))
    return g.op((*shape, others[2] + 1), embedded, _brought_to(b, projected, length))


def merged(b: Builder, streams: Node) -> Node:
    """The mean of all streams, projected back, for the rows that give logits."""
    g, shape = b.graph, streams.shape[:2]
    others = (*shape, streams.shape[2] - 1)
    length = _length(b, g.view(streams, shape))
    back = _brought_to(b, g.op(others, g.view(streams, others)), length)
    total = g.view(streams, shape)
    for _ in range(others[2]):
        total = g.op(shape, total, g.view(back, shape), inplace=True)
    return b.take_rows(total)


def altup_layer(b: Builder, layer: Layer, mixer: Attention, streams: Node, inputs: Node, *, sparse: bool) -> Node:
    """One layer: predict all streams, compute the first, correct all, and add the layer's own embedding to the rest."""
    g, shape = b.graph, streams.shape[:2]
    predictions = _predicted(b, layer, streams)
    active = g.view(predictions, shape)
    normed = b.norm(active, "attn_norm")
    low = b.norm(b.multiply(layer, "laurel_r", b.multiply(layer, "laurel_l", normed)), "laurel_post_norm")
    low = g.like(low, normed)
    mixed = b.norm(attention(b, layer, mixer, normed), "post_attention_norm")
    middle = g.op(shape, g.like(mixed, active), low, inplace=True)
    forward = b.norm(_forward(b, layer, b.norm(middle, "ffn_norm"), sparse=sparse), "post_ffw_norm")
    corrected = _corrected(b, layer, predictions, g.op(shape, forward, middle, inplace=True))
    first = b.multiply(layer, "inp_gate", g.like(g.view(corrected, shape)))
    first = g.like(first, g.view(inputs, inputs.shape[:2]))
    first = b.norm(b.multiply(layer, "proj", first), "post_norm")
    rest = (*shape, streams.shape[2] - 1)
    added = g.like(g.view(corrected, rest, contiguous=False), first)
    return g.op(streams.shape, g.view(corrected, shape), added)


def _length(b: Builder, source: Node) -> Node:
    """Of each token's vector."""
    return b.graph.op((1, *source.shape[1:]), b.graph.like(source))


def _brought_to(b: Builder, source: Node, length: Node) -> Node:
    scaled = b.graph.like(source, length)
    return b.graph.like(scaled, _length(b, source))


def _routed(b: Builder, layer: Layer, source: Node) -> Node:
    """What the router makes of a stream: a value for each stream and token."""
    return b.multiply(layer, "altup_router", b.norm(source, "altup_router_norm"))


def _predicted(b: Builder, layer: Layer, streams: Node) -> Node:
    g = b.graph
    hidden, tokens, count = streams.shape
    coefficients = b.multiply(layer, "altup_predict_coef", _routed(b, layer, g.view(streams, (hidden, tokens))))
    turned = g.op((count, hidden, tokens), g.view(streams, contiguous=False))
    predicted = g.op((count, hidden, tokens), turned, g.view(coefficients, (count, count, tokens)))
    back = g.op(streams.shape, g.view(predicted, contiguous=False))
    return g.op(streams.shape, back, streams, inplace=True)


def _corrected(b: Builder, layer: Layer, predictions: Node, activated: Node) -> Node:
    g = b.graph
    hidden, tokens, count = predictions.shape
    innovation = g.like(activated, g.view(predictions, (hidden, tokens)))
    repeated = g.op(predictions.shape, innovation)
    coefficients = b.multiply(layer, "altup_correct_coef", _routed(b, layer, activated))
    weights = g.op((1, tokens, count), g.view(coefficients, contiguous=False))
    return g.op(predictions.shape, g.like(repeated, weights), predictions, inplace=True)


def _forward(b: Builder, layer: Layer, source: Node, *, sparse: bool) -> Node:
    """A gated feed-forward; sparse: what of the gate isn't far above its mean is cut off."""
    g = b.graph
    up, gate = b.multiply(layer, "ffn_up", source), b.multiply(layer, "ffn_gate", source)
    if sparse:
        per_token = (1, gate.shape[1])
        mean = g.op(per_token, gate)
        spread = g.op(per_token, g.like(gate, mean))
        gate = g.like(gate, g.like(mean, spread))
    return b.multiply(layer, "ffn_down", g.like(up, gate))
