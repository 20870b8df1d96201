"""What llama.cpp takes besides its buffers: driver contexts on each GPU, the program on the host."""

from __future__ import annotations

from sizeup.engines.llamacpp.backends import Backend
from sizeup.engines.llamacpp.names import gguf_tensors
from sizeup.models.model import Model
from sizeup.quantity import Term, leaf
from sizeup.quantity.units import MIB

#: Code, tables and thread stacks of a llama-server that has loaded nothing.
PROGRAM_BYTES = 60 * MIB
#: Tokens with their texts, scores, types and merges, in hash maps.
BYTES_PER_TOKEN = 256
#: ggml's description of a tensor, and its entry in llama.cpp's own maps.
BYTES_PER_TENSOR = 1024


def device_overhead(backend: Backend) -> Term:
    """The driver's context, kernels and scratch pools on one GPU; a published or assumed constant of the backend."""
    share = round(100 * backend.known_error)
    return leaf(
        f"{backend.name} context",
        backend.context_bytes,
        f"kernels, handles and pools of the driver, ±{share} %",
        source=backend.context_source,
    )


def host_overhead(model: Model) -> Term:
    """The program itself: constant + tokens of the vocabulary · 256 B + tensors · 1 KiB. Known error: ±50 %."""
    tokens, tensors = model.vocabulary, len(gguf_tensors(model))
    return leaf(
        "program and vocabulary",
        PROGRAM_BYTES + tokens * BYTES_PER_TOKEN + tensors * BYTES_PER_TENSOR,
        f"60 MiB + {tokens:,} tokens × 256 B + {tensors:,} tensors × 1 KiB, ±50 %",
        source="sizeup: resident memory of llama.cpp on files without weights",
    )
