"""State-space models: Mamba 1 and 2 alone, and the parts that hybrids are made of."""

from __future__ import annotations

from sizeup.models.anatomy.family import Anatomy, Sizes, text_frame
from sizeup.models.anatomy.parts import Part, Tensors, linear, norm, norm_tensors, stack_of, weight
from sizeup.models.config import MAX_LAYERS, Config
from sizeup.models.mixers import StateSpace

STATE = "state_space"


def convolution(name: str, channels: int, kernel: int, *, bias: bool, role: str = STATE, part: str = "conv") -> Tensors:
    """A causal convolution, one filter for each channel: (channels, 1, kernel)."""
    filters = weight(f"{name}.weight", (channels, 1, kernel), role, part)
    return (*filters, *weight(f"{name}.bias", (channels,), role, part)) if bias else filters


def mamba1(
    mixer: StateSpace,
    hidden: int,
    rank: int,
    *,
    name: str = "mixer",
    bias: bool = False,
    conv_bias: bool = True,
    inner_norms: bool = False,
) -> Part:
    """Mamba: x and gate in one projection; step, input and output matrices of the scan depend on x.

    rank: of the step size's projection. inner_norms: norms on step, input and output matrices (Jamba).
    """
    inner, state = mixer.inner, mixer.state
    norms: Tensors = ()
    if inner_norms:
        norms = (
            *norm_tensors(f"{name}.dt_layernorm", rank),
            *norm_tensors(f"{name}.b_layernorm", state),
            *norm_tensors(f"{name}.c_layernorm", state),
        )
    tensors = (
        *linear(f"{name}.in_proj", 2 * inner, hidden, STATE, "in", bias=bias),
        *convolution(f"{name}.conv1d", inner, mixer.conv_kernel, bias=conv_bias),
        *linear(f"{name}.x_proj", rank + 2 * state, inner, STATE, "x"),
        *linear(f"{name}.dt_proj", inner, rank, STATE, "dt", bias=True),
        *weight(f"{name}.A_log", (inner, state), STATE, "a"),
        *weight(f"{name}.D", (inner,), STATE, "d"),
        *linear(f"{name}.out_proj", hidden, inner, STATE, "out", bias=bias),
        *norms,
    )
    return Part(tensors, (mixer,))


def mamba2(
    mixer: StateSpace,
    hidden: int,
    *,
    name: str = "mixer",
    bias: bool = False,
    out_bias: bool | None = None,
    conv_bias: bool = True,
    gated_norm: bool = True,
) -> Part:
    """Mamba 2: gate, x, input and output matrices and step in one projection; one decay per head.

    gated_norm: a norm before the output projection.
    """
    rows = mixer.inner + mixer.conv_channels + mixer.heads
    tensors = (
        *linear(f"{name}.in_proj", rows, hidden, STATE, "in", bias=bias),
        *convolution(f"{name}.conv1d", mixer.conv_channels, mixer.conv_kernel, bias=conv_bias),
        *weight(f"{name}.A_log", (mixer.heads,), STATE, "a"),
        *weight(f"{name}.D", (mixer.heads,), STATE, "d"),
        *weight(f"{name}.dt_bias", (mixer.heads,), STATE, "dt"),
        *(norm_tensors(f"{name}.norm", mixer.inner) if gated_norm else ()),
        *linear(f"{name}.out_proj", hidden, mixer.inner, STATE, "out", bias=bias if out_bias is None else out_bias),
    )
    return Part(tensors, (mixer,))


def state_space1(inner: int, state: int, kernel: int) -> StateSpace:
    """What a Mamba layer keeps: inner · state elements, and a convolution over the inner channels."""
    return StateSpace(1, inner, state, kernel, inner)


def state_space2(inner: int, state: int, kernel: int, groups: int, heads: int) -> StateSpace:
    """What a Mamba 2 layer keeps; its convolution also runs over the input and output matrices of every group."""
    return StateSpace(2, inner, state, kernel, inner + 2 * groups * state, groups, heads)


def time_rank(cfg: Config, name: str, hidden: int) -> int:
    """The rank of the step size's projection; `auto` means hidden / 16, rounded up."""
    if cfg.get(name) == "auto" or not cfg.has(name):
        return -(-hidden // 16)
    return cfg.int(name)


def bare_sizes(cfg: Config, heads: int = 1) -> Sizes:
    """The sizes of a model without attention."""
    hidden = cfg.int("hidden_size", "d_model")
    return Sizes(
        hidden=hidden,
        layers=cfg.int("num_hidden_layers", "n_layer", max=MAX_LAYERS),
        heads=heads,
        kv_heads=heads,
        head_dim=max(1, hidden // heads),
        ffn=hidden,
        vocabulary=cfg.int("vocab_size"),
        context=None,
    )


def _frame(cfg: Config, s: Sizes, mix: Part, prefix: str) -> Anatomy:
    stack = stack_of(
        f"{prefix}.layers",
        ["state space"] * s.layers,
        lambda _: [mix, norm("norm", s.hidden)],
        label=lambda _: "state-space layer",
    )
    return text_frame(cfg, s, stack, prefix=prefix, embedding="embeddings", final_norm="norm_f", tied=True)


def mamba(cfg: Config, prefix: str = "backbone") -> Anatomy:
    """Nothing but Mamba layers with a norm before each. The inner width is expand · hidden unless it is given."""
    s = bare_sizes(cfg)
    inner = cfg.int("intermediate_size", default=cfg.int("expand", default=2) * s.hidden)
    mixer = state_space1(inner, cfg.int("state_size", default=16), cfg.int("conv_kernel", default=4))
    part = mamba1(
        mixer,
        s.hidden,
        time_rank(cfg, "time_step_rank", s.hidden),
        bias=cfg.bool("use_bias", default=False),
        conv_bias=cfg.bool("use_conv_bias", default=True),
    )
    return _frame(cfg, s, part, prefix)


def mamba2_model(cfg: Config, prefix: str = "backbone") -> Anatomy:
    """Nothing but Mamba 2 layers with a norm before each."""
    heads = cfg.int("num_heads")
    s = bare_sizes(cfg)
    inner = int(cfg.float("expand", min=0, default=2) * s.hidden) or 1
    state, groups = cfg.int("state_size", default=128), cfg.int("n_groups", default=8)
    mixer = state_space2(inner, state, cfg.int("conv_kernel", default=4), groups, heads)
    part = mamba2(
        mixer,
        s.hidden,
        bias=cfg.bool("use_bias", default=False),
        conv_bias=cfg.bool("use_conv_bias", default=True),
    )
    return _frame(cfg, s, part, prefix)


def mamba_ssm(cfg: Config, prefix: str = "backbone") -> Anatomy:
    """Mamba as its authors' own package writes it: the vocabulary is rounded up, `ssm_cfg` holds what differs."""
    inner = cfg.optional_sub("ssm_cfg") or Config({}, cfg.origin, "ssm_cfg")
    step = cfg.int("pad_vocab_size_multiple", default=8)
    expand = inner.int("expand", default=2)
    fields = {
        "vocab_size": -(-cfg.int("vocab_size") // step) * step,
        "hidden_size": cfg.int("d_model"),
        "num_hidden_layers": cfg.int("n_layer", max=MAX_LAYERS),
        "tie_word_embeddings": cfg.bool("tie_embeddings", default=True),
        "conv_kernel": inner.int("d_conv", default=4),
        "expand": expand,
    }
    if inner.str("layer", default="Mamba1") == "Mamba2":
        heads = max(1, expand * fields["hidden_size"] // inner.int("headdim", default=64))
        fields |= {"num_heads": heads, "n_groups": inner.int("ngroups", default=1)}
        fields["state_size"] = inner.int("d_state", default=128)
        return mamba2_model(Config(fields, cfg.origin), prefix)
    fields["state_size"] = inner.int("d_state", default=16)
    return mamba(Config(fields, cfg.origin), prefix)
