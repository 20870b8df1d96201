"""Pairs of two models: any encoder of words, images or sound, and a decoder that attends to its output."""

from __future__ import annotations

from sizeup.errors import NotFound
from sizeup.models.anatomy.compose import renamed
from sizeup.models.anatomy.family import Anatomy
from sizeup.models.anatomy.registry import anatomy_of
from sizeup.models.config import Config

ENCODERS = frozenset(
    [
        "bert",
        "roberta",
        "xlm-roberta",
        "camembert",
        "electra",
        "distilbert",
        "albert",
        "vit",
        "deit",
        "dinov2",
        "wav2vec2",
        "hubert",
        "unispeech",
    ]
)
DECODERS = frozenset(
    ["bert", "roberta", "xlm-roberta", "camembert", "electra", "bert-generation", "bart", "mbart", "trocr"]
)


def encoder_decoder(cfg: Config) -> Anatomy:
    """The encoder bare, the decoder with its head and with cross-attention, each under its own prefix.

    Covers `encoder-decoder`, `vision-encoder-decoder` (TrOCR) and `speech-encoder-decoder`.
    """
    reads = _part(cfg, "encoder", ENCODERS, "Model", {})
    cross = {"is_decoder": True, "add_cross_attention": True}
    writes = _part(cfg, "decoder", DECODERS, "ForCausalLM", cross)
    blocks = (
        *(renamed(part, "", "encoder.") for part in reads.blocks),
        *(renamed(part, "", "decoder.") for part in writes.blocks),
    )
    return Anatomy(blocks, writes.hidden, writes.vocabulary, writes.context)


def _part(cfg: Config, field: str, known: frozenset[str], ending: str, more: dict[str, bool]) -> Anatomy:
    nested = cfg.sub(field)
    model_type = nested.str("model_type")
    describe = anatomy_of(model_type)
    if describe is None or model_type not in known:
        raise NotFound(
            f"{cfg.origin} has {model_type[:80]!r} as {field}, which has no anatomy as a part of a pair",
            hint=f"known as {field}: {', '.join(sorted(known))}; use the checkpoint's safetensors header",
        )
    return describe(Config({**nested.data, **more, "architectures": [ending]}, cfg.origin, nested.path))
