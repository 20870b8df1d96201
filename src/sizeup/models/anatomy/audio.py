"""Audio towers: convolutions over mel bins, then layers of bidirectional attention, or conformers.

Each function takes the tower's own configuration and the prefix of its names, and returns blocks whose tensors have
the role `audio`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sizeup.models.anatomy.parts import Part, Tensors, block, gated_mlp, linear, norm, norm_tensors, plain_mlp, stack_of
from sizeup.models.anatomy.parts import weight as tensor
from sizeup.models.anatomy.seq2seq import Half, Twist, encoder_layer
from sizeup.models.anatomy.towers import conv, layer_norm, prefixed, projected_attention, table, tower, two_way, under
from sizeup.models.config import MAX_LAYERS, Config
from sizeup.models.mixers import Attention
from sizeup.models.model import Block

Blocks = tuple[Block, ...]


def audio_sizes(cfg: Config) -> Half:
    """The sizes of a Whisper-like encoder, under its own names or the usual ones."""
    hidden = cfg.int("d_model", "hidden_size")
    return Half(
        hidden,
        cfg.int("encoder_layers", "num_hidden_layers", max=MAX_LAYERS),
        cfg.int("encoder_attention_heads", "num_attention_heads"),
        cfg.int("encoder_ffn_dim", "intermediate_size", default=4 * hidden),
        cfg.optional_int("max_source_positions"),
    )


def listen(
    prefix: str,
    layers: int,
    layer: Callable[[str], Sequence[Part]],
    *,
    before: Tensors,
    after: Tensors = (),
    stack: str = "layers",
    kinds: Sequence[str] = (),
) -> Blocks:
    """A tower: what turns sound into tokens, layers, and what comes after them; names are relative to the tower."""
    blocks = (
        block("audio embedding", under(prefix, before)),
        *stack_of(
            prefixed(prefix, stack), kinds or [""] * layers, layer, label=lambda kind: f"{kind} audio layer".strip()
        ),
        block("audio frame", under(prefix, after)),
    )
    return tower("audio", (part for part in blocks if part.tensors))


def two_convolutions(hidden: int, bins: int, prefix: str = "") -> Tensors:
    """Whisper's: the first over mel bins, the second halves the time."""
    return (*conv(f"{prefix}conv1", hidden, bins, 3), *conv(f"{prefix}conv2", hidden, hidden, 3))


def three_convolutions(cfg: Config, hidden: int) -> Tensors:
    """Qwen3's: two-dimensional, each halves time and mel bins; then a projection of what is left of the bins."""
    channels, bins = cfg.int("downsample_hidden_size"), cfg.int("num_mel_bins")
    for _ in range(3):
        bins = (bins + 1) // 2
    return (
        *conv("conv2d1", channels, 1, 3, 3),
        *conv("conv2d2", channels, channels, 3, 3),
        *conv("conv2d3", channels, channels, 3, 3),
        *linear("conv_out", hidden, channels * bins, "embedding", "projection"),
    )


def whisper_tower(
    cfg: Config, prefix: str, *, positions: bool = True, last: str = "layer_norm", biases: str = "qvo"
) -> Blocks:
    """Whisper's encoder. positions: whether their table is stored. last: the norm after the layers."""
    h = audio_sizes(cfg)
    before = two_convolutions(h.hidden, cfg.int("num_mel_bins"))
    if positions:
        before += table("embed_positions", h.positions or 1500, h.hidden)
    twist = Twist(biases=biases)
    after = norm_tensors(last, h.hidden, bias=True)
    return listen(prefix, h.layers, lambda _: encoder_layer(h, twist), before=before, after=after)


def omni_tower(cfg: Config, prefix: str) -> Blocks:
    """Whisper's encoder with marks for begin and end, and a projection to the text's width (Qwen2.5-Omni)."""
    h = audio_sizes(cfg)
    out = cfg.int("output_dim")
    marks = table("audio_bos_eos_token", 2, out, "tokens")
    after = (
        *norm_tensors("ln_post", h.hidden, bias=True),
        *linear("proj", out, h.hidden, "projector", "up", bias=True),
    )
    before = (*two_convolutions(h.hidden, cfg.int("num_mel_bins")), *marks)
    return listen(prefix, h.layers, lambda _: encoder_layer(h, Twist(biases="qvo")), before=before, after=after)


def qwen3_tower(cfg: Config, prefix: str, *, projected: bool) -> Blocks:
    """Whisper's layers with all biases, behind three convolutions. projected: two projections after it (Omni)."""
    h = audio_sizes(cfg)
    after = norm_tensors("ln_post", h.hidden, bias=True)
    if projected:
        after += linear("proj1", h.hidden, h.hidden, "projector", "up", bias=True)
        after += linear("proj2", cfg.int("output_dim"), h.hidden, "projector", "down", bias=True)
    before = three_convolutions(cfg, h.hidden)
    return listen(prefix, h.layers, lambda _: encoder_layer(h, Twist()), before=before, after=after)


def glm_tower(cfg: Config, prefix: str) -> Blocks:
    """Whisper's layers with rotary positions and llama's names (GLM-ASR)."""
    h = audio_sizes(cfg)
    kv_heads = cfg.int("num_key_value_heads", default=h.heads)
    size = cfg.int("head_dim", default=max(1, h.hidden // h.heads))
    mixer = Attention(h.heads, kv_heads, size, size, causal=False)

    def layer(_: str) -> list[Part]:
        return [
            projected_attention(mixer, h.hidden, names=("q_proj", "k_proj", "v_proj", "o_proj"), biases="qvo"),
            plain_mlp(h.hidden, h.ffn),
            layer_norm("input_layernorm", h.hidden),
            layer_norm("post_attention_layernorm", h.hidden),
        ]

    before = two_convolutions(h.hidden, cfg.int("num_mel_bins"))
    return listen(prefix, h.layers, layer, before=before, after=norm_tensors("norm", h.hidden, bias=True))


def voxtral_realtime_tower(cfg: Config, prefix: str) -> Blocks:
    """A causal encoder with a sliding window, RMS norms and gated feed-forwards."""
    h = audio_sizes(cfg)
    size = cfg.int("head_dim", default=max(1, h.hidden // h.heads))
    mixer = Attention(h.heads, h.heads, size, size, window=cfg.optional_int("sliding_window"))

    def layer(_: str) -> list[Part]:
        forward = gated_mlp(h.hidden, h.ffn)
        bias = tensor("mlp.down_proj.bias", (h.hidden,), "mlp", "down")
        return [
            projected_attention(mixer, h.hidden, names=("q_proj", "k_proj", "v_proj", "o_proj"), biases="qvo"),
            Part((*forward.tensors, *bias), feed_forward=forward.feed_forward),
            norm("self_attn_layer_norm", h.hidden),
            norm("final_layer_norm", h.hidden),
        ]

    before = two_convolutions(h.hidden, cfg.int("num_mel_bins"), "embedder.")
    return listen(prefix, h.layers, layer, before=before, after=norm_tensors("norm", h.hidden))


def batch_norm(name: str, channels: int) -> Tensors:
    """A batch norm: scale, bias, and the running figures, which are buffers."""
    return (
        *norm_tensors(name, channels, bias=True),
        *tensor(f"{name}.running_mean", (channels,), "buffer", "norm"),
        *tensor(f"{name}.running_var", (channels,), "buffer", "norm"),
        *tensor(f"{name}.num_batches_tracked", (), "buffer", "norm"),
    )


def subsampling(
    cfg: Config, hidden: int, *, name: str = "subsampling.layers", out: str = "subsampling.linear"
) -> Tensors:
    """Parakeet's: a convolution, then depthwise and pointwise pairs, each halves time and bins; then a projection."""
    channels, kernel = cfg.int("subsampling_conv_channels"), cfg.int("subsampling_conv_kernel_size")
    halvings = max(1, cfg.int("subsampling_factor").bit_length() - 1)
    bins = cfg.int("num_mel_bins")
    tensors: Tensors = conv(f"{name}.0", channels, 1, kernel, kernel)
    for pair in range(halvings - 1):
        tensors += conv(f"{name}.{2 + 3 * pair}", channels, 1, kernel, kernel)
        tensors += conv(f"{name}.{3 + 3 * pair}", channels, channels, 1, 1)
    for _ in range(halvings):
        bins = (bins + 2 * ((kernel - 1) // 2) - kernel) // cfg.int("subsampling_conv_stride", default=2) + 1
    return (*tensors, *linear(out, hidden, channels * bins, "embedding", "projection", bias=True))


def conformer_layer(
    cfg: Config,
    h: Half,
    *,
    attention: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj"),
    relative: tuple[str, str, str] = ("relative_k_proj", "bias_u", "bias_v"),
    batch: str = "conv.norm",
) -> list[Part]:
    """A conformer: half a feed-forward, attention with relative positions, a gated convolution, the other half."""
    bias, conv_bias = cfg.bool("attention_bias", default=True), cfg.bool("convolution_bias", default=True)
    position, u, v = relative
    size = max(1, h.hidden // h.heads)
    extra = (
        *linear(f"self_attn.{position}", h.hidden, h.hidden, "attention", "relative_bias"),
        *tensor(f"self_attn.{u}", (h.heads, size), "attention", "relative_bias"),
        *tensor(f"self_attn.{v}", (h.heads, size), "attention", "relative_bias"),
    )
    kernel = cfg.int("conv_kernel_size")
    convolution = (
        *conv("conv.pointwise_conv1", 2 * h.hidden, h.hidden, 1, role="state_space", part="in", bias=conv_bias),
        *conv("conv.depthwise_conv", h.hidden, 1, kernel, role="state_space", bias=conv_bias),
        *batch_norm(batch, h.hidden),
        *conv("conv.pointwise_conv2", h.hidden, h.hidden, 1, role="state_space", part="out", bias=conv_bias),
    )
    return [
        plain_mlp(h.hidden, h.ffn, name="feed_forward1", names=("linear1", "linear2"), bias=bias),
        projected_attention(
            two_way(h.heads, h.hidden), h.hidden, names=attention, biases="qkvo" if bias else "", extra=extra
        ),
        Part(convolution),
        plain_mlp(h.hidden, h.ffn, name="feed_forward2", names=("linear1", "linear2"), bias=bias),
        *(
            layer_norm(f"norm_{part}", h.hidden)
            for part in ("feed_forward1", "self_att", "conv", "feed_forward2", "out")
        ),
    ]


def parakeet_tower(cfg: Config, prefix: str) -> Blocks:
    """NVIDIA's fast conformer (Parakeet, Canary)."""
    h = audio_sizes(cfg)
    return listen(prefix, h.layers, lambda _: conformer_layer(cfg, h), before=subsampling(cfg, h.hidden))


def granite_tower(cfg: Config, prefix: str) -> Blocks:
    """Granite's conformer: queries apart from keys and values, a table of distances, characters predicted half-way."""
    hidden, heads, size = cfg.int("hidden_dim"), cfg.int("num_heads"), cfg.int("dim_head")
    width, inner = hidden * cfg.int("feedforward_mult"), hidden * cfg.int("conv_expansion_factor")
    mixer = Attention(heads, heads, size, size, chunk=cfg.optional_int("context_size"), causal=False)
    attention = (
        *linear("attn.to_q", heads * size, hidden, "attention", "q"),
        *linear("attn.to_kv", 2 * heads * size, hidden, "attention", "kv"),
        *linear("attn.to_out", hidden, heads * size, "attention", "o", bias=True),
        *table("attn.rel_pos_emb", 2 * cfg.int("max_pos_emb") + 1, size, "relative_bias"),
        *norm_tensors("attn.pre_norm", hidden, bias=True),
    )
    convolution = (
        *norm_tensors("conv.norm", hidden, bias=True),
        *conv("conv.up_conv", 2 * inner, hidden, 1, role="state_space", part="in"),
        *conv("conv.depth_conv.conv", inner, 1, cfg.int("conv_kernel_size"), role="state_space", bias=False),
        *batch_norm("conv.batch_norm", inner),
        *conv("conv.down_conv", hidden, inner, 1, role="state_space", part="out"),
    )

    def half(name: str) -> list[Part]:
        forward = plain_mlp(hidden, width, name=name, names=("up_proj", "down_proj"))
        return [forward, layer_norm(f"{name}.pre_norm", hidden)]

    def layer(_: str) -> list[Part]:
        return [
            *half("ff1"),
            Part(attention, (mixer,)),
            Part(convolution),
            *half("ff2"),
            layer_norm("post_norm", hidden),
        ]

    characters = cfg.int("output_dim")
    before = linear("input_linear", hidden, cfg.int("input_dim"), "embedding", "projection", bias=True)
    after = (
        *linear("out", characters, hidden, "head", "head", bias=True),
        *linear("out_mid", hidden, characters, "head", "projection", bias=True),
    )
    return listen(prefix, cfg.int("num_layers", max=MAX_LAYERS), layer, before=before, after=after)


def fun_asr_tower(cfg: Config, prefix: str) -> Blocks:
    """Attention with a memory, a depthwise convolution over values; the first layer takes stacked frames in.

    A norm closes the last layer, and the one before the layers that predict time.
    """
    h = audio_sizes(cfg)
    frames = cfg.int("num_mel_bins") * cfg.int("num_stacked_frames")
    timed = cfg.int("num_timestamp_prediction_layers", min=0, max=h.layers, default=0)
    closing = {h.layers - 1, h.layers - timed - 1}
    kinds = [" ".join(["first"] * (number == 0) + ["closing"] * (number in closing)) for number in range(h.layers)]
    mixer, kernel = two_way(h.heads, h.hidden), cfg.int("fsmn_kernel_size")

    def layer(kind: str) -> list[Part]:
        inputs = frames if "first" in kind else h.hidden
        projections = tuple(
            projection
            for side in "qkv"
            for projection in linear(f"self_attn.{side}_proj", h.hidden, inputs, "attention", side, bias=True)
        )
        output = linear("self_attn.o_proj", h.hidden, h.hidden, "attention", "o", bias=True)
        memory = conv("self_attn.fsmn.conv", h.hidden, 1, kernel, role="attention", bias=False)
        return [
            Part((*projections, *output, *memory), (mixer,)),
            plain_mlp(h.hidden, h.ffn, activation="relu"),
            layer_norm("input_layernorm", inputs),
            layer_norm("post_attention_layernorm", h.hidden),
            *([layer_norm("final_layernorm", h.hidden)] if "closing" in kind else []),
        ]

    return listen(prefix, h.layers, layer, before=(), kinds=kinds)
