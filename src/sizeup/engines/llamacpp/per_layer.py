"""Embeddings of a layer's own in llama.cpp's graphs (Gemma 4): selected and projected once, added in every layer.

Source: build_inp_per_layer and project_per_layer_inputs in src/models/gemma4.cpp, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

from sizeup.engines.llamacpp.builder import Builder
from sizeup.engines.llamacpp.graph import INT, Node
from sizeup.engines.llamacpp.layers import Layer, Trunk

TABLE = "per_layer_token_embd.weight"


def layer_inputs(b: Builder, layers: Trunk, embedded: Node) -> Node | None:
    """What all layers get, (width, tokens, layers); None for models without."""
    if TABLE not in layers.outside or "per_layer_proj_norm.weight" not in layers.outside:
        return None
    g, tokens = b.graph, b.sizes.tokens
    width, count = layers.outside["per_layer_proj_norm.weight"][0], len(layers.order)
    flat, cube = (width * count, tokens), (width, count, tokens)
    selected = g.op(flat, b.input("tokens of tables", tokens, element=INT))
    selected = g.expand(g.like(g.view(selected, cube)))
    projected = b.norm(g.view(g.op(flat, embedded), cube))
    both = g.op(cube, projected, selected, inplace=True)
    return g.op((width, tokens, count), g.view(both, contiguous=False))


def with_layer_input(b: Builder, layer: Layer, cur: Node, inputs: Node | None) -> Node:
    """The layer's result and what its own embedding makes of it."""
    if inputs is None or not layer.has("inp_gate"):
        return cur
    g = b.graph
    own = g.view(inputs, inputs.shape[:2])
    gated = g.like(b.multiply(layer, "inp_gate", cur), own)
    added = b.norm(b.multiply(layer, "proj", gated), "post_norm")
    return g.op(cur.shape, cur, added, inplace=True)
