"""The output buffer: where logits and embeddings wait on the host.

Source: output_reserve in src/llama-context.cpp, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

from sizeup.engines.llamacpp.names import mix_hparams
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.models.model import Model

FLOAT = 4


def output_bytes(model: Model, setting: LlamaSetting) -> int:
    """Sequences · (vocabulary + hidden if embeddings are asked for) · 4 bytes, as reserved at start.

    A batch that asks for more rows of logits makes it grow. T5 keeps its encoder's embeddings there too.
    """
    embeddings = setting.embeddings or mix_hparams(model).architecture == "t5"
    return setting.parallel * (model.vocabulary + (model.hidden if embeddings else 0)) * FLOAT
