"""The graph of one batch, layer by layer: how mixers, feed-forwards, norms and residuals follow each other.

Source: src/models/*.cpp, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

import msgspec

from sizeup.engines.llamacpp.altup import PROJECTION, SPARSE_LAYERS, altup_layer, merged, stacked
from sizeup.engines.llamacpp.attention import attention, cross
from sizeup.engines.llamacpp.backends import CPU, Backend
from sizeup.engines.llamacpp.builder import Builder, Sizes, Where
from sizeup.engines.llamacpp.feedforward import beside_experts, feed_forward
from sizeup.engines.llamacpp.graph import INT, Graph, Node
from sizeup.engines.llamacpp.latent import latent
from sizeup.engines.llamacpp.layers import Layer, Trunk, trunk
from sizeup.engines.llamacpp.memo import by_model
from sizeup.engines.llamacpp.per_layer import layer_inputs, with_layer_input
from sizeup.engines.llamacpp.recurrent import recurrent
from sizeup.engines.llamacpp.twists import twists_of
from sizeup.engines.llamacpp.weights import HOST, typed_tensors
from sizeup.models.mixers import Attention, LatentAttention
from sizeup.models.model import Model


class Frame(msgspec.Struct, frozen=True):
    """What the buffers depend on beside sizes and layers.

    output, output_weights: places. copies: batches in flight.
    norms_follow: a layer's first norm is computed where the layer is, and not where the one before is.
    """

    output: int
    output_weights: int
    backends: tuple[Backend, ...]
    copies: int
    norms_follow: bool
    weights: tuple[str, bool | None]


Step = tuple[int, Where]


@by_model
def _weight_bytes(
    model: Model, mix_name: str, imatrix: bool | None
) -> tuple[tuple[dict[str, int], ...], dict[str, int]]:
    """Bytes of tensors by stem: the largest in each kind of layer, and those outside the layers."""
    layers = trunk(model)
    inside: tuple[dict[str, int], ...] = tuple({} for _ in layers.kinds)
    outside: dict[str, int] = {}
    for tensor in typed_tensors(model, mix_name, imatrix):
        if tensor.layer < 0:
            outside[tensor.name] = tensor.bytes
        elif tensor.layer < len(layers.order):
            stem = tensor.name.split(".", 2)[2]
            known = inside[layers.order[tensor.layer]]
            known[stem] = max(known.get(stem, 0), tensor.bytes)
    return inside, outside


def build(model: Model, graph: Graph, sizes: Sizes, steps: tuple[Step, ...], frame: Frame) -> Node:
    """The graph of one batch through those layers."""
    layers = trunk(model)
    kernels = {HOST: CPU, **dict(enumerate(frame.backends))}
    b = Builder(graph, sizes, twists_of(layers.architecture), kernels, HOST)
    inside, outside = _weight_bytes(model, *frame.weights) if frame.backends else (({},) * len(layers.kinds), {})
    cur = _embed(b, layers, model.hidden, steps[0][1].compute if steps else HOST)
    inputs = layer_inputs(b, layers, cur)
    streams = PROJECTION in layers.outside
    if streams:
        cur = stacked(b, layers, cur)
    for place, (kind, where) in enumerate(steps):
        b.enter(where, inside[kind], norm_stays=not frame.norms_follow)
        layer = layers.kinds[kind]
        if streams and inputs is not None and isinstance(mixer := layer.attention(), Attention):
            cur = altup_layer(b, layer, mixer, cur, inputs, sparse=place < SPARSE_LAYERS)
        else:
            cur = with_layer_input(b, layer, _layer(b, layer, cur, last=place == len(steps) - 1), inputs)
    b.enter(Where(frame.output, frame.output, *[frame.output_weights] * 3), outside)
    cur = merged(b, cur) if streams else cur
    return graph.expand(_head(b, layers, cur, model.vocabulary))


def _embed(b: Builder, layers: Trunk, hidden: int, place: int) -> Node:
    """Token embeddings, looked up on the host; what follows is on the first layer's place.

    Room for a batch of embeddings instead is reserved beside them.
    """
    g, tokens = b.graph, b.sizes.tokens
    ids = b.input("tokens", tokens, element=INT)
    embedded = g.expand(g.op((hidden, tokens), ids))
    g.expand(b.input("embeddings", hidden, tokens))
    if "position_embd.weight" in layers.outside:
        looked_up = g.op((hidden, tokens), b.positions())
        g.place = place
        embedded = g.like(embedded, looked_up)
    g.place = place
    if "token_embd_norm.weight" in layers.outside:
        embedded = b.norm(embedded)
    return embedded


def _layer(b: Builder, layer: Layer, residual: Node, *, last: bool) -> Node:
    """One layer: mixer and feed-forward, each with its norms, each added to the residual."""
    g = b.graph
    last = last and "late_rows" not in b.twists
    normed = b.first_norm(residual) if layer.has("attn_norm") or "plain_norm" in b.twists else residual
    if "norm_first" in b.twists:
        g.expand(normed)
    mixed = _mix(b, layer, normed, residual)
    if (over_encoder := layer.cross()) is not None:
        residual = g.op(mixed.shape, mixed, residual, inplace=True)
        mixed = cross(b, layer, over_encoder, b.norm(residual))
    if last:
        mixed, residual = b.take_rows(mixed), b.take_rows(residual)
    if "residual_first" in b.twists:
        return _onto_residual(b, layer, mixed, residual)
    if "normed_residual" in b.twists:
        return _onto_normed(b, layer, mixed, b.take_rows(normed) if last else normed)
    if not layer.has_mixer or not layer.has_feed_forward:
        return g.op(mixed.shape, mixed, residual, inplace=True)
    if layer.has("layer_output_norm") and layer.has("attn_output_norm"):
        return _post_norm_layer(b, layer, mixed, residual)
    before, after = _norms_of_the_second_half(b, layer)
    if not before and not after:
        return _parallel(b, layer, mixed, b.take_rows(normed) if last else normed, residual)
    if "parallel_norms" in b.twists:
        return _parallel(b, layer, mixed, b.norm(residual), residual)
    if after and layer.has("post_attention_norm"):
        mixed = b.norm(mixed, "post_attention_norm")
    middle = g.op(mixed.shape, mixed, residual, inplace=True)
    if layer.has("pre_ffw_norm_2"):
        forward = beside_experts(b, layer, middle)
    else:
        normed = b.norm(middle, "ffn_norm", "post_attention_norm", "attn_output_norm") if before else middle
        forward = feed_forward(b, layer, normed)
    if after:
        forward = b.norm(forward, "post_ffw_norm")
    return g.op(forward.shape, forward, middle, inplace=True)


def _norms_of_the_second_half(b: Builder, layer: Layer) -> tuple[bool, bool]:
    """Whether there is a norm before the feed-forward, and after it."""
    after = layer.has("post_ffw_norm")
    named_otherwise = layer.has("attn_output_norm") or (layer.has("post_attention_norm") and not after)
    return layer.has("ffn_norm") or named_otherwise or "plain_norm" in b.twists, after


def _mix(b: Builder, layer: Layer, normed: Node, residual: Node) -> Node:
    """The layer's mixer; both where there are two side by side; the feed-forward in a layer that has nothing else."""
    mixer, state = layer.attention(), layer.recurrent()
    if isinstance(mixer, LatentAttention):
        return latent(b, layer, mixer, normed)
    if mixer is None:
        if state is not None:
            return recurrent(b, layer, state, normed)
        return feed_forward(b, layer, b.norm(normed, "ffn_norm") if layer.has("ffn_norm") else normed)
    mixed = attention(b, layer, mixer, normed)
    if state is None:
        return mixed
    return b.graph.op(mixed.shape, mixed, recurrent(b, layer, state, b.norm(residual)), inplace=True)


def _parallel(b: Builder, layer: Layer, mixed: Node, normed: Node, residual: Node) -> Node:
    """Attention and feed-forward side by side on the same residual."""
    forward = feed_forward(b, layer, normed)
    if "attention_last" in b.twists:
        pair, residual = (forward, residual), mixed
    else:
        pair = (mixed, forward) if "attention_first" in b.twists else (forward, mixed)
    both = b.graph.op(forward.shape, *pair, inplace=True)
    return b.graph.op(both.shape, both, residual, inplace=True)


def _onto_residual(b: Builder, layer: Layer, mixed: Node, residual: Node) -> Node:
    """Each half is added to the residual, and takes over its memory."""
    g = b.graph
    middle = g.op(mixed.shape, residual, mixed, inplace=True)
    forward = feed_forward(b, layer, b.norm(middle, "ffn_norm"))
    return g.op(forward.shape, middle, forward, inplace=True)


def _onto_normed(b: Builder, layer: Layer, mixed: Node, normed: Node) -> Node:
    """MiniMax-01: what each half is added to is what it has read, after the norm."""
    g = b.graph
    read = b.norm(g.op(mixed.shape, mixed, g.like(normed), inplace=True), "ffn_norm")
    forward = feed_forward(b, layer, read)
    return g.op(forward.shape, forward, g.like(read), inplace=True)


def _post_norm_layer(b: Builder, layer: Layer, mixed: Node, residual: Node) -> Node:
    """BERT: norms after each half."""
    g = b.graph
    middle = b.norm(g.op(mixed.shape, mixed, residual, inplace=True))
    forward = feed_forward(b, layer, middle)
    return b.norm(g.op(forward.shape, forward, middle, inplace=True))


def _head(b: Builder, layers: Trunk, cur: Node, vocabulary: int) -> Node:
    """Final norm and logits; both are results, which are never freed."""
    if "output_norm.weight" in layers.outside or "plain_norm" in b.twists:
        cur = b.norm(cur)
    cur.kept = True
    if "late_rows" in b.twists:
        cur = b.take_rows(cur)
        cur.kept = True
    if "headless" in b.twists:
        return cur
    stem = "output" if "output.weight" in layers.outside else "token_embd"
    logits = b.graph.op((vocabulary, *cur.shape[1:]), *b.weight(stem), cur)
    logits.kept = True
    return logits
