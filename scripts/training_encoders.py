"""Simulated steps of small encoders, encoder-decoders and models with other heads than that for words.

    PYTHON scripts/training_encoders.py tests/data/training_encoders [NAME …]

One file a model: {"versions", "config", "peaks": {label: bytes}}. Configurations are as short as published ones: the
defaults of their classes are judged, too.
"""

from __future__ import annotations

import sys
from pathlib import Path

from training_grid import DEFAULT, SETTINGS, write

WORDS = {"vocab_size": 4096, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BERT = WORDS | {
    "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 4, "num_attention_heads": 8,
    "max_position_embeddings": 2048,
}  # fmt: skip
BART = WORDS | {
    "d_model": 512, "encoder_layers": 4, "decoder_layers": 3, "encoder_attention_heads": 8,
    "decoder_attention_heads": 8, "encoder_ffn_dim": 1376, "decoder_ffn_dim": 1024, "max_position_embeddings": 2048,
    "decoder_start_token_id": 2,
}  # fmt: skip
T5 = WORDS | {"d_model": 512, "d_kv": 64, "d_ff": 1376, "num_layers": 4, "num_heads": 8, "decoder_start_token_id": 0}
GEMMA = WORDS | {
    "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 64, "sliding_window": 256, "query_pre_attn_scalar": 64,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}  # fmt: skip
DEBERTA = BERT | {
    "relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True,
    "pos_att_type": "p2c|c2p", "position_biased_input": False, "pooler_hidden_size": 512,
}  # fmt: skip
DISTILBERT = WORDS | {
    "dim": 512, "hidden_dim": 1376, "n_layers": 4, "n_heads": 8, "max_position_embeddings": 2048,
}  # fmt: skip
LLAMA = BERT | {"num_key_value_heads": 4}
VIT = {
    "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 4, "num_attention_heads": 8, "image_size": 224,
    "patch_size": 16,
}  # fmt: skip
TEXT = {
    "vocab_size": 4096, "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 3, "num_attention_heads": 6,
    "max_position_embeddings": 512,
}  # fmt: skip
#: Name → configuration; the model type is the name's first word unless it says otherwise.
MODELS: dict[str, dict] = {
    **dict.fromkeys(("bart", "mbart", "pegasus", "marian", "blenderbot", "blenderbot-small", "m2m_100"), BART),
    "whisper": {
        **{key: BART[key] for key in BART if key != "max_position_embeddings"},
        "max_source_positions": 512, "max_target_positions": 1536, "num_mel_bins": 80,
    },
    "t5": T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, "mt5": T5, "umt5": T5,
    "t5gemma": {"vocab_size": 4096, "encoder": GEMMA, "decoder": GEMMA | {"cross_attention_hidden_size": 512}},
    "albert": BERT | {"embedding_size": 128, "hidden_act": "gelu_new"}, "mpnet": BERT | {"pad_token_id": 1},
    "deberta-v2": DEBERTA, "modernbert": BERT, "eurobert": LLAMA,
    "esm": BERT | {"position_embedding_type": "rotary", "mask_token_id": 3, "token_dropout": True},
    "xlm-roberta-xl": BERT | {"pad_token_id": 1}, "roberta-prelayernorm": BERT | {"pad_token_id": 1},
    "bert classification": BERT | {"num_labels": 3, "architectures": ["BertForSequenceClassification"]},
    "bert tokens": BERT | {"num_labels": 9, "architectures": ["BertForTokenClassification"]},
    "bert question": BERT | {"architectures": ["BertForQuestionAnswering"]},
    "roberta classification": BERT | {"pad_token_id": 1, "architectures": ["RobertaForSequenceClassification"]},
    "distilbert classification": DISTILBERT | {"architectures": ["DistilBertForSequenceClassification"]},
    "electra classification": BERT | {"embedding_size": 256, "architectures": ["ElectraForSequenceClassification"]},
    "deberta-v2 classification": DEBERTA | {"architectures": ["DebertaV2ForSequenceClassification"]},
    "modernbert tokens": BERT | {"architectures": ["ModernBertForTokenClassification"]},
    "llama classification": LLAMA | {"architectures": ["LlamaForSequenceClassification"]},
    "qwen3 reward": LLAMA | {"num_labels": 1, "head_dim": 64, "architectures": ["Qwen3ForSequenceClassification"]},
    "gemma2 tokens": LLAMA | {
        "num_labels": 9, "head_dim": 64, "sliding_window": 256, "architectures": ["Gemma2ForTokenClassification"],
    },
    "vit": VIT | {"num_labels": 10, "architectures": ["ViTForImageClassification"]},
    "deit": VIT | {"architectures": ["DeiTForImageClassification"]},
    "dinov2": VIT | {"mlp_ratio": 4, "architectures": ["Dinov2ForImageClassification"]},
    "clip": {
        "projection_dim": 256, "text_config": TEXT | {"model_type": "clip_text_model"},
        "vision_config": VIT | {"model_type": "clip_vision_model"},
    },
}  # fmt: skip
FEW = ("bf16", "bf16 checkpointed", "autocast checkpointed", "fp32", "lora", "eager", "padded", "lora checkpointed")
TARGET = {"short target": {"target_sequence": 96, "padding": True}}
VECTORS = {
    "embedding": {"head": "embedding", "batch": 8, "sequence": 128},
    "embedding padded": {"head": "embedding", "batch": 8, "sequence": 128, "padding": True, "precision": "fp32"},
}


def cases(name: str) -> dict[str, dict]:
    """What each case of a model sets."""
    found = {label: SETTINGS[label] for label in (FEW if " " not in name else ("bf16", "fp32", "lora", "padded"))}
    if "encoder_layers" in MODELS[name] or name in {"t5", "mt5", "umt5", "t5gemma"}:
        found |= TARGET
    return found | VECTORS if name in {"mpnet", "llama classification", "bert classification"} else found


def config_of(name: str) -> dict:
    """The configuration of a model."""
    return {"model_type": name.split(maxsplit=1)[0]} | MODELS[name]


def main(folder: Path, names: list[str]) -> None:
    from sizeup.workers.training_simulate import simulated

    for name in names or list(MODELS):
        config, peaks, versions = config_of(name), {}, {}
        for label, changes in cases(name).items():
            try:
                result = simulated({"config": config}, DEFAULT | changes)
            except Exception as error:
                print(name, label, repr(error)[:200], file=sys.stderr)
                continue
            versions, peaks[label] = result["versions"], result["peak_bytes"]
        write(folder / f"{name}.json", {"versions": versions, "config": config, "peaks": peaks})
        print(name, len(peaks), "cases", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
