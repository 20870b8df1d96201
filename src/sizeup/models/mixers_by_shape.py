"""What a layer remembers, read off its tensors' shapes and the configuration: for architectures nobody has described.

q, k, v (or one q·k·v)      attention; heads from the configuration, else usual ones
kv_a, kv_b                  latent attention, when the configuration names its dimensions
A_log, conv                 Mamba 1 (A_log: inner × state) or 2 (A_log: heads)
"""

from __future__ import annotations

from sizeup.errors import BadConfig
from sizeup.models.config import Config
from sizeup.models.mixers import Attention, LatentAttention, Mixer, StateSpace
from sizeup.models.tensors import Tensor

#: Elements of a head when nothing says so; the cache depends on the width of the projections only.
USUAL_HEAD = 128
ASSUMED_HEADS = f"heads of {USUAL_HEAD} assumed: the files don't say, and the cache doesn't depend on it"

_CROSS_WORDS = frozenset({"cross_attn", "crossattention", "encoder_attn", "EncDecAttention", "cross_attention"})


def mixers_of(tensors: tuple[Tensor, ...], cfg: Config, stack: str, layer: int) -> tuple[Mixer, ...]:
    """The mixers of one layer; empty when its tensors say nothing of memory."""
    attending = [tensor for tensor in tensors if tensor.role == "attention" and tensor.is_matrix]
    crossing = [tensor for tensor in attending if not _CROSS_WORDS.isdisjoint(tensor.name.split("."))]
    own = [tensor for tensor in attending if tensor not in crossing]
    causal = stack not in {"encoder", "vision", "audio"}
    found = [
        _latent(own, cfg) or _attention(own, cfg, causal=causal, window=_window(cfg, layer)),
        _attention(crossing, cfg, causal=False, cross=True),
        _state_space(tensors, cfg),
    ]
    return tuple(mixer for mixer in found if mixer is not None)


def _attention(
    tensors: list[Tensor], cfg: Config, *, causal: bool, window: int | None = None, cross: bool = False
) -> Attention | None:
    rows = {tensor.part: max(tensor.shape[0], 1) for tensor in tensors}
    heads = _integer(cfg, "num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads")
    size = _integer(cfg, "head_dim", "d_kv")
    if "qkv" in rows and heads:
        kv_heads = _integer(cfg, "num_key_value_heads", "num_kv_heads") or heads
        size = size or max(1, max(tensors[0].shape) // (heads + 2 * kv_heads))
        return Attention(heads, kv_heads, size, size, window=window, causal=causal, cross=cross)
    if "q" not in rows:
        return None
    size = size or (max(1, rows["q"] // heads) if heads else USUAL_HEAD)
    size = rows["q"] if rows["q"] % size else size
    kv_heads = max(1, rows.get("k", rows["q"]) // size)
    value_dim = max(1, rows.get("v", rows.get("k", rows["q"])) // kv_heads)
    return Attention(rows["q"] // size, kv_heads, size, value_dim, window=window, causal=causal, cross=cross)


def _latent(tensors: list[Tensor], cfg: Config) -> LatentAttention | None:
    parts = {tensor.part for tensor in tensors}
    if not {"kv_a", "kv_b"} <= parts:
        return None
    try:
        return LatentAttention(
            heads=cfg.int("num_attention_heads"),
            kv_rank=cfg.int("kv_lora_rank"),
            rope_dim=cfg.int("qk_rope_head_dim", min=0),
            nope_dim=cfg.int("qk_nope_head_dim", min=0),
            value_dim=cfg.int("v_head_dim"),
            q_rank=_integer(cfg, "q_lora_rank") if "q_a" in parts else None,
        )
    except BadConfig:
        return None


def _window(cfg: Config, layer: int) -> int | None:
    """The window of a layer, when the configuration lists kinds of layers or windows them all."""
    window = _integer(cfg, "sliding_window")
    kinds = cfg.get("layer_types")
    if isinstance(kinds, list) and layer < len(kinds):
        return window if kinds[layer] == "sliding_attention" else None
    return window if cfg.get("model_type") == "mistral" else None


def _integer(cfg: Config, *names: str) -> int | None:
    """A positive integer; None for anything else (a list by stage, 0), since the shapes still say something."""
    try:
        return cfg.optional_int(*names)
    except BadConfig:
        return None


def _state_space(tensors: tuple[Tensor, ...], cfg: Config) -> StateSpace | None:
    by_end = {tensor.name.rpartition(".")[2]: tensor for tensor in tensors}
    decay = by_end.get("A_log")
    conv = next((t for t in tensors if "conv1d" in t.name and len(t.shape) == 3 and t.name.endswith("weight")), None)
    out = next((t for t in tensors if t.name.endswith("out_proj.weight") and t.role == "state_space"), None)
    if decay is None or conv is None or out is None:
        return None
    channels, kernel, inner = conv.shape[0], conv.shape[-1], out.shape[-1]
    if len(decay.shape) == 2:
        return StateSpace(1, inner, decay.shape[1], kernel, channels)
    state = _integer(cfg, "state_size", "ssm_state_size", "mamba_d_state")
    if not state:
        return None
    groups = max(1, (channels - inner) // (2 * state))
    return StateSpace(2, inner, state, kernel, channels, groups, decay.shape[0])
