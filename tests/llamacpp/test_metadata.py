"""The metadata that llama.cpp asks for, from models of every kind."""

import json
from pathlib import Path

import pytest

from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.simulate import file_content
from sizeup.models.from_config import model_from_config


@pytest.fixture
def metadata_of(truth_dir):
    """The metadata of a published model, without the architecture's prefix."""

    def read(name: str) -> dict:
        config = json.loads(Path(truth_dir, "configs", f"{name.replace('/', '--')}.json").read_text())
        found, _ = file_content(model_from_config(config, name), LlamaSetting(format="F16"))
        prefix = f"{found['general.architecture']}."
        return {key.removeprefix(prefix): value for key, value in found.items()}

    return read


def test_a_dense_model(metadata_of):
    found = metadata_of("meta-llama/Meta-Llama-3.1-8B")

    assert found["general.architecture"] == "llama"
    assert (found["block_count"], found["embedding_length"], found["feed_forward_length"]) == (32, 4096, 14336)
    assert (found["attention.head_count"], found["attention.head_count_kv"]) == (32, 8)
    assert (found["attention.key_length"], found["vocab_size"], found["context_length"]) == (128, 128256, 131072)
    assert "expert_count" not in found
    assert "attention.sliding_window" not in found


def test_a_mixture_with_leading_dense_layers(metadata_of):
    found = metadata_of("deepseek-ai/DeepSeek-V3")

    assert (found["expert_count"], found["expert_used_count"], found["leading_dense_block_count"]) == (256, 8, 3)
    assert (found["expert_shared_count"], found["expert_feed_forward_length"]) == (1, 2048)
    assert found["feed_forward_length"] == 18432


def test_latent_attention_is_one_head_of_rank_and_rope(metadata_of):
    found = metadata_of("deepseek-ai/DeepSeek-V2")

    assert (found["attention.key_length"], found["attention.value_length"]) == (576, 512)
    assert (found["attention.key_length_mla"], found["attention.value_length_mla"]) == (192, 128)
    assert (found["attention.head_count"], found["attention.head_count_kv"]) == (128, 1)


def test_sliding_windows_are_told_layer_by_layer(metadata_of):
    found = metadata_of("google/gemma-3-1b-it")

    assert found["attention.sliding_window"] == 512
    assert found["attention.sliding_window_pattern"] == [(n + 1) % 6 != 0 for n in range(26)]


def test_hybrids_tell_which_layers_are_recurrent(metadata_of):
    found = metadata_of("Qwen/Qwen3-Next-80B-A3B-Instruct")

    recurrent = found["attention.recurrent_layers"]
    assert recurrent[:4] == [1, 1, 1, 0]
    assert len(recurrent) == found["block_count"]
    assert (found["ssm.state_size"], found["ssm.group_count"], found["ssm.time_step_rank"]) == (128, 16, 32)


def test_layers_without_attention_have_no_heads(metadata_of):
    found = metadata_of("nvidia/Llama-3_3-Nemotron-Super-49B-v1")

    assert len(found["attention.head_count"]) == len(found["feed_forward_length"]) == 80
    assert 0 in found["attention.head_count_kv"]


def test_a_state_space_has_no_heads(metadata_of):
    found = metadata_of("state-spaces/mamba-130m-hf")

    assert (found["ssm.inner_size"], found["ssm.state_size"], found["ssm.conv_kernel"]) == (1536, 16, 4)
    assert found["ssm.time_step_rank"] == 48
    assert "attention.head_count" not in found


def test_an_encoder_is_not_causal(metadata_of):
    assert metadata_of("google-bert/bert-base-uncased")["attention.causal"] is False


def test_an_encoder_decoder_counts_both(metadata_of):
    found = metadata_of("google/flan-t5-base")

    assert (found["block_count"], found["decoder_block_count"]) == (12, 12)


def test_layers_of_prediction_come_last(metadata_of):
    found = metadata_of("Qwen/Qwen3.5-2B")

    assert found["nextn_predict_layers"] == 1
    assert found["attention.recurrent_layers"][-1] == 0
    assert len(found["attention.recurrent_layers"]) == found["block_count"]
