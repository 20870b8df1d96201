"""The mistakes that calculators make, each by name."""

import json

import pytest

from sizeup.estimate.memory_of_context import cache_term
from sizeup.models.from_config import model_from_config
from sizeup.models.load import load_model

GIB = 1 << 30


def test_latent_attention_keeps_one_small_vector():
    """DeepSeek-V3 at 8,192 tokens: 61 × 576 × 2 × 8,192 bytes, not 25 times as much."""
    assert cache_term(load_model("deepseek-v3"), 8192).value == 61 * 576 * 2 * 8192


def test_sliding_windows_dont_grow_with_the_context(truth_dir):
    """Gemma-3-27b at 131,072 tokens: 10.4 GiB (10 full layers, 52 with a window of 1,024), not 62."""
    config = json.loads((truth_dir / "configs" / "google--gemma-3-27b-it.json").read_text())
    term = cache_term(model_from_config(config), 131072)

    assert term.value / GIB == pytest.approx(10.4, abs=0.05)


def test_grouped_heads_keep_few_keys():
    """Llama-3.1-8B keeps 8 heads of 32: 128 KiB a token, not 512."""
    model = load_model("meta-llama/Llama-3.1-8B-Instruct")

    assert cache_term(model, 1).value == 2 * 32 * 8 * 128 * 2


def test_a_quantized_cache_has_scales():
    """q8_0 takes 34 bytes for 32 elements: 1.0625 bytes each, not 1."""
    model = load_model("meta-llama/Llama-3.1-8B-Instruct")

    assert cache_term(model, 1, "q8_0").value == 2 * 32 * 8 * 128 * 34 // 32
