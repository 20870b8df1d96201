"""Feed-forwards in llama.cpp's graphs: dense, routed experts, shared experts.

Source: build_ffn and build_moe_ffn in src/llama-graph.cpp, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

from sizeup.engines.llamacpp.builder import Builder
from sizeup.engines.llamacpp.graph import INT, Node
from sizeup.engines.llamacpp.layers import Layer


def mlp(b: Builder, layer: Layer, source: Node, suffix: str = "") -> Node:
    """A dense feed-forward, gated when there is a gate, or when `up` is twice as wide as `down` reads."""
    g = b.graph
    up = b.multiply(layer, f"ffn_up{suffix}", source)
    inner = layer.tensors[f"ffn_down{suffix}.weight"][-1]
    if layer.has(f"ffn_gate{suffix}"):
        gate = b.multiply(layer, f"ffn_gate{suffix}", source)
        up = g.op(up.shape, gate, up)
    elif up.shape[0] == 2 * inner:
        up = g.op((inner, *up.shape[1:]), up)
    return b.multiply(layer, f"ffn_down{suffix}", up)


def mixture(b: Builder, layer: Layer, source: Node, routed_by: Node | None = None) -> Node:
    """Routed experts: router, choice, the chosen experts' feed-forwards side by side, their weighted sum.

    Afterwards nodes are still put where the experts were computed, like in llama.cpp until the next weight.
    routed_by: what the router reads, when the experts read something narrower.
    """
    g = b.graph
    forward = layer.feed_forward
    experts, chosen_count = forward.experts, forward.experts_per_token
    tokens, hidden = source.tokens, source.shape[0]
    logits = b.multiply(layer, "ffn_gate_inp", source if routed_by is None else routed_by)
    probabilities = logits if "late_softmax" in b.twists else g.like(logits)
    biased = g.like(probabilities) if layer.has("exp_probs_b", "bias") else probabilities
    order = g.op((experts, tokens), logits if "raw_choice" in b.twists else biased, element=INT)
    chosen = g.view(order, (chosen_count, tokens), contiguous=False)
    weights = g.op((1, chosen_count, tokens), g.view(probabilities, (1, experts, tokens)), chosen)
    if "plain_weights" not in b.twists:
        flat = g.view(weights, (chosen_count, tokens))
        total = g.op((1, tokens), flat)
        weights = g.view(g.op(flat.shape, flat, total, inplace=True), (1, chosen_count, tokens))
    g.expand(weights)
    cur = g.view(source, (hidden, 1, tokens))
    if "weights_first" in b.twists:
        cur = g.like(g.op((hidden, chosen_count, tokens), cur), weights)
    g.place = b.where.expert_compute
    inner = _experts(b, layer, cur, chosen)
    mixed = g.op((hidden, chosen_count, tokens), *b.weight("ffn_down_exps"), inner, chosen)
    mixed = b.biased(layer, "ffn_down_exps", mixed)
    kept = (mixed, weights) if b.kernel.keeps_experts and "weights_first" not in b.twists else ()
    if "weights_first" not in b.twists:
        mixed = g.op(mixed.shape, mixed, weights, inplace=not kept)
    g.expand(mixed)
    return _sum_experts(b, mixed, hidden, tokens, chosen_count, kept)


def _experts(b: Builder, layer: Layer, cur: Node, chosen: Node) -> Node:
    g = b.graph
    chosen_count, tokens = chosen.shape
    width = layer.tensors["ffn_down_exps.weight"][-1]
    shape = (width, chosen_count, tokens)
    if layer.has("ffn_gate_up_exps"):
        merged = g.op((2 * width, chosen_count, tokens), *b.weight("ffn_gate_up_exps"), cur, chosen)
        merged = b.biased(layer, "ffn_gate_up_exps", merged)
        halves = [g.view(merged, shape, contiguous=False) for _ in range(2)]
        return g.op(shape, *halves)
    up = b.biased(layer, "ffn_up_exps", g.op(shape, *b.weight("ffn_up_exps"), cur, chosen))
    if not layer.has("ffn_gate_exps"):
        return up
    gate = b.biased(layer, "ffn_gate_exps", g.op(shape, *b.weight("ffn_gate_exps"), cur, chosen))
    return g.op(shape, gate, up)


def _sum_experts(b: Builder, mixed: Node, hidden: int, tokens: int, count: int, kept: tuple[Node, ...]) -> Node:
    """The chosen experts' results added up one after the other, on views of them.

    kept: what a fused kernel still reads in the end.
    """
    g = b.graph
    parts = [g.expand(g.view(mixed, (hidden, tokens), contiguous=False)) for _ in range(count)]
    total = parts[0]
    for part in parts[1:]:
        total = g.expand(g.op((hidden, tokens), total, part, inplace=True))
    if kept:
        g.expand(Node((), 0, kept, place=g.place))
    return total if count > 1 else g.op((hidden, tokens), total)


def feed_forward(b: Builder, layer: Layer, source: Node) -> Node:
    """Whatever feed-forward the layer has: dense, mixture, mixture beside shared experts."""
    if not layer.has("ffn_gate_inp") or not layer.has("ffn_down_exps"):
        return mlp(b, layer, source)
    if layer.has("ffn_latent_down"):
        inner = mixture(b, layer, b.multiply(layer, "ffn_latent_down", source), source)
        b.graph.place = b.where.compute
        mixed = b.multiply(layer, "ffn_latent_up", inner)
    else:
        mixed = mixture(b, layer, source)
    if not layer.has("ffn_up_shexp"):
        return mixed
    b.graph.place = b.where.compute
    shared = mlp(b, layer, source, "_shexp")
    if layer.has("ffn_gate_inp_shexp"):
        gate = b.graph.op((1, source.tokens), source)
        shared = b.graph.like(shared, gate)
    return b.graph.op(mixed.shape, mixed, shared, inplace=True)


def beside_experts(b: Builder, layer: Layer, middle: Node) -> Node:
    """Gemma 4: a dense feed-forward and routed experts side by side, each between norms of its own."""
    dense = b.norm(mlp(b, layer, b.norm(middle, "ffn_norm")), "post_ffw_norm_1")
    routed_by = b.norm(middle)
    mixed = mixture(b, layer, b.norm(middle, "pre_ffw_norm_2"), routed_by)
    b.graph.place = b.where.compute
    return b.graph.op(dense.shape, dense, b.norm(mixed, "post_ffw_norm_2"), inplace=True)
