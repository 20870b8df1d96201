"""Which of llama.cpp's architectures loads a model family.

Source: the classes registered in conversion/*.py and MODEL_ARCH_NAMES in gguf-py/gguf/constants.py,
llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

from sizeup.errors import NotFound
from sizeup.formats.storage import nearest
from sizeup.models.model import Model

#: `model_type` → `general.architecture`. A family that isn't listed has the same name in both places, or none.
ARCHITECTURES = {
    "shape": "llama", "glm4_moe_lite": "deepseek2",
    "aquila": "llama", "mistral": "llama", "mixtral": "llama", "mistral3": "mistral3", "ministral3": "mistral3",
    "ministral": "mistral3", "pixtral": "llama", "llava": "llama", "voxtral": "llama", "smolvlm": "llama",
    "idefics3": "llama", "internlm": "llama", "yi": "llama", "internlm3": "llama", "mllama": "mllama",
    "llama4_text": "llama4", "nemotron-nas": "deci", "phi": "phi2", "phi-msft": "phi2", "phi3_v": "phi3",
    "phi4": "phi3", "phi4mm": "phi3", "qwen2_moe": "qwen2moe", "qwen3_moe": "qwen3moe",
    "qwen2_vl": "qwen2vl", "qwen2_5_vl": "qwen2vl", "qwen2_audio": "qwen2", "qwen3_vl": "qwen3vl",
    "qwen3_vl_moe": "qwen3vlmoe", "qwen3_next": "qwen3next", "qwen3_5": "qwen35", "qwen3_5_text": "qwen35",
    "qwen3_5_moe": "qwen35moe", "qwen3_5_moe_text": "qwen35moe",
    "gemma3_text": "gemma3", "gemma3n_text": "gemma3n", "gemma4_text": "gemma4", "paligemma": "gemma",
    "deepseek_v2": "deepseek2", "deepseek_v3": "deepseek2", "kimi_k2": "deepseek2", "kimi_k25": "deepseek2",
    "deepseek_v32": "deepseek32", "deepseek_v4": "deepseek4", "deepseek_ref": "deepseek4",
    "gpt_oss": "gpt-oss", "gpt_neox": "gptneox", "gpt_bigcode": "starcoder",
    "cohere": "command-r", "olmo_1124": "olmo2", "olmo3": "olmo2", "RefinedWeb": "falcon", "RefinedWebModel": "falcon",
    "falcon_h1": "falcon-h1", "falcon_mamba": "mamba", "granitemoehybrid": "granitehybrid",
    "granitemoeshared": "granitemoe", "glm": "chatglm", "glm4_moe": "glm4moe", "glm4v": "glm4", "glm4v_moe": "glm4moe",
    "glm_moe_dsa": "glm-dsa", "hunyuan_v1_dense": "hunyuan-dense", "hunyuan_v1_moe": "hunyuan-moe",
    "ernie4_5_moe": "ernie4_5-moe", "exaone_moe": "exaone-moe", "exaone4_moe": "exaone-moe",
    "lfm2_moe": "lfm2moe", "kimi_linear": "kimi-linear", "minimax_m2": "minimax-m2", "minimax_m3": "minimax-m3",
    "minimax": "minimax-01", "minimax_text_01": "minimax-01", "mimo": "qwen2", "mimo_v2_flash": "mimo2",
    "mimo_v2": "mimo2", "bailing_moe": "bailingmoe", "bailing_moe_v2": "bailingmoe2", "ling": "bailingmoe2",
    "distilbert": "bert", "roberta": "bert", "xlm-roberta": "bert", "modernbert": "modern-bert", "neobert": "neo-bert",
    "nomic_bert": "nomic-bert", "umt5": "t5", "mt5": "t5", "jina_bert": "jina-bert-v2", "qwen": "qwen",
    "pangu_embedded": "pangu-embedded", "llada_moe": "llada-moe", "Dream": "dream", "nemotron_h_moe": "nemotron_h_moe",
    "gemma3_embedding": "gemma-embedding", "step3p5": "step35", "step3p7": "step35", "cohere2_moe": "cohere2moe",
    "granitemoe_swa": "granite_swa", "iquestcoder": "llama", "solar_open": "glm4moe", "youtu": "deepseek2",
    "camembert": "bert", "jina_embeddings_v3": "jina-bert-v3", "gemma4_unified": "gemma4",
    "gemma4_unified_text": "gemma4", "dots3_note": "dots3note", "dots3_note_text": "dots3note",
    "qwen4_exp": "qwen4exp", "qwen4_exp_text": "qwen4exp", "exaone4_5": "exaone4", "bamba": "granitehybrid",
    "glm4v_text": "glm4", "glm4v_moe_text": "glm4moe", "glm_ocr": "glm4", "glm_ocr_text": "glm4", "glmasr": "llama",
    "qwen2_vl_text": "qwen2vl", "qwen2_5_vl_text": "qwen2vl", "qwen2_5_omni_text": "qwen2vl",
    "qwen2_5_omni_thinker": "qwen2vl", "qwen3_vl_text": "qwen3vl", "qwen3_vl_moe_text": "qwen3vlmoe",
    "qwen3_omni_moe_text": "qwen3vlmoe", "qwen3_omni_moe_thinker": "qwen3vlmoe", "qwen3_asr": "qwen3vl",
    "audioflamingo3": "qwen2", "musicflamingo": "qwen2", "lfm2_vl": "lfm2", "lighton_ocr": "qwen3",
    "minimax_m3_vl": "minimax-m3", "minimax_m3_vl_text": "minimax-m3", "paddleocr_vl": "paddleocr",
    "paddleocr_vl_text": "paddleocr", "minicpmv4_6": "qwen35", "kimi_vl": "deepseek2", "granite_speech": "granite",
    "granite_speech_plus": "granite", "hunyuan_vl_text": "hunyuan_vl", "minimax_m1": "minimax-01",
    "qwen2_5_omni": "qwen2vl",
}  # fmt: skip

#: Every architecture that this llama.cpp loads.
KNOWN = frozenset(
    [
        "llama",
        "llama4",
        "deci",
        "falcon",
        "baichuan",
        "grok",
        "gpt2",
        "gptneox",
        "mpt",
        "starcoder",
        "refact",
        "bert",
        "modern-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "neo-bert",
        "jina-bert-v2",
        "jina-bert-v3",
        "eurobert",
        "bloom",
        "stablelm",
        "qwen",
        "qwen2",
        "qwen2moe",
        "qwen2vl",
        "qwen3",
        "qwen3moe",
        "qwen3next",
        "qwen3vl",
        "qwen3vlmoe",
        "qwen35",
        "qwen35moe",
        "phi2",
        "phi3",
        "phimoe",
        "plamo",
        "plamo2",
        "plamo3",
        "codeshell",
        "orion",
        "internlm2",
        "minicpm",
        "minicpm3",
        "gemma",
        "gemma2",
        "gemma3",
        "gemma3n",
        "gemma4",
        "gemma-embedding",
        "starcoder2",
        "rwkv6",
        "rwkv6qwen2",
        "rwkv7",
        "arwkv7",
        "mamba",
        "mamba2",
        "jamba",
        "xverse",
        "command-r",
        "cohere2",
        "cohere2moe",
        "dbrx",
        "olmo",
        "olmo2",
        "olmoe",
        "openelm",
        "arctic",
        "deepseek",
        "deepseek2",
        "deepseek2-ocr",
        "deepseek32",
        "deepseek4",
        "chatglm",
        "glm4",
        "glm4moe",
        "glm-dsa",
        "glm5-next",
        "bitnet",
        "t5",
        "t5encoder",
        "jais",
        "jais2",
        "nemotron",
        "nemotron_h",
        "nemotron_h_moe",
        "exaone",
        "exaone4",
        "exaone-moe",
        "granite",
        "granitemoe",
        "granitehybrid",
        "granite_swa",
        "chameleon",
        "plm",
        "bailingmoe",
        "bailingmoe2",
        "bailingmoe3",
        "dots1",
        "arcee",
        "afmoe",
        "laguna",
        "ernie4_5",
        "ernie4_5-moe",
        "falcon-h1",
        "hunyuan-moe",
        "hunyuan-dense",
        "hunyuan_vl",
        "hy_v3",
        "hy_v4",
        "smollm3",
        "gpt-oss",
        "lfm2",
        "lfm2moe",
        "dream",
        "smallthinker",
        "llada",
        "llada-moe",
        "seed_oss",
        "grovemoe",
        "apertus",
        "minimax-01",
        "minimax-m2",
        "minimax-m3",
        "cogvlm",
        "rnd1",
        "pangu-embedded",
        "mistral3",
        "mistral4",
        "paddleocr",
        "mimo2",
        "step35",
        "llama-embed",
        "maincoder",
        "kimi-linear",
        "kimi-k3",
        "qwen4exp",
        "nanbeige",
        "mellum",
        "talkie",
        "hrm_text",
        "dots3note",
        "graniteswitch",
        "maple",
        "muse-glimmer",
        "spark2_5",
    ]
)


def architecture_of(model: Model) -> str:
    """`general.architecture` of the GGUF that the converter would write for this model.

    Raises NotFound for a family that this llama.cpp doesn't load, naming the nearest one.
    """
    family = model.family
    if family == "nemotron_h" and any(b.feed_forward and b.feed_forward.experts for b in model.blocks):
        return "nemotron_h_moe"
    if family == "falcon" and _has_biases(model):
        raise NotFound(
            f"llama.cpp's falcon has no biases, and {model.name[:80]} has (Falcon-RW)",
            hint="use an engine that runs it: --engine torch",
        )
    if family == "mamba2" or family in KNOWN:
        return family
    found = ARCHITECTURES.get(family) or ARCHITECTURES.get(family.lower()) or family.lower()
    if found in KNOWN:
        return found
    near = nearest(found, KNOWN)
    raise NotFound(
        f"llama.cpp has no architecture for {family[:80]!r}",
        hint=f"the nearest it has: {', '.join(near)}" if near else "use an engine that runs it: --engine torch",
    )


def _has_biases(model: Model) -> bool:
    return any(t.role == "attention" and t.name.endswith(".bias") for block in model.blocks for t in block.tensors)


def runs(model: Model) -> bool:
    """Whether this llama.cpp has an architecture for the model."""
    try:
        architecture_of(model)
    except NotFound:
        return False
    return True
