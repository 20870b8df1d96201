"""Which function reads the shape of which `model_type`; modules are imported when a model of theirs is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from sizeup.models.config import Config

#: Module → model types; the function has the model type's name, or the one after the colon.
FAMILIES = {
    "dense": (
        "llama mistral qwen2 qwen3 granite gemma gemma2 gemma3_text:gemma3 phi3 olmo olmo2 olmo3 cohere "
        "glm glm4 seed_oss smollm3:llama helium ernie4_5 exaone4 hunyuan_v1_dense:hunyuan vaultgemma cohere2 "
        "internlm3 ministral:mistral iquestcoder:llama ministral3:mistral qwen"
    ),
    "plain": ("gpt2 gpt-sw3:gpt2 stablelm starcoder2 gpt_neox phi nemotron opt arcee apertus"),
    "recent": (
        "granite_swa afmoe laguna gemma4_text gemma3n_text cwm jais2 nanochat bitnet gpt_neox_japanese hyperclovax"
    ),
    "newer": (
        "mimo_v2_flash cohere2_moe axk1 axk2 longcat_flash granitemoe_swa kolibri1 flint minimax_m3_vl_text doge "
        "minimax_m3:minimax_m3_vl_text dots3_note_text mistral4 cohere_compass_text "
        "modernbert-decoder:modernbert_decoder dbrx"
    ),
    "remote": (
        "xverse:llama skywork:llama aquila:llama Yi:llama Emu3:llama minicpm internlm internlm2 baichuan orion exaone "
        "dream llada mimo chatglm phi-msft:phi_msft deepseek bailing_moe bailing_moe_v2:bailing_moe deci openelm "
        "nemotron-nas:nemotron_nas stablelm_epoch RefinedWeb:refined_web RefinedWebModel:refined_web_model "
        "hf_olmo phi3small phi3_v arctic"
    ),
    "early": "gpt_bigcode gptj codegen gpt_neo biogpt persimmon bloom mpt falcon xglm openai-gpt:openai_gpt ctrl",
    "scans": "mamba falcon_mamba mamba2 bamba granitemoehybrid jamba falcon_h1 nemotron_h zamba zamba2",
    "mixtures": (
        "deepseek_v3 mixtral qwen3_moe qwen2_moe olmoe glm4_moe dots1 minimax_m2 granitemoe deepseek_v2 "
        "kimi_k2:deepseek_v3 granitemoeshared gpt_oss flex_olmo ernie4_5_moe hunyuan_v1_moe exaone_moe glm4_moe_lite "
        "aria_text deepseek_v32 glm_moe_dsa phimoe minicpm3 solar_open youtu mellum hy_v3 llama4_text"
    ),
    "multimodal": (
        "qwen2_vl_text qwen2_5_vl_text:qwen2_vl_text qwen3_vl_text qwen3_vl_moe_text glm4v_text glm4v_moe_text "
        "glm_ocr_text paddleocr_vl_text "
        "mllama_text_model"
    ),
    "linear_attention": (
        "qwen3_5_text qwen3_5_moe_text qwen3_next olmo_hybrid lfm2 lfm2_moe lfm3 minimax kimi_linear bailing_hybrid "
        "recurrent_gemma rwkv"
    ),
    "encoders": (
        "bert roberta xlm-roberta:roberta camembert:roberta electra distilbert albert mpnet deberta-v2:deberta_v2 "
        "eurobert modernbert ernie:bert data2vec-text:roberta roberta-prelayernorm:roberta_prelayernorm "
        "xlm-roberta-xl:xlm_roberta_xl esm"
    ),
    "vision": "vit deit dinov2 clip",
    "seq2seq": (
        "t5 mt5 umt5 bart mbart pegasus marian plbart:bart blenderbot blenderbot-small:blenderbot_small m2m_100 "
        "whisper t5gemma mvp"
    ),
}


#: Model types whose experts run one by one, which a simulation without numbers can't follow.
ONE_BY_ONE = frozenset({"dbrx", "longcat_flash"})

#: Wrapper → its text decoder's model type, for configurations that don't name it.
TEXTS = {
    "qwen2_vl": "qwen2_vl_text", "qwen2_5_vl": "qwen2_5_vl_text", "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text", "glm4v": "glm4v_text", "glm4v_moe": "glm4v_moe_text",
    "mllama": "mllama_text_model", "llava": "llama", "paligemma": "gemma", "gemma3": "gemma3_text",
    "mistral3": "mistral", "internvl": "qwen2", "idefics2": "mistral", "idefics3": "llama", "smolvlm": "llama",
    "phi4_multimodal": "phi3", "gemma4": "gemma4_text", "llama4": "llama4_text", "voxtral": "llama",
    "qwen2_audio": "qwen2",
}  # fmt: skip


def _index() -> dict[str, tuple[str, str]]:
    index: dict[str, tuple[str, str]] = {}
    for module, entries in FAMILIES.items():
        for entry in entries.split():
            model_type, _, function = entry.partition(":")
            index[model_type] = (module, function or model_type)
    return index


INDEX = _index()


def shape_reader(model_type: str) -> Callable[[Config], Any] | None:
    """What reads the shape of a model type; None when its modules haven't been read."""
    if model_type not in INDEX:
        return None
    module, function = INDEX[model_type]
    found: Callable[[Config], Any] = getattr(import_module(f"sizeup.estimate.training.families.{module}"), function)
    return found
