"""Mixers with a state in llama.cpp's graphs: Mamba 1 and 2, gated delta nets, lightning attention, short convolutions.

Source: src/models/mamba-base.cpp, delta-net-base.cpp, qwen3next.cpp, qwen35.cpp, lfm2.cpp, minimax-01.cpp and
build_rs in src/llama-graph.cpp, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

from sizeup.engines.llamacpp.builder import Builder
from sizeup.engines.llamacpp.graph import INT, Node
from sizeup.engines.llamacpp.layers import Layer
from sizeup.models.mixers import LinearAttention, ShortConvolution, StateSpace

Recurrent = StateSpace | LinearAttention | ShortConvolution


def recurrent(b: Builder, layer: Layer, mixer: Recurrent, source: Node) -> Node:
    """A mixer with a state, projections included: (hidden, tokens)."""
    match mixer:
        case StateSpace(version=1):
            return _mamba(b, layer, mixer, source)
        case StateSpace():
            return _mamba2(b, layer, mixer, source)
        case LinearAttention(kind="kda"):
            return _kimi_delta(b, layer, mixer, source)
        case LinearAttention() if layer.has("attn_qkv") and layer.has("ssm_out"):
            return _delta_net(b, layer, mixer, source)
        case LinearAttention(kind="lightning") if layer.has("attn_gate"):
            return _lightning(b, layer, mixer, source)
        case LinearAttention():
            return _some_linear_attention(b, mixer, source)
        case ShortConvolution():
            return _short_convolution(b, layer, mixer, source)


def _by_sequence(b: Builder) -> tuple[int, int]:
    """(tokens of each sequence, sequences) of the batch."""
    return b.sizes.tokens // b.sizes.sequences, b.sizes.sequences


def _states(b: Builder, elements: int) -> Node:
    """The states of the batch's sequences, gathered from the cache: build_rs."""
    ids = b.input("states", b.sizes.sequences, element=INT)
    main = b.graph.view(ids)
    return b.graph.expand(b.graph.op((elements, b.sizes.sequences), main))


def _keep(b: Builder, source: Node) -> None:
    """Copy a part of a result back into the cache."""
    b.graph.store(b.graph.external(1, place=b.where.cache), b.graph.view(source, contiguous=False))


def _join(b: Builder, history: Node, source: Node, channels: int, kernel: int) -> Node:
    """History and new values side by side; their tail becomes the history."""
    g = b.graph
    tokens, sequences = _by_sequence(b)
    joined = g.op((tokens + kernel - 1, channels, sequences), g.view(history), g.view(source, contiguous=False))
    _keep(b, joined)
    return joined


def _mamba(b: Builder, layer: Layer, mixer: StateSpace, source: Node) -> Node:
    g = b.graph
    tokens, sequences = _by_sequence(b)
    shape = (mixer.inner, tokens, sequences)
    rank = layer.tensors["ssm_dt.weight"][-1]
    history = _states(b, mixer.conv_elements)
    both = b.multiply(layer, "ssm_in", g.view(source, (source.shape[0], tokens, sequences)))
    x, z = (g.view(both, shape, contiguous=False) for _ in range(2))
    x = g.op(shape, _join(b, history, x, mixer.inner, mixer.conv_kernel))
    parts = b.multiply(layer, "ssm_x", x)
    dt = g.view(parts, (rank, tokens, sequences), contiguous=False)
    mixed = [g.view(parts, (mixer.state, 1, tokens, sequences), contiguous=False) for _ in range(2)]
    dt = g.op(dt.shape, dt)
    if layer.has("ssm_dt_norm") or "step_norms" in b.twists:
        mixed = [g.op(m.shape, m) for m in mixed]
    steps = b.multiply(layer, "ssm_dt", dt)
    ids = g.view(b.input("states", sequences, element=INT))
    size = mixer.inner * tokens * sequences + mixer.state_elements * sequences
    scanned = g.expand(g.op((size,), g.view(x), steps, *mixed, ids))
    _keep(b, scanned)
    y = g.op(shape, g.view(scanned, shape), g.op(shape, x, inplace=True), inplace=True)
    return g.view(_gated_out(b, layer, z, y, shape))


def _gated_out(b: Builder, layer: Layer, z: Node, y: Node, shape: tuple[int, ...]) -> Node:
    """The scan's result gated by z (a copy of it), normed where there is a norm, and projected."""
    g = b.graph
    gated = g.op(shape, g.op(shape, z), y)
    if layer.has("ssm_norm"):
        gated = g.op(shape, g.view(gated))
    flat = g.view(gated, (layer.tensors["ssm_out.weight"][-1], b.sizes.tokens))
    return b.multiply(layer, "ssm_out", flat)


def _mamba2(b: Builder, layer: Layer, mixer: StateSpace, source: Node) -> Node:
    g = b.graph
    tokens, sequences = _by_sequence(b)
    head = mixer.inner // mixer.heads
    history = _states(b, mixer.conv_elements)
    merged = g.view(b.multiply(layer, "ssm_in", source))
    joined = _join(b, history, g.view(merged, contiguous=False), mixer.conv_channels, mixer.conv_kernel)
    convolved = g.op((mixer.conv_channels, tokens, sequences), joined)
    x, first, second = (g.view(convolved, contiguous=False) for _ in range(3))
    dt = g.op((mixer.heads, tokens, sequences), g.view(merged, contiguous=False))
    ids = g.view(b.input("states", sequences, element=INT))
    size = mixer.inner * tokens * sequences
    size += mixer.state_elements * sequences * (1 + b.sizes.snapshots)
    scanned = g.expand(g.op((size,), x, dt, first, second, ids))
    _keep(b, scanned)
    shape = (head, mixer.heads, tokens, sequences)
    y = g.op(shape, g.view(scanned, shape, contiguous=False), g.op(shape, x), inplace=True)
    return _gated_out(b, layer, g.view(merged, shape, contiguous=False), y, shape)


def _delta_net(b: Builder, layer: Layer, mixer: LinearAttention, source: Node) -> Node:
    g = b.graph
    tokens, sequences = _by_sequence(b)
    heads = mixer.heads
    key_heads = (mixer.conv_channels - heads * mixer.value_dim) // (2 * mixer.key_dim)
    merged = g.view(b.multiply(layer, "attn_qkv", source))
    z = b.multiply(layer, "attn_gate", source)
    beta, decay = _gates(b, layer, heads, source)
    history = _states(b, mixer.conv_elements)
    joined = _join(b, history, merged, mixer.conv_channels, mixer.conv_kernel)
    state = g.view(_states(b, mixer.state_elements))
    convolved = g.op((mixer.conv_channels, tokens, sequences), joined)
    keyed = (mixer.key_dim, key_heads, tokens, sequences)
    q, k = (g.op(keyed, g.view(convolved, keyed, contiguous=False)) for _ in range(2))
    v = g.view(convolved, contiguous=False)
    if key_heads != heads and "repeated_keys" in b.twists:
        wide = (mixer.key_dim, heads, tokens, sequences)
        q, k = (g.view(g.op(wide, g.view(n))) for n in (q, k))
    rows = (heads * mixer.value_dim) * tokens * sequences
    rows += mixer.state_elements * sequences * (1 + b.sizes.snapshots)
    mixed = g.op((rows,), q, k, v, decay, beta, state)
    _keep(b, mixed)
    shape = (mixer.value_dim, heads, tokens, sequences)
    normed = g.op(shape, g.view(mixed, shape, contiguous=False))
    gated = g.op(shape, normed, g.op(shape, g.view(z, shape), inplace=True), inplace=True)
    flat = g.view(gated, (heads * mixer.value_dim, b.sizes.tokens))
    return g.view(b.multiply(layer, "ssm_out", flat))


def _kimi_delta(b: Builder, layer: Layer, mixer: LinearAttention, source: Node) -> Node:
    """Kimi's: a convolution for each of queries, keys and values, and a decay for each channel."""
    g = b.graph
    tokens, sequences = _by_sequence(b)
    inner = mixer.heads * mixer.key_dim
    shape = (mixer.key_dim, mixer.heads, tokens, sequences)
    histories = _states(b, mixer.conv_elements)
    q, k, v = (_kimi_convolution(b, layer, stem, mixer, histories, source) for stem in ("attn_q", "attn_k", "attn_v"))
    decay = g.view(
        b.multiply(layer, "ssm_f_b", b.multiply(layer, "ssm_f_a", source)), (mixer.key_dim, mixer.heads, b.sizes.tokens)
    )
    decay = g.view(g.op(decay.shape, decay, inplace=True), shape)
    beta = g.view(b.multiply(layer, "ssm_beta", source), (1, mixer.heads, tokens, sequences))
    beta = g.op(beta.shape, beta, inplace=True)
    state = g.view(_states(b, mixer.state_elements))
    q, k = (g.op(shape, n, inplace=True) for n in (q, k))
    mixed = g.op((inner * tokens * sequences + mixer.state_elements * sequences,), q, k, v, decay, beta, state)
    _keep(b, mixed)
    output = g.op(shape, g.view(mixed, shape))
    gate = b.multiply(layer, "ssm_g_b", b.multiply(layer, "ssm_g_a", g.view(source)))
    flat = (mixer.key_dim, mixer.heads, b.sizes.tokens)
    gated = g.op(flat, g.op(flat, g.view(output, flat)), g.op(flat, g.view(gate, flat)), inplace=True)
    return b.multiply(layer, "attn_output", g.op((inner, b.sizes.tokens), gated))


def _kimi_convolution(
    b: Builder, layer: Layer, stem: str, mixer: LinearAttention, histories: Node, source: Node
) -> Node:
    g = b.graph
    tokens, sequences = _by_sequence(b)
    inner = mixer.heads * mixer.key_dim
    projected = g.view(b.multiply(layer, stem, source), (inner, tokens, sequences))
    joined = _join(b, g.view(histories, contiguous=False), projected, inner, mixer.conv_kernel)
    convolved = g.op((inner, tokens, sequences), joined)
    return g.view(convolved, (mixer.key_dim, mixer.heads, tokens, sequences))


def _lightning(b: Builder, layer: Layer, mixer: LinearAttention, source: Node) -> Node:
    """Lightning attention (MiniMax-01): scores of the batch, decayed by distance, and a state for what came before."""
    g = b.graph
    (tokens, sequences), heads, size = _by_sequence(b), mixer.heads, mixer.key_dim
    each, square = (size, heads, tokens, sequences), (tokens, tokens, heads, sequences)
    decays = [b.input(f"decay {what}", 1, heads, tokens, sequences) for what in ("q", "k")]
    distances = b.input("decay of distances", *square)
    flat = g.view(source, (source.shape[0], tokens, 1, sequences))
    merged = b.multiply(layer, "attn_qkv", flat)
    q, k, v = (g.view(merged, each, contiguous=False) for _ in range(3))
    state = g.view(_states(b, mixer.state_elements), (size, size, heads, sequences))
    faded = g.like(q, g.like(decays[0]))
    before = g.op((size, tokens, heads, sequences), state, g.view(faded, contiguous=False))
    scores = g.op(square, g.view(k, contiguous=False), g.view(q, contiguous=False))
    turned = g.op((tokens, size, heads, sequences), g.view(v, contiguous=False))
    within = g.op(before.shape, turned, g.like(scores, g.like(distances)))
    mixed = g.expand(g.op(before.shape, before, within, inplace=True))
    lasting = g.op((tokens, size, heads, sequences), g.view(g.like(k, g.like(decays[1])), contiguous=False))
    added = g.op(state.shape, lasting, turned)
    slopes = g.view(g.like(b.input("slopes", heads)))
    _keep(b, g.op(state.shape, g.like(state, slopes), added, inplace=True))
    mixed = g.op(each, g.view(mixed, contiguous=False))
    wide = (size * heads, tokens, 1, sequences)
    normed = b.norm(g.view(mixed, wide), "attn_norm_2")
    gated = g.op(wide, b.multiply(layer, "attn_gate", flat), normed, inplace=True)
    hidden = layer.width("attn_output")
    return g.view(b.multiply(layer, "attn_output", gated), (hidden, b.sizes.tokens))


def _some_linear_attention(b: Builder, mixer: LinearAttention, source: Node) -> Node:
    """A linear attention whose graph isn't known here: queries, keys, values and a gate side by side, and states."""
    g = b.graph
    inner = mixer.heads * max(mixer.key_dim, mixer.value_dim)
    four = [g.op((inner, b.sizes.tokens), source) for _ in range(4)]
    state = _states(b, mixer.state_elements)
    mixed = g.op((inner * b.sizes.tokens + mixer.state_elements * b.sizes.sequences,), *four, state)
    _keep(b, mixed)
    return g.op((source.shape[0], b.sizes.tokens), g.view(mixed))


def _gates(b: Builder, layer: Layer, heads: int, source: Node) -> tuple[Node, Node]:
    """How strongly each head writes (beta) and forgets (decay): one value a head and token each."""
    g = b.graph
    tokens, sequences = _by_sequence(b)
    shape = (heads, tokens, sequences)
    if layer.has("ssm_ba"):
        both = g.view(b.multiply(layer, "ssm_ba", source))
        beta = g.op((*shape, 1), g.view(both, contiguous=False))
        decay = g.op(shape, g.view(both, contiguous=False))
        return g.view(beta), g.view(decay)
    beta = g.op((1, *shape), g.view(b.multiply(layer, "ssm_beta", source), (1, *shape)), inplace=True)
    decay = g.op(shape, g.view(b.multiply(layer, "ssm_alpha", source), shape), inplace=True)
    return beta, g.view(decay)


def _short_convolution(b: Builder, layer: Layer, mixer: ShortConvolution, source: Node) -> Node:
    g = b.graph
    tokens, sequences = _by_sequence(b)
    shape = (mixer.channels, tokens, sequences)
    merged = b.multiply(layer, "shortconv.in_proj", g.view(source, (source.shape[0], tokens, sequences)))
    first, second, x = (g.view(merged, shape, contiguous=False) for _ in range(3))
    product = g.op(shape, first, x)
    history = _states(b, mixer.conv_elements)
    joined = _join(b, history, product, mixer.channels, mixer.conv_kernel)
    y = g.op(shape, second, g.op(shape, joined), inplace=True)
    return g.view(b.multiply(layer, "shortconv.out_proj", y), (layer.width("shortconv.out_proj"), b.sizes.tokens))
