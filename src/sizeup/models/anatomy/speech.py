"""Speech models: an audio tower and a projector in front of a text model."""

from __future__ import annotations

from sizeup.models.anatomy.audio import (
    Blocks,
    fun_asr_tower,
    glm_tower,
    granite_tower,
    omni_tower,
    qwen3_tower,
    voxtral_realtime_tower,
    whisper_tower,
)
from sizeup.models.anatomy.compose import composed, parameter, projector, text_config, two_linears
from sizeup.models.anatomy.dense import llama_like, window_kinds
from sizeup.models.anatomy.family import Anatomy, sizes
from sizeup.models.anatomy.parts import Part, Tensors, linear, norm_tensors, plain_mlp, stack_of
from sizeup.models.anatomy.qformer import qformer
from sizeup.models.anatomy.qwen_vl import qwen2_5_visual, qwen3_visual
from sizeup.models.anatomy.towers import layer_norm, projected_attention, tower, two_way
from sizeup.models.config import MAX_LAYERS, Config

LANGUAGE, LANGUAGE_HEAD = "language_model.model", "language_model.lm_head"
PROJECTOR = "multi_modal_projector"


def text_width(cfg: Config, assumed: str) -> int:
    """Width of the text model."""
    return text_config(cfg, assumed).int("hidden_size", "d_model")


def spoken(cfg: Config, tower: Blocks, between: Tensors, assumed: str) -> Anatomy:
    """A tower, a projector, and the text model under `language_model`."""
    parts = (*tower, *projector(between))
    return composed(cfg, parts, prefix=LANGUAGE, head=LANGUAGE_HEAD, assumed=assumed)


def voxtral(cfg: Config) -> Anatomy:
    """Whisper's encoder, four tokens joined to one, LLaVA's projector, a Llama."""
    audio = cfg.sub("audio_config")
    between = two_linears(PROJECTOR, text_width(cfg, "llama"), audio.int("intermediate_size"), bias=False)
    return spoken(cfg, whisper_tower(audio, "audio_tower"), between, "llama")


def voxtral_realtime(cfg: Config) -> Anatomy:
    """Voxtral with a causal encoder, and norms in the text that know the delay."""
    audio = cfg.sub("audio_config")
    inputs = audio.int("hidden_size") * cfg.int("downsample_factor")
    between = two_linears(PROJECTOR, text_width(cfg, "voxtral_realtime_text"), inputs, bias=False)
    return spoken(cfg, voxtral_realtime_tower(audio, "audio_tower"), between, "voxtral_realtime_text")


def qwen2_audio(cfg: Config) -> Anatomy:
    """Whisper's encoder, one projection, Qwen2."""
    audio = cfg.sub("audio_config")
    name = f"{PROJECTOR}.linear"
    between = linear(name, text_width(cfg, "qwen2"), audio.int("d_model"), "projector", "up", bias=True)
    return spoken(cfg, whisper_tower(audio, "audio_tower"), between, "qwen2")


def audioflamingo3(cfg: Config) -> Anatomy:
    """Whisper's encoder, LLaVA's projector, Qwen2 (also Music Flamingo)."""
    audio = cfg.sub("audio_config")
    bias = cfg.bool("projector_bias", default=True)
    between = two_linears(PROJECTOR, text_width(cfg, "qwen2"), audio.int("hidden_size"), bias=bias)
    return spoken(cfg, whisper_tower(audio, "audio_tower"), between, "qwen2")


def glmasr(cfg: Config) -> Anatomy:
    """An encoder with rotary positions, four tokens joined to one, a projector twice as wide as the text, a Llama."""
    audio, width = cfg.sub("audio_config"), text_width(cfg, "llama")
    between = two_linears(PROJECTOR, width, audio.int("intermediate_size"), middle=2 * width)
    return spoken(cfg, glm_tower(audio, "audio_tower"), between, "llama")


def moss_transcribe_diarize(cfg: Config) -> Anatomy:
    """Whisper's encoder, four tokens joined to one, LLaVA's projector and a norm, Qwen3."""
    audio, width = cfg.sub("audio_config"), text_width(cfg, "qwen3")
    inputs = audio.int("hidden_size") * cfg.int("audio_merge_size")
    name = f"model.{PROJECTOR}"
    bias = cfg.bool("projector_bias", default=True)
    between = (*two_linears(name, width, inputs, bias=bias), *norm_tensors(f"{name}.norm", width, bias=True))
    parts = (*whisper_tower(audio, "model.audio_tower"), *projector(between))
    return composed(cfg, parts, prefix="model.language_model", assumed="qwen3")


def qwen3_asr(cfg: Config) -> Anatomy:
    """Qwen3-Omni's tower, two projections, Qwen3."""
    audio = cfg.sub("audio_config")
    hidden = audio.int("d_model")
    between = two_linears(f"model.{PROJECTOR}", audio.int("output_dim"), hidden, middle=hidden)
    parts = (*qwen3_tower(audio, "model.audio_tower", projected=False), *projector(between))
    return composed(cfg, parts, prefix="model.language_model", assumed="qwen3")


def granite_speech(cfg: Config) -> Anatomy:
    """A conformer, a Q-Former over windows of sound, one projection, a Granite.

    The adapter of `has_lora_adapter` is stored apart and not counted.
    """
    asks = cfg.sub("projector_config")
    queries = cfg.int("window_size") // cfg.int("downsample_rate")
    between = (
        *parameter("projector.query", 1, max(1, queries), asks.int("hidden_size"), part="query"),
        *linear("projector.linear", text_width(cfg, "granite"), asks.int("hidden_size"), "projector", "up", bias=True),
    )
    parts = (
        *granite_tower(cfg.sub("encoder_config"), "encoder"),
        *qformer(asks, "projector.qformer"),
        *projector(between),
    )
    return composed(cfg, parts, prefix=LANGUAGE, head=LANGUAGE_HEAD, assumed="granite")


def qwen2_5_omni_thinker(cfg: Config) -> Anatomy:
    """Hears with Whisper's encoder, sees with Qwen2.5-VL's tower, writes with Qwen2."""
    parts = (
        *omni_tower(cfg.sub("audio_config"), "audio_tower"),
        *qwen2_5_visual(cfg.sub("vision_config"), "visual", split=True),
    )
    return composed(cfg, parts, prefix="model", assumed="qwen2_5_omni_text")


def qwen3_omni_moe_thinker(cfg: Config) -> Anatomy:
    """Hears behind three convolutions, sees with Qwen3-VL's tower, writes with a Qwen3 mixture."""
    parts = (
        *qwen3_tower(cfg.sub("audio_config"), "audio_tower", projected=True),
        *qwen3_visual(cfg.sub("vision_config"), "visual", omni=True),
    )
    return composed(cfg, parts, prefix="model", assumed="qwen3_omni_moe_text")


def voxtral_realtime_text(cfg: Config, prefix: str = "model") -> Anatomy:
    """Mistral whose feed-forwards know, through a narrow network of width 32, how far behind the words are."""
    s, narrow = sizes(cfg), 32
    delay = (
        *linear("ada_rms_norm.linear1", narrow, s.hidden, "norm", "down"),
        *linear("ada_rms_norm.linear2", s.hidden, narrow, "norm", "up"),
    )
    return llama_like(cfg, prefix, kinds=window_kinds(cfg, s), extra=delay)


def fun_asr_nano(cfg: Config) -> Anatomy:
    """An encoder with memory convolutions, a projector with layers of its own, Qwen3."""
    audio, adaptor = cfg.sub("audio_config"), cfg.sub("adaptor_config")
    width, name = adaptor.int("hidden_size"), f"model.{PROJECTOR}"
    mixer = two_way(adaptor.int("num_attention_heads"), width)

    def layer(_: str) -> list[Part]:
        return [
            projected_attention(mixer, width, names=("q_proj", "k_proj", "v_proj", "o_proj")),
            plain_mlp(width, adaptor.int("intermediate_size"), activation="relu"),
            layer_norm("input_layernorm", width),
            layer_norm("post_attention_layernorm", width),
        ]

    depth = adaptor.int("num_hidden_layers", max=MAX_LAYERS)
    between = two_linears(name, width, audio.int("hidden_size"), middle=adaptor.int("projector_hidden_size"))
    parts = (
        *fun_asr_tower(audio, "model.audio_tower"),
        *projector(between),
        *tower("projector", stack_of(f"{name}.layers", [""] * depth, layer, label=lambda _: "projector layer")),
    )
    return composed(cfg, parts, prefix="model.language_model", assumed="qwen3")
