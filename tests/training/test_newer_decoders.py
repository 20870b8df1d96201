"""Decoders with parts of their own: the estimate against simulated steps, weights against the models' description."""

import json
import statistics
from pathlib import Path

import pytest
from training_cases import estimated, script

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.models import _elements, subject_of
from sizeup.models.config import Config
from sizeup.models.from_config import model_from_config

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "data" / "training_decoders"
COMMON = {
    "vocab_size": 4096, "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 4, "max_position_embeddings": 2048,
}  # fmt: skip
NAS = [
    {"attention": {"n_heads_in_group": 4}, "ffn": {"ffn_mult": 2.0}},
    {"attention": {"no_op": True}, "ffn": {"ffn_mult": 1.0}},
    {"attention": {"n_heads_in_group": 2}, "ffn": {"no_op": True}},
    {"attention": {"no_op": True}, "ffn": {"no_op": True}},
]
EXPERTS = {"n_routed_experts": 8, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 384}
OUTSIDE = {
    "xverse": {}, "skywork": {}, "aquila": {}, "minicpm": {}, "internlm": {}, "internlm2": {}, "orion": {},
    "exaone": {}, "mimo": {}, "dream": {}, "baichuan": {"num_key_value_heads": 8}, "stablelm_epoch": {},
    "qwen": {"num_key_value_heads": 8, "kv_channels": 64}, "deci": {"num_key_value_heads_per_layer": [4, 2, 2, 1]},
    "chatglm": {
        "num_layers": 4, "padded_vocab_size": 4096, "ffn_hidden_size": 1376, "kv_channels": 64, "add_qkv_bias": True,
        "multi_query_attention": True, "multi_query_group_num": 2,
    },
    "phi-msft": {"n_positions": 2048, "rotary_dim": 32, "num_key_value_heads": 8},
    "deepseek": EXPERTS | {"n_shared_experts": 1, "first_k_dense_replace": 1},
    "bailing_moe": EXPERTS | {"num_shared_experts": 1}, "nemotron-nas": {"block_configs": NAS},
    "llada": {"d_model": 512, "n_heads": 8, "n_layers": 4, "mlp_hidden_size": 1376, "embedding_size": 4096},
    "longcat_flash": {
        "num_layers": 4, "ffn_hidden_size": 1376, "q_lora_rank": 256, "kv_lora_rank": 128, "qk_nope_head_dim": 64,
        "qk_rope_head_dim": 32, "v_head_dim": 64, "n_routed_experts": 8, "zero_expert_num": 4, "moe_topk": 2,
        "expert_ffn_hidden_size": 384,
    },
    "dbrx": {
        "d_model": 512, "n_heads": 8, "n_layers": 2, "attn_config": {"kv_n_heads": 4, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 384, "moe_num_experts": 8, "moe_top_k": 2},
    },
    "openelm": {
        "model_dim": 512, "head_dim": 64, "num_transformer_layers": 2, "num_query_heads": [8, 12],
        "num_kv_heads": [2, 4], "ffn_multipliers": [1.0, 2.5],
    },
}  # fmt: skip


def decoder_script():
    """The settings that the cases are simulated with."""
    return script("training_decoders")


@pytest.fixture(scope="module")
def cases():
    """(decoder, setting, configuration, what is set, simulated peak)."""
    made = decoder_script()
    settings = made.SETTINGS | made.SPLIT_SETTINGS
    found = []
    for file in sorted(FOLDER.glob("*.json")):
        held = json.loads(file.read_text())
        for label, peak in held["peaks"].items():
            found.append((file.stem, label, held["config"], made.grid.DEFAULT | settings[label], peak))
    return found


def test_steps_agree_with_their_simulation(cases):
    errors = {
        (name, label): estimated(config, setting).peak_bytes / peak - 1 for name, label, config, setting, peak in cases
    }
    assert len({name for name, _ in errors}) >= 20
    assert statistics.median(map(abs, errors.values())) < 0.0002
    worst, best = max(errors, key=errors.get), min(errors, key=errors.get)
    assert errors[worst] <= 0.015, (worst, errors[worst])
    assert errors[best] >= -0.015, (best, errors[best])


def test_half_a_model_would_be_seen(cases):
    """The bars above can fail."""
    _, _, config, setting, peak = next(case for case in cases if case[:2] == ("doge", "bf16"))
    assert estimated(config | {"num_hidden_layers": 2}, setting).peak_bytes / peak - 1 < -0.2


@pytest.mark.parametrize("model_type", OUTSIDE)
def test_decoders_outside_transformers_have_their_weights(model_type):
    """Shapes read from descriptions: their weights are those of the model's own description, and a note says so."""
    config = COMMON | OUTSIDE[model_type] | {"model_type": model_type}
    found = subject_of(config)
    parameters = model_from_config(Config(config, "a small configuration")).parameters
    assert _elements(found.shape) == pytest.approx(parameters, rel=0.002)
    said = " ".join(found.notes)
    assert model_type == "qwen" or "isn't in transformers" in said or "never simulated" in said
    assert estimated(config, decoder_script().grid.DEFAULT).peak_bytes > 0


def test_weights_of_published_models(truth_dir):
    """The programs' weights are those of the models they stand for, whatever their configuration."""
    off = {}
    for file in sorted((truth_dir / "configs").glob("*.json")):
        config = json.loads(file.read_text())
        if config.get("model_type") in {"yolos", "deepseek_ref"}:
            continue
        shape = subject_of(config).shape
        if isinstance(shape, DecoderShape):
            off[file.stem] = _elements(shape) / model_from_config(Config(config, file.stem)).parameters - 1
    assert len(off) >= 250
    assert {name: error for name, error in off.items() if abs(error) > 0.002} == {}
