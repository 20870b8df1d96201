"""Which function describes which `model_type`. Modules are imported when a model of theirs is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from sizeup.errors import NotFound
from sizeup.models.anatomy.activations import activated
from sizeup.models.anatomy.defaults import filled
from sizeup.models.anatomy.family import Anatomy, as_built
from sizeup.models.anatomy.mtp import with_note
from sizeup.models.config import Config

#: module → the model types it describes; the function has the model type's name (`-` becomes `_`), or the one after
#: the colon. These are text decoders: their functions also take a prefix, and a bare `…Model` is one without its head.
TEXT_FAMILIES = {
    "dense": "llama xverse:llama skywork:llama aquila:llama Emu3:llama emu3_text_model:llama granite:llama "
    "helium:llama internlm3:llama iquestcoder:llama mistral ministral:mistral ministral3:mistral qwen2 qwen3 seed_oss "
    "smollm3 ernie4_5 cwm granite_swa hyperclovax stablelm cohere cohere2 cohere_compass_text olmo olmo2 olmo3 exaone4 "
    "hunyuan_v1_dense bitnet diffllama phi3 glm glm4",
    "plain": "arcee nemotron jais2 apertus nanochat starcoder2 phi persimmon opt biogpt xglm moshi",
    "gpt": "gpt2 gpt-sw3:gpt2 openai-gpt gpt_bigcode gpt_neo gptj codegen gpt_neox gpt_neox_japanese bloom falcon "
    "mpt ctrl cpmant",
    "gemma": "gemma gemma2 gemma3_text vaultgemma",
    "moe": "mixtral phimoe minimax_m2 qwen2_moe qwen3_moe olmoe flex_olmo mellum flint cohere2_moe ernie4_5_moe arctic",
    "moe_corrected": "dots1 glm4_moe solar_open exaone_moe hunyuan_v1_moe hy_v3 afmoe beam kolibri1",
    "moe_fused": "gpt_oss granitemoe granitemoeshared:granitemoe granitemoe_swa llama4_text dbrx jetmoe aria_text doge",
    "moe_attention": "laguna mimo_v2_flash minimax_m3 minimax_m3_vl_text zaya",
    "deepseek": "deepseek_v2 deepseek_v3 kimi_k2:deepseek_v3 deepseek_v32 glm_moe_dsa glm4_moe_lite mistral4 minicpm3 "
    "youtu axk1 axk2 dots3_note_text longcat_flash",
    "mamba": "mamba falcon_mamba:mamba mamba2:mamba2_model mamba_ssm",
    "hybrid": "jamba bamba falcon_h1 granitemoehybrid nemotron_h",
    "linear": "qwen3_next qwen3_5_text qwen3_5_moe_text olmo_hybrid kimi_linear bailing_hybrid minimax",
    "lfm": "lfm2 lfm2_moe lfm3",
    "gemma_shared": "gemma3n_text gemma4_text gemma4_unified_text:gemma4_text",
    "recurrent": "rwkv recurrent_gemma xlstm",
    "zamba": "zamba zamba2",
    "remote": "minicpm internlm internlm2 baichuan orion dream qwen exaone llada chatglm phi-msft "
    "deepseek bailing_moe bailing_moe_v2:bailing_moe mimo nemotron-nas",
    "step": "step3p5",
    "ernie_vl": "ernie4_5_vl_moe_text",
    "respelled": "stablelm_epoch RefinedWeb:refined_web RefinedWebModel:refined_web_model minimax_text_01 "
    "minimax_m1:minimax_text_01 hf_olmo phi3small deci openelm Yi:yi",
    "deepseek_v4": "deepseek_v4 deepseek_ref:deepseek_v4 hy_v4",
}

#: The same for everything else, whose functions look at the class themselves.
OTHER_FAMILIES = {
    "seq2seq": (
        "bart mbart plbart:bart mvp:bart pegasus blenderbot:pegasus blenderbot-small marian m2m_100 "
        "bigbird_pegasus led pegasus_x nllb-moe prophetnet fsmt whisper speech_to_text trocr"
    ),
    "t5": "t5 mt5:t5 umt5 longt5 switch_transformers pop2piano",
    "encoders": (
        "bert ernie megatron-bert big_bird mra yoso nystromformer layoutlm roformer bert-generation electra "
        "rembert albert distilbert"
    ),
    "modern_encoders": "deberta deberta-v2 modernbert modernbert-decoder nomic_bert jina_embeddings_v3 gte new "
    "eurobert",
    "roberta": (
        "roberta xlm-roberta:roberta camembert:roberta data2vec-text roberta-prelayernorm xlm-roberta-xl xmod "
        "longformer mpnet"
    ),
    "multimodal": (
        "llava llava_next llava_next_video:llava_next llava_onevision:llava_next vipllava paligemma gemma3 "
        "shieldgemma2 mistral3 internvl llama4 cohere2_vision aya_vision lfm2_vl idefics2 idefics3 "
        "smolvlm:idefics3 deepseek_vl minimax_m3_vl fuyu"
    ),
    "qwen_vl": (
        "qwen2_vl qwen2_5_vl qwen3_vl qwen3_vl_moe qwen3_5 qwen3_5_moe exaone4_5 hyperclovax_vision_v2 "
        "qwen2_vl_text qwen2_5_vl_text:qwen2_vl_text qwen2_5_omni_text:qwen2_vl_text qwen3_vl_text "
        "qwen3_vl_moe_text qwen3_omni_moe_text"
    ),
    "glm_vl": "glm4v glm46v:glm4v glmga:glm4v glm4v_moe glm_ocr glm4v_text glm_ocr_text glm4v_moe_text",
    "speech": (
        "voxtral voxtral_realtime voxtral_realtime_text qwen2_audio audioflamingo3 "
        "musicflamingo:audioflamingo3 glmasr moss_transcribe_diarize qwen3_asr granite_speech "
        "granite_speech_plus:granite_speech qwen2_5_omni_thinker qwen3_omni_moe_thinker fun_asr_nano"
    ),
    "qformer": "blip-2 instructblip instructblipvideo:instructblip",
    "mllama": "mllama mllama_text_model",
    "gemma_vl": "gemma4 gemma4_unified gemma3n",
    "vision_models": (
        "vit deit yolos dinov2 dinov2_with_registers dinov3_vit clip siglip siglip2 clip_vision_model "
        "siglip_vision_model siglip2_vision_model"
    ),
    "sam": "got_ocr2 pp_chart2table:got_ocr2 deepseek_vl_hybrid",
    "image_text": (
        "video_llava video_llama_3 lighton_ocr qianfan_ocr paddleocr_vl paddleocr_vl_text "
        "minicpm_ocr:minicpmv4_6 minicpmv4_6 minicpmv4_7:minicpmv4_6 ovis2 aria kimi_k25 molmo2 molmo2_text"
    ),
    "wav2vec": "wav2vec2 hubert unispeech data2vec-audio",
    "transcribe": "moonshine canary cohere_asr parakeet_ctc",
    "pairs": "encoder-decoder vision-encoder-decoder:encoder_decoder speech-encoder-decoder:encoder_decoder",
    "captions": "git blip florence2 kosmos-2 kosmos-2.5:kosmos_2_5 pix2struct",
    "t5gemma": "t5gemma t5gemma2",
    "phi_vl": "phi3_v phi4_multimodal phi4mm",
    "step": "step3p7",
    "ernie_vl": "ernie4_5_vl_moe",
    "remote_vl": "internvl_chat minicpmv molmo kimi_vl deepseek_vl_v2:deepseek_ocr",
}


def _index() -> dict[str, tuple[str, str]]:
    index: dict[str, tuple[str, str]] = {}
    for module, entries in (*TEXT_FAMILIES.items(), *OTHER_FAMILIES.items()):
        for entry in entries.split():
            model_type, _, function = entry.partition(":")
            index[model_type] = (module, (function or model_type).replace("-", "_"))
    return index


INDEX = _index()
TEXT_TYPES = frozenset(entry.partition(":")[0] for entries in TEXT_FAMILIES.values() for entry in entries.split())


def known_types() -> list[str]:
    """All model types with an anatomy."""
    return sorted(INDEX)


def anatomy_of(model_type: str) -> Callable[[Config], Anatomy] | None:
    """What describes a model type, or None when nothing does. It fills the class's defaults in first."""
    if model_type not in INDEX:
        return None
    describe = _function(model_type)
    part = model_type.endswith("_text") and INDEX[model_type][0] != "seq2seq"
    is_text = part or model_type in TEXT_TYPES

    def described(cfg: Config) -> Anatomy:
        whole = filled(cfg, model_type)
        anatomy = with_note(cfg, activated(whole, describe(whole)))
        return as_built(cfg, anatomy) if is_text else anatomy

    return described


def nested_anatomy(cfg: Config, prefix: str, assumed: str = "") -> Anatomy:
    """The anatomy of a text model inside another model, its tensors under `prefix` and its head outside.

    assumed: its model type when the nested configuration names none. Raises NotFound for a type without an anatomy.
    """
    model_type = cfg.str("model_type", default=assumed)
    if model_type not in INDEX:
        raise NotFound(
            f"{cfg.path or 'the configuration'} names model type {model_type[:80]!r}, which has no anatomy",
            hint="docs/adding-an-architecture.md says how to add one",
        )
    whole = filled(cfg, model_type, nested=True)
    return activated(whole, _function(model_type)(whole, prefix))


def _function(model_type: str) -> Callable[..., Anatomy]:
    module, function = INDEX[model_type]
    found: Callable[..., Anatomy] = getattr(import_module(f"sizeup.models.anatomy.{module}"), function)
    return found
