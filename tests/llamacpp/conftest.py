"""What the tests of llama.cpp share: a Python that has it, and small models."""

import pytest

from sizeup.errors import MissingPart
from sizeup.measure.simulation import worker_python
from sizeup.models.from_config import model_from_config


@pytest.fixture(scope="session")
def llama_python() -> str:
    """The Python of an environment with llama-cpp-python."""
    try:
        return worker_python()
    except MissingPart as missing:
        pytest.skip(f"{missing.message}; {missing.hint}")


@pytest.fixture(scope="session")
def small_llama():
    """A llama of three million parameters."""
    return model_from_config(
        {
            "model_type": "llama",
            "hidden_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 512,
            "vocab_size": 4096,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": False,
        },
        "small llama",
    )
