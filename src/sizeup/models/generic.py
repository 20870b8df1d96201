"""An estimate for architectures that nobody has described: the decoder that the usual sizes would make.

Relative error of the total, measured on configurations whose anatomy is known (tests/models/test_from_config.py):
within the uncertainty that goes with the estimate for nine of ten.
"""

from __future__ import annotations

from sizeup.errors import SizeupError
from sizeup.models.anatomy.family import Anatomy, sizes
from sizeup.models.config import MAX_EXPERTS, Config
from sizeup.models.shape import Shape, decoder

#: Relative error of an estimate: of a plain decoder; when nothing says whether the feed-forward is gated; when the
#: configuration names parts that the estimate leaves out.
UNCERTAINTY = 0.15
UNCERTAIN_FEED_FORWARD = 0.4
UNCERTAIN_PARTS = 0.7

_UNSEEN = ("vision_config", "audio_config", "vision_tower", "kv_lora_rank", "layers_block_type", "layer_block_types")
_UNSEEN_PREFIXES = ("mamba_", "ssm_", "linear_", "conv_", "hybrid_", "rwkv", "moe_layer", "interleave_moe")

_ACTIVATIONS = ("hidden_act", "activation_function", "hidden_activation", "mlp_hidden_act", "activation")
_EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts", "n_experts")
_PER_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "num_selected_experts", "top_k")
_EXPERT_WIDTH = ("moe_intermediate_size", "expert_intermediate_size", "expert_hidden_size", "intermediate_size")
_SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
_NESTED = ("text_config", "llm_config", "language_config", "thinker_config", "decoder")
_WIDTHS = ("intermediate_size", "n_inner", "ffn_dim", "d_ff")
_PLAIN_ACTIVATIONS = frozenset({"gelu", "gelu_new", "gelu_fast", "gelu_python", "quick_gelu", "relu", "relu2", "xielu"})


def looks_like_decoder(cfg: Config) -> bool:
    """Whether it names the four sizes that a decoder can't do without."""
    return all(
        cfg.has(*names)
        for names in (
            ("hidden_size", "n_embd", "d_model"),
            ("num_hidden_layers", "n_layer", "n_layers"),
            ("num_attention_heads", "n_head", "n_heads"),
            ("vocab_size",),
        )
    )


def text_part(cfg: Config) -> Config:
    """The part that describes the text decoder: nested in multimodal configurations, else the whole."""
    nested = (cfg.data.get(name) for name in _NESTED)
    for name, value in zip(_NESTED, nested, strict=True):
        if isinstance(value, dict) and looks_like_decoder(cfg.sub(name)):
            return cfg.sub(name)
    return cfg


def generic_anatomy(cfg: Config) -> Anatomy | None:
    """The decoder of the usual sizes; None when the configuration doesn't name them."""
    text = text_part(cfg)
    if not looks_like_decoder(text):
        return None
    return decoder(_shape(text, tied=_tied(cfg, text)))


def uncertainty_of(cfg: Config) -> float:
    """The relative error that the estimate of this configuration may have."""
    text = text_part(cfg)
    names = [*cfg.data, *text.data]
    if any(name in _UNSEEN or name.startswith(_UNSEEN_PREFIXES) for name in names):
        return UNCERTAIN_PARTS
    return UNCERTAINTY if text.has(*_ACTIVATIONS) else UNCERTAIN_FEED_FORWARD


def _tied(cfg: Config, text: Config) -> bool:
    """Whether the head is tied; configurations that don't say were written where tied was the default."""
    return text.bool("tie_word_embeddings", default=cfg.bool("tie_word_embeddings", default=True))


def _shape(cfg: Config, *, tied: bool) -> Shape:
    s = sizes(_averaged(cfg))
    experts = cfg.int(*_EXPERTS, min=0, max=MAX_EXPERTS, default=0)
    plain = _activation(cfg) in _PLAIN_ACTIVATIONS or not cfg.has(*_WIDTHS)
    return Shape(
        layers=s.layers,
        embedding=s.hidden,
        heads=s.heads,
        vocabulary=s.vocabulary,
        kv_heads=1 if cfg.get("multi_query") is True else s.kv_heads,
        head_dim=s.head_dim,
        ffn=s.ffn,
        gated=not plain,
        experts=experts,
        experts_per_token=cfg.int(*_PER_TOKEN, max=max(1, experts), default=min(2, experts)) if experts else 0,
        expert_ffn=cfg.int(*_EXPERT_WIDTH, default=s.ffn) if experts else 0,
        shared_experts=cfg.int(*_SHARED, min=0, max=MAX_EXPERTS, default=0) if experts else 0,
        tied=tied,
        qkv_bias=cfg.bool("attention_bias", "qkv_bias", "use_qkv_bias", default=False),
        context=s.context,
    )


def _averaged(cfg: Config) -> Config:
    """Sizes that differ from layer to layer (a list of them) replaced by their average."""
    data = dict(cfg.data)
    for name in ("intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim"):
        values = data.get(name)
        if isinstance(values, list):
            sizes_by_layer = [size for size in cfg.ints(name, min=0) or () if size]
            data[name] = round(sum(sizes_by_layer) / len(sizes_by_layer)) if sizes_by_layer else None
    return Config(data, cfg.origin, cfg.path)


def _activation(cfg: Config) -> str:
    try:
        return cfg.str(*_ACTIVATIONS, default="silu")
    except SizeupError:
        return "silu"
