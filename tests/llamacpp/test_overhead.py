"""What llama.cpp takes besides its buffers, against real loads and vocabularies."""

import statistics

import pytest

from sizeup.engines.llamacpp.overhead import host_overhead, work_bytes
from sizeup.measure.ledger import shipped
from sizeup.measure.recompute import Models, estimate_of
from sizeup.models.from_config import model_from_config

MIB = 1 << 20


def model(vocabulary, family="llama"):
    return model_from_config(
        {
            "model_type": family,
            "hidden_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "intermediate_size": 512,
            "vocab_size": vocabulary,
        }
    )


def test_the_program_of_real_loads():
    rows, records = shipped()
    models = Models(records)
    loads = [row for row in rows if row.method.startswith("llama.cpp run")]
    ratios = [estimate_of(row, models)["overhead"] / row.components["overhead"] for row in loads]

    assert len(ratios) >= 20
    assert 0.95 < statistics.median(ratios) < 1.1
    assert min(ratios) > 0.88
    assert max(ratios) < 1.2


@pytest.mark.parametrize(
    ("tokens", "family", "grown"),
    [
        (32_000, "llama", 4_866_048),
        (256_000, "cohere", 83_693_568),
        (128_256, "llama", 54_329_344),
        (151_936, "qwen2", 48_279_552),
        (32_064, "phi3", 4_874_240),
    ],
)
def test_vocabularies(tokens, family, grown):
    """grown: by how much a process grew that loaded the vocabulary of llama.cpp's models/ggml-vocab-*.gguf."""
    it = model(tokens, family)

    texts = host_overhead(it, 512, "Q8_0").value - host_overhead(model(1, family), 512, "Q8_0").value
    assert texts == pytest.approx(grown, rel=0.2)


def test_a_file_without_texts_takes_less():
    with_texts, without = (host_overhead(model(100_000), 512, "Q8_0", texts).value for texts in (True, False))

    assert with_texts - without == 100_000 * 296


def test_the_work_buffer_is_a_batch_of_the_widest_row():
    assert work_bytes(model(1000), 512, "F16") == 512 * 512 * 2
    assert work_bytes(model(1000), 128, "Q4_0") == 128 * 512 * 9 // 8
