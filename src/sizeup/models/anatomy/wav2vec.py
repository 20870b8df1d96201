"""wav2vec 2.0 and its relatives: convolutions over the waveform, a convolution for positions, a BERT over sound."""

from __future__ import annotations

from sizeup.models.anatomy.audio import listen
from sizeup.models.anatomy.family import Anatomy, Sizes, sizes
from sizeup.models.anatomy.parts import Part, Tensors, block, linear, norm_tensors, plain_mlp, weight
from sizeup.models.anatomy.towers import class_of, conv, labels_of, layer_norm, projected_attention, two_way
from sizeup.models.config import Config


def waveform(cfg: Config, *, every_norm: bool | None = None) -> Tensors:
    """The convolutions over the waveform. With `feat_extract_norm: group` only the first has a norm."""
    widths, kernels = cfg.ints("conv_dim") or (), cfg.ints("conv_kernel") or ()
    if len(widths) != len(kernels):
        raise cfg.bad("conv_kernel", list(kernels), f"a list of {len(widths)} numbers, as conv_dim is")
    bias = cfg.bool("conv_bias", default=False)
    layered = cfg.str("feat_extract_norm", default="group") == "layer" if every_norm is None else every_norm
    tensors: Tensors = ()
    inputs = 1
    for number, (width, kernel) in enumerate(zip(widths, kernels, strict=True)):
        name = f"feature_extractor.conv_layers.{number}"
        tensors += conv(f"{name}.conv", width, inputs, kernel, bias=bias)
        if layered or number == 0:
            tensors += norm_tensors(f"{name}.layer_norm", width, bias=True)
        inputs = width
    return tensors


def positions(cfg: Config, s: Sizes) -> Tensors:
    """One wide convolution over time, its weight stored as direction and length."""
    kernel, groups = cfg.int("num_conv_pos_embeddings"), cfg.int("num_conv_pos_embedding_groups")
    name = "encoder.pos_conv_embed.conv"
    return (
        *weight(f"{name}.bias", (s.hidden,), "embedding", "positions"),
        *weight(f"{name}.parametrizations.weight.original0", (1, 1, kernel), "embedding", "positions"),
        *weight(
            f"{name}.parametrizations.weight.original1",
            (s.hidden, max(1, s.hidden // groups), kernel),
            "embedding",
            "positions",
        ),
    )


def stacked_positions(cfg: Config, s: Sizes) -> Tensors:
    """Several narrower convolutions over time (data2vec)."""
    kernel, groups = cfg.int("conv_pos_kernel_size"), cfg.int("num_conv_pos_embedding_groups")
    return tuple(
        tensor
        for number in range(cfg.int("num_conv_pos_embeddings", max=1000))
        for tensor in conv(
            f"encoder.pos_conv_embed.layers.{number}.conv",
            s.hidden,
            max(1, s.hidden // groups),
            kernel,
            part="positions",
        )
    )


def wav2vec2(cfg: Config, root: str = "wav2vec2", *, stacked: bool = False) -> Anatomy:
    """The encoder; `…ForCTC` has a head over characters, `…ForSequenceClassification` a projection and labels.

    `adapter_attn_dim` adds a small adapter to every layer (MMS), where norms stand before the halves.
    """
    s = sizes(Config({"vocab_size": 32} | cfg.data, cfg.origin, cfg.path))
    name = class_of(cfg, "ForCTC")
    bare = name.endswith("Model")
    adapter: Tensors = ()
    width = cfg.optional_int("adapter_attn_dim")
    if width and cfg.bool("do_stable_layer_norm", default=False):
        adapter = (
            *norm_tensors("adapter_layer.norm", s.hidden, bias=True),
            *linear("adapter_layer.linear_1", width, s.hidden, "mlp", "up", bias=True),
            *linear("adapter_layer.linear_2", s.hidden, width, "mlp", "down", bias=True),
        )

    def layer(_: str) -> list[Part]:
        return [
            projected_attention(two_way(s.heads, s.hidden), s.hidden, name="attention"),
            layer_norm("layer_norm", s.hidden),
            plain_mlp(s.hidden, s.ffn, name="feed_forward", names=("intermediate_dense", "output_dense")),
            layer_norm("final_layer_norm", s.hidden),
            Part(adapter),
        ]

    last = (cfg.ints("conv_dim") or (512,))[-1]
    masked = any(
        cfg.float(f"mask_{axis}_prob", default=0.05 if axis == "time" else 0) > 0 for axis in ("time", "feature")
    )
    before = (
        *(weight("masked_spec_embed", (s.hidden,), "embedding", "mask") if masked else ()),
        *waveform(cfg, every_norm=True if stacked else None),
        *(norm_tensors("feature_projection.layer_norm", last, bias=True) if _normed(cfg) else ()),
        *linear("feature_projection.projection", s.hidden, last, "embedding", "projection", bias=True),
        *(stacked_positions(cfg, s) if stacked else positions(cfg, s)),
        *norm_tensors("encoder.layer_norm", s.hidden, bias=True),
    )
    blocks = listen("" if bare else root, s.layers, layer, before=before, stack="encoder.layers")
    output = () if bare else _head(cfg, name, s)
    return Anatomy((*blocks, *((block("output", output),) if output else ())), s.hidden, s.vocabulary)


def _normed(cfg: Config) -> bool:
    return cfg.bool("feat_proj_layer_norm", default=True)


def _head(cfg: Config, name: str, s: Sizes) -> Tensors:
    if name.endswith("ForCTC"):
        return linear("lm_head", s.vocabulary, s.hidden, "head", "head", bias=True)
    if name.endswith("ForSequenceClassification"):
        width = cfg.int("classifier_proj_size", default=256)
        return (
            *linear("projector", width, s.hidden, "head", "projection", bias=True),
            *linear("classifier", labels_of(cfg), width, "head", "classifier", bias=True),
        )
    return ()


def hubert(cfg: Config) -> Anatomy:
    """wav2vec 2.0 that learned from clusters."""
    return wav2vec2(cfg, "hubert")


def unispeech(cfg: Config) -> Anatomy:
    """wav2vec 2.0 that learned from phonemes."""
    return wav2vec2(cfg, "unispeech")


def data2vec_audio(cfg: Config) -> Anatomy:
    """wav2vec 2.0 with several convolutions for positions."""
    return wav2vec2(cfg, "data2vec_audio", stacked=True)
