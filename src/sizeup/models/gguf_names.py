"""llama.cpp's tensor names: what each is for.

A name is `blk.3.attn_q.weight`: tower and layer, stem, suffix. The tables map stems to roles and parts.
Source: src/llama-arch.cpp and tools/mtmd/clip-impl.h, llama.cpp 0c1e570 (October 2026).
"""

from __future__ import annotations

import msgspec

#: role → `stem:part` of everything that isn't named by a rule below.
_STEMS = {
    "embedding": "token_embd:tokens position_embd:positions token_types:types per_layer_token_embd:per_layer_tokens",
    "attention": (
        "attn_q:q attn_k:k attn_v:v attn_qkv:qkv attn_kv:kv attn_output:o attn_o:o attn_out:o attn_gate:gate "
        "attn_q_a:q_a attn_q_b:q_b attn_kv_a_mqa:kv_a attn_kv_b:kv_b attn_k_b:k_b attn_v_b:v_b "
        "attn_output_a:o_a attn_output_b:o_b attn_sinks:sinks attn_rel_b:rel_b attn_rot_embd:rope "
        "cross_attn_q:q cross_attn_k:k cross_attn_v:v cross_attn_o:o cross_attn_rel_b:rel_b "
        "indexer.proj:indexer_weights indexer.attn_k:indexer_k indexer.attn_q_b:indexer_q "
        "indexer.q_proj:indexer_q indexer.k_proj:indexer_k"
    ),
    "mlp": (
        "ffn_gate:gate ffn_up:up ffn_down:down channel_mix_key:up channel_mix_value:down "
        "channel_mix_receptance:gate channel_mix_lerp_k:shift channel_mix_lerp_r:shift "
        "inp_gate:per_layer_gate proj:per_layer_proj per_layer_model_proj:per_layer_proj ffn.act:activation "
        "ffn_routed_down:latent_down ffn_routed_up:latent_up ffn_latent_down:latent_down ffn_latent_up:latent_up "
        "altup_proj:altup altup_unembd_proj:altup altup_correct_coef:altup altup_correct_scale:altup "
        "altup_predict_coef:altup altup_router:altup laurel_l:laurel laurel_r:laurel fc:in"
    ),
    "routed_expert": (
        "ffn_gate_exps:gate ffn_up_exps:up ffn_down_exps:down ffn_gate_up_exps:gate_up "
        "ffn_gate_chexps:gate ffn_up_chexps:up ffn_down_chexps:down"
    ),
    "shared_expert": "ffn_gate_shexp:gate ffn_up_shexp:up ffn_down_shexp:down ffn_gate_inp_shexp:shared_gate",
    "router": "ffn_gate_inp:router",
    "state_space": (
        "ssm_in:in ssm_x:x ssm_dt:dt ssm_a:a ssm_d:d ssm_conv1d:conv ssm_out:out "
        "shortconv.conv:conv shortconv.in_proj:in shortconv.out_proj:out"
    ),
    "linear_attention": (
        "ssm_ba:ba ssm_alpha:alpha ssm_beta:beta ssm_f_a:f_a ssm_f_b:f_b ssm_g:g ssm_g_a:g_a ssm_g_b:g_b "
        "ssm_conv1d_q:conv ssm_conv1d_k:conv ssm_conv1d_v:conv"
    ),
    "head": "output:head cls:pooler cls.output:classifier cls.norm:norm dense_2:dense dense_3:dense",
    "buffer": (
        "rope_freqs:rope rope_factors_long:rope rope_factors_short:rope exp_probs_b:router_correction "
        "exp_probs_b_vl:router_correction ffn_gate_tid2eid:table layer_output_scale:scale "
        "masked_embd_ordering:table d2t:table out_scale:scale"
    ),
}  # fmt: skip

#: Stems that end like this are norms; `token_embd_norm`, `attn_q_norm`, `post_ffw_norm_1`, `ln1` …
_NORM_ENDINGS = ("_norm", "norm", "_norm_1", "_norm_2", "ln1", "ln2", "pre_ln", "post_ln", "norm_exps")

#: Scales beside a quantized tensor (NVFP4): `blk.0.ffn_up.scale`, `….input_scale`.
_SCALE_SUFFIXES = frozenset({"scale", "input_scale", "scales"})

_TABLE = {
    stem: (role, part)
    for role, entries in _STEMS.items()
    for stem, _, part in (entry.partition(":") for entry in entries.split())
}

#: The linear attentions (gated delta nets) reuse these stems of attention and state space.
_LINEAR = frozenset({"attn_qkv", "attn_gate", "ssm_a", "ssm_dt", "ssm_conv1d", "ssm_out", "ssm_in"})

_TOWERS = {"v": "vision", "a": "audio", "mm": "projector", "resampler": "projector", "adapter": "projector"}


class GgufName(msgspec.Struct, frozen=True):
    """The pieces of a name: `dec.blk.0.ffn_up.weight` is (decoder, `dec.blk`, 0, `ffn_up`, `weight`).

    layer: None outside the layers, where prefix is empty.
    """

    stack: str
    prefix: str
    layer: int | None
    stem: str
    suffix: str

    @property
    def template(self) -> str:
        """The whole name with `{layer}` and `{copy}` for the layer's and the expert's number."""
        stem = self.stem if expert_number(self.stem) is None else f"{self.stem.rpartition('.')[0]}.{{copy}}"
        ending = f".{self.suffix}" if self.suffix else ""
        return f"{self.prefix}.{{layer}}.{stem}{ending}" if self.layer is not None else f"{stem}{ending}"


def split_name(name: str) -> GgufName:
    """The pieces of a tensor's name."""
    body, dot, suffix = name.rpartition(".")
    if not dot or suffix not in {"weight", "bias", *_SCALE_SUFFIXES}:
        body, suffix = name, ""
    parts = body.split(".")
    for place, part in enumerate(parts[:-2]):
        number = parts[place + 1]
        if part.endswith("blk") and number.isdecimal() and len(number) < 6:
            stem = ".".join(parts[place + 2 :])
            return GgufName(_stack(parts[0]), ".".join(parts[: place + 1]), int(number), stem, suffix)
    return GgufName(_stack(parts[0]), "", None, body.removeprefix("enc.").removeprefix("dec."), suffix)


def _stack(first: str) -> str:
    return {"enc": "encoder", "dec": "decoder", **_TOWERS}.get(first, "text")


def role_of(name: GgufName, stems: frozenset[str]) -> tuple[str, str]:
    """(role, part) of a tensor. stems: all stems of its layer, because linear attentions borrow names.

    A stem that isn't known is `mlp` when it begins with `ffn`, `linear_attention` for RWKV's `time_mix_…`, otherwise
    `attention` inside a layer and `embedding` outside.
    """
    stack, stem, suffix = name.stack, name.stem, name.suffix
    if suffix in _SCALE_SUFFIXES:
        return "scale", "scale"
    if stack in {"vision", "audio", "projector"}:
        return stack, _part_in_tower(stem)
    base = stem.removesuffix(".0") if stem.startswith("nextn") else _without_number(stem)
    if base.startswith(("nextn.", "mtp.")):
        return "mtp", base.partition(".")[2]
    if base.startswith("time_mix_") and not base.endswith("_ln"):
        return "linear_attention", base.removeprefix("time_mix_")
    if base in _LINEAR and is_linear(stems):
        return "linear_attention", _TABLE.get(base, ("", base.removeprefix("ssm_")))[1]
    if base in _TABLE:
        return _TABLE[base]
    if base.endswith(_NORM_ENDINGS) or base == "time_mix_ln":
        return "norm", base
    if base.startswith(("ffn", "hc_ffn")):
        return "mlp", base
    return ("attention", base) if stems else ("embedding", base)


def is_linear(stems: frozenset[str]) -> bool:
    """Whether a layer with these stems is a gated delta net (not Mamba)."""
    return not stems.isdisjoint({"ssm_ba", "ssm_beta", "ssm_alpha", "ssm_f_a"})


def expert_number(stem: str) -> int | None:
    """The expert of a stem of old files, which hold each expert alone: `ffn_up.7` → 7."""
    head, dot, number = stem.rpartition(".")
    return int(number) if dot and number.isdecimal() and len(number) < 8 and head.startswith("ffn_") else None


def _without_number(stem: str) -> str:
    """`ffn_up.7` → `ffn_up_exps`."""
    return stem if expert_number(stem) is None else f"{stem.rpartition('.')[0]}_exps"


def _part_in_tower(stem: str) -> str:
    role, part = _TABLE.get(stem, ("", ""))
    return part if role in {"attention", "mlp"} else stem.rpartition(".")[2] or stem
