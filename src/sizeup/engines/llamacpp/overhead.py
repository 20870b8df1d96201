"""What llama.cpp takes besides its buffers: driver contexts on each GPU, the program on the host.

Sources: id_to_token, token_to_id, cache_token_to_piece and bpe_ranks in src/llama-vocab.cpp; graph_max_nodes in
src/llama-context.cpp; ggml_graph_plan in ggml/src/ggml-cpu/ggml-cpu.c, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

from sizeup.engines.llamacpp.backends import Backend
from sizeup.engines.llamacpp.memo import by_model
from sizeup.engines.llamacpp.names import HEADLESS, gguf_tensors, mix_hparams
from sizeup.models.model import Model
from sizeup.quantity import Term, leaf
from sizeup.quantity.units import KIB, MIB

#: Code, libraries and thread stacks of a process that has loaded nothing.
PROGRAM_BYTES = 45 * MIB
#: A token's entry, which is there even without a text: string, score and attribute, and its place among the outputs.
BYTES_PER_TOKEN = 48
#: Its text besides: a node of the map from text to number (72 B) and its printed piece (32 B).
BYTES_PER_TEXT = 104
#: Merges besides, one or two for each token: a node of 88 B and the texts of its halves. Measured: 140 to 270 B.
BYTES_PER_MERGES = 192
#: Vocabularies without merges (SentencePiece, WordPiece): these architectures, and Llama's with 32,000 tokens.
_WITHOUT_MERGES = frozenset({"baichuan", "gemma", "gemma2", "gemma3", "gemma3n", "internlm2", "minicpm", "phi3",
                             "plamo", "t5", "t5encoder", "xverse"}) | HEADLESS  # fmt: skip
_SMALL_VOCABULARY = 32_100
#: Room for eight nodes of the graph and their places in the scheduler's tables, for each tensor of the file.
BYTES_PER_TENSOR = 8 * KIB
#: Bytes of a value that a matrix is multiplied by: converted to half precision, or to blocks of 8 bits.
_HALF, _QUANTIZED = 2.0, 9 / 8


def device_overhead(backend: Backend) -> Term:
    """The driver's context, kernels and scratch pools on one GPU; a published or assumed constant of the backend."""
    share = round(100 * backend.known_error)
    return leaf(
        f"{backend.name} context",
        backend.context_bytes,
        f"kernels, handles and pools of the driver, ±{share} %",
        source=backend.context_source,
    )


def host_overhead(model: Model, ubatch: int, kind: str, texts: bool = True) -> Term:
    """Program + tokens · (152 or 344 B) + tensors · 8 KiB + the processor's work buffer. Known error: ±20 %.

    ubatch: tokens of a physical batch. kind: the mix or type of the file.
    texts: whether the file has a vocabulary; those that sizeup writes itself have none (tokens · 48 B).
    Against 20 real loads without texts: +1 % at the median, -11 to +17 %. Against the 19 vocabularies in llama.cpp's
    sources: 149 to 153 B a token without merges, 291 to 424 B with them.
    """
    tokens, tensors = model.vocabulary, len(gguf_tensors(model))
    each = BYTES_PER_TOKEN + (_text_bytes(model) if texts else 0)
    work = work_bytes(model, ubatch, kind)
    return leaf(
        "program and vocabulary",
        PROGRAM_BYTES + tokens * each + tensors * BYTES_PER_TENSOR + work,
        f"45 MiB + {tokens:,} tokens × {each} B + {tensors:,} tensors × 8 KiB + {work:,} B of work buffer, ±20 %",
        source="sizeup: resident memory of llama.cpp in real loads",
    )


def _text_bytes(model: Model) -> int:
    """A token's text, and the merges that go with it where the vocabulary has such."""
    architecture = mix_hparams(model).architecture
    small = architecture == "llama" and model.vocabulary <= _SMALL_VOCABULARY
    return BYTES_PER_TEXT + (0 if small or architecture in _WITHOUT_MERGES else BYTES_PER_MERGES)


def work_bytes(model: Model, ubatch: int, kind: str) -> int:
    """What a processor converts before it multiplies: ubatch · widest row · bytes of a value."""
    return round(ubatch * _widest_row(model) * (_HALF if kind.upper() in {"F16", "BF16"} else _QUANTIZED))


@by_model
def _widest_row(model: Model) -> int:
    """The most values in a row of a layer's matrices."""
    return max((t.shape[-1] for t in gguf_tensors(model) if t.layer >= 0 and len(t.shape) > 1), default=0)
