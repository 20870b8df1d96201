"""Step-3.5 and Step-3.7: Qwen3's attention with a gate on each head, more heads in windowed layers, stacked experts."""

from __future__ import annotations

from sizeup.models.anatomy.compose import composed, projector
from sizeup.models.anatomy.family import (
    DENSE,
    FULL,
    PRE_NORMS,
    SLIDING,
    SPARSE,
    Anatomy,
    Sizes,
    decoder,
    layer_kinds,
    sizes,
)
from sizeup.models.anatomy.moe import expert_count, experts_per_token
from sizeup.models.anatomy.mtp import mtp_count, with_layers
from sizeup.models.anatomy.parts import (
    Part,
    attention,
    gated_mlp,
    linear,
    mixture,
    norm_tensors,
    weight,
)
from sizeup.models.anatomy.towers import conv, two_way
from sizeup.models.anatomy.vision import Blocks, pair, tower_sizes, vit
from sizeup.models.config import Config
from sizeup.models.mixers import Attention
from sizeup.models.tensors import Tensor


def step3p5(cfg: Config, prefix: str = "model") -> Anatomy:
    """Windowed layers may have another number of heads; experts lie in three stacks beside one shared expert."""
    s = _step_sizes(cfg)
    other = cfg.optional_sub("attention_other_setting")
    heads = cfg.int(
        "num_sliding_attention_heads", default=other.int("num_attention_heads", default=s.heads) if other else s.heads
    )
    bias, mlp_bias = cfg.bool("attention_bias", default=False), cfg.bool("mlp_bias", default=False)

    def mix(kind: str) -> Part:
        windowed = kind == SLIDING
        window = cfg.optional_int("sliding_window") if windowed else None
        mixer = Attention(heads if windowed else s.heads, s.kv_heads, s.head_dim, s.head_dim, window=window)
        gate = linear("self_attn.g_proj", mixer.heads, s.hidden, "attention", "gate")
        return attention(mixer, s.hidden, qkv_bias=bias, output_bias=bias, qk_norm="head", extra=gate)

    def half(kind: str) -> Part:
        return gated_mlp(s.hidden, s.ffn, bias=mlp_bias) if kind == DENSE else _experts(cfg, s)

    anatomy = decoder(
        cfg,
        prefix,
        s=s,
        kinds=layer_kinds(cfg, s.layers, known=(FULL, SLIDING)),
        halves=_halves(cfg, s.layers),
        mix=mix,
        feed_forward=half,
    )
    around = (
        *(t for name in ("enorm", "hnorm", *PRE_NORMS) for t in norm_tensors(name, s.hidden)),
        *linear("eh_proj", s.hidden, 2 * s.hidden, "mtp", "eh_proj"),
        *norm_tensors("transformer.shared_head.norm", s.hidden),
        *linear("transformer.shared_head.output", s.vocabulary, s.hidden, "mtp", "head"),
    )
    predicting = [mix(_prediction_kind(cfg, s.layers)), half(DENSE), Part(around)]
    return with_layers(anatomy, predicting, _predicted(cfg), f"{prefix}.layers", first=s.layers)


def _predicted(cfg: Config) -> int:
    return mtp_count(cfg, "num_nextn_predict_layers", "num_mtp_layers")


def _prediction_kind(cfg: Config, layers: int) -> str:
    """What mixes tokens in a prediction layer: as `layer_types` goes on after the model's own."""
    listed = cfg.strs("layer_types") or ()
    return SLIDING if SLIDING in listed[layers : layers + 1] else FULL


def _step_sizes(cfg: Config) -> Sizes:
    """Key heads are also called attention groups."""
    groups = {"num_key_value_heads": cfg.get("num_attention_groups", "num_key_value_heads")}
    return sizes(Config(cfg.data | groups, cfg.origin, cfg.path))


def _halves(cfg: Config, layers: int) -> list[str]:
    """`mlp_layer_types`, or the layer numbers in `moe_layers_enum` (text with commas); else all but the first three."""
    listed = cfg.strs("mlp_layer_types")
    if listed is not None:
        return layer_kinds(cfg, layers, DENSE, "mlp_layer_types", known=(DENSE, SPARSE))
    text = cfg.get("moe_layers_enum")
    if isinstance(text, str):
        sparse = {int(word) for word in text.split(",") if word.strip().isdecimal()}
    else:
        sparse = set(cfg.ints("moe_layers_enum", min=0) or range(3, layers))
    return [SPARSE if layer in sparse else DENSE for layer in range(layers)]


def _experts(cfg: Config, s: Sizes) -> Part:
    count, width = expert_count(cfg, "moe_num_experts", "n_routed_experts"), cfg.int("moe_intermediate_size")
    used = experts_per_token(cfg, count, "moe_top_k", "num_experts_per_tok")
    shapes = {"gate": (width, s.hidden), "up": (width, s.hidden), "down": (s.hidden, width)}
    stacks = tuple(
        Tensor(f"moe.{part}_proj.weight", shape, "routed_expert", part, count, used, fused="stacked")
        for part, shape in shapes.items()
    )
    shared = cfg.int("share_expert_dims", "share_expert_dim", default=width)
    return mixture(
        s.hidden,
        width,
        count,
        used,
        router="moe.gate",
        correction="moe.router_bias",
        routed=stacks,
        shared=gated_mlp(s.hidden, shared, name="share_expert", role="shared_expert"),
    )


def step_vision(cfg: Config, prefix: str) -> Blocks:
    """CLIP by OpenAI's names with a learned scale after each half and no norm after the layers."""
    own = {"hidden_size": "width", "num_hidden_layers": "layers", "num_attention_heads": "heads"}
    named = {name: cfg.get(older, name) for name, older in own.items()}
    s = tower_sizes(Config(cfg.data | named, cfg.origin, cfg.path))
    ffn = int(s.hidden * cfg.float("mlp_ratio", min=0.01, max=1000, default=8960 / 1536)) or 1
    (height, width), (down, across) = pair(cfg, "image_size"), pair(cfg, "patch_size")
    places = max(1, height // down) * max(1, width // across)
    attend = (
        *weight("attn.in_proj_weight", (3 * s.hidden, s.hidden), "attention", "qkv"),
        *weight("attn.in_proj_bias", (3 * s.hidden,), "attention", "qkv"),
        *linear("attn.out_proj", s.hidden, s.hidden, "attention", "o", bias=True),
    )
    forward = (
        *linear("mlp.c_fc", ffn, s.hidden, "mlp", "up", bias=True),
        *linear("mlp.c_proj", s.hidden, ffn, "mlp", "down", bias=True),
    )
    around = (
        *(t for half in (1, 2) for t in norm_tensors(f"ln_{half}", s.hidden, bias=True)),
        *(t for half in (1, 2) for t in weight(f"ls_{half}.gamma", (s.hidden,), "norm", "scale")),
    )
    layer = [Part(attend, (two_way(s.heads, s.hidden),)), Part(forward), Part(around)]
    embeddings = (
        *conv("conv1", s.hidden, s.channels, down, across, part="patch", bias=False),
        *weight("positional_embedding", (places, s.hidden), "embedding", "positions"),
        *norm_tensors("ln_pre", s.hidden, bias=True),
    )
    return vit(prefix, s, lambda _: layer, embeddings=embeddings, stack="transformer.resblocks")


def step3p7(cfg: Config) -> Anatomy:
    """The tower, two convolutions that halve the image and double its channels, one projection, Step-3.5."""
    vision = cfg.sub("vision_config")
    width, hidden = vision.int("width", "hidden_size"), cfg.sub("text_config").int("hidden_size")
    between = (
        *conv("vision_model.vit_downsampler1", 2 * width, width, 3, 3),
        *conv("vision_model.vit_downsampler2", 4 * width, 2 * width, 3, 3),
        *linear(
            "vit_large_projector", hidden, 4 * width, "projector", "up", bias=cfg.bool("projector_bias", default=False)
        ),
    )
    parts = (*step_vision(vision, "vision_model"), *projector(between))
    return composed(cfg, parts, prefix="model", assumed="step3p5")
