"""Text decoders inside models with towers, and the towers' weights as they lie on the device.

A step of text alone is the decoder's; the tower's weights get no gradient in it (see `idle`).
"""

from __future__ import annotations

import msgspec

from sizeup.errors import SizeupError
from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.families import TEXTS, dense, mixtures
from sizeup.estimate.training.families.common import base
from sizeup.estimate.training.families.towers import TOWERS as TOWERS_READ
from sizeup.estimate.training.idle import Idle
from sizeup.models.anatomy.defaults import filled
from sizeup.models.anatomy.family import sizes
from sizeup.models.config import Config
from sizeup.models.from_config import model_from_config
from sizeup.models.generic import text_part
from sizeup.models.mixers import Attention
from sizeup.models.model import Model

#: Wrappers whose stacked experts peft adapts: it asks the outer model type (transformers 5.23, `conversion_mapping`).
ADAPTED_EXPERTS = frozenset({"glm4v_moe"})
#: Wrappers whose images' tokens see each other.
MASKING = frozenset({"gemma3", "paligemma"})
#: Rows of Mllama's embedding beyond the vocabulary of its head.
MLLAMA_ROWS = 8
#: Parts of a configuration that make a tower.
PARTS = ("vision_config", "audio_config")
TOWERS = frozenset({"vision", "audio", "projector"})
#: Two-dimensional weights that no linear module holds.
_TABLES = frozenset({"positions", "patch", "query", "tokens", "class", "embedding"})


def qwen2_vl_text(cfg: Config) -> DecoderShape:
    """Qwen 2 with positions of three axes."""
    return msgspec.structs.replace(dense.qwen2(cfg), axes=True)


def qwen3_vl_text(cfg: Config) -> DecoderShape:
    """Qwen 3 with positions of three axes."""
    return msgspec.structs.replace(dense.qwen3(cfg), axes=True)


def qwen3_vl_moe_text(cfg: Config) -> DecoderShape:
    """Qwen 3's mixture with positions of three axes."""
    return msgspec.structs.replace(mixtures.qwen3_moe(cfg), axes=True)


def glm4v_text(cfg: Config) -> DecoderShape:
    """GLM-4 with biases on query, key and value, its tables spread to pairs once."""
    shape = msgspec.structs.replace(dense.glm4(cfg), axes=True, rotary_repeats="", rotary_joined=True)
    return msgspec.structs.replace(shape, qkv_bias=True)


def glm_ocr_text(cfg: Config) -> DecoderShape:
    """The same without biases."""
    return msgspec.structs.replace(glm4v_text(cfg), qkv_bias=False)


def paddleocr_vl_text(cfg: Config) -> DecoderShape:
    """Llama with positions of three axes, and biases where the configuration says."""
    b = cfg.bool("use_bias", default=False)
    return base(cfg, qkv_bias=b, output_bias=b, mlp_bias=b, axes=True)


def glm4v_moe_text(cfg: Config) -> DecoderShape:
    """GLM-4.5 with positions of three axes."""
    return msgspec.structs.replace(mixtures.glm4_moe(cfg), axes=True, rotary_joined=True)


def mllama_text_model(cfg: Config) -> DecoderShape:
    """Llama without its layers that look at images: given text alone, they are passed over."""
    crossing = cfg.ints("cross_attention_layers", min=0) or ()
    rows = cfg.int("vocab_size") + MLLAMA_ROWS
    return base(cfg, layers=sizes(cfg).layers - len(set(crossing)), embedding_rows=rows)


def text_of(whole: Config, family: str) -> tuple[Config, str]:
    """The text decoder's configuration and model type; the outer `tie_word_embeddings` decides, where there is one."""
    text = text_part(whole)
    assumed = TEXTS.get(family, "")
    if text is whole:
        return whole, assumed
    outer = filled(whole, family).data.get("tie_word_embeddings")
    data = text.data if outer is None else text.data | {"tie_word_embeddings": outer}
    return Config(data, whole.origin, text.path), text.optional_str("model_type") or assumed or family


def with_towers(whole: Config, family: str, shape: DecoderShape) -> tuple[DecoderShape, str]:
    """The decoder with its towers' weights, and what is to be said of them."""
    shape = _as_wrapped(family, shape)
    idle = idle_towers(whole)
    if not idle and not any(isinstance(whole.data.get(name), dict) for name in PARTS):
        return shape, ""
    if not idle:
        return shape, f"the towers of {family} aren't described: only its text decoder is counted"
    read = TOWERS_READ.get(family)
    if read is not None:
        tower = read(whole, shape.hidden)
        unused = ("post_layernorm", ".head.") if not tower.last_norm else (".head.",)
        rest = tuple(part for part in idle if any(word in part.name for word in unused))
        tower = msgspec.structs.replace(tower, rest=rest)
        shape = msgspec.structs.replace(shape, tower=tower, masks_images=family in MASKING)
    return msgspec.structs.replace(shape, idle=idle), ""


def _as_wrapped(family: str, shape: DecoderShape) -> DecoderShape:
    """What the wrapper changes in its decoder."""
    if shape.mixture is not None and family not in ADAPTED_EXPERTS:
        shape = msgspec.structs.replace(shape, mixture=msgspec.structs.replace(shape.mixture, adapted=False))
    return msgspec.structs.replace(shape, own_loss=True) if family == "qwen2_audio" else shape


def idle_towers(whole: Config) -> tuple[Idle, ...]:
    """Every weight of the towers and of what leads from them into the text; empty where they aren't described."""
    try:
        model = model_from_config(whole)
    except SizeupError:
        return ()
    return _idle(model)


def _idle(model: Model) -> tuple[Idle, ...]:
    found = []
    for block in model.blocks:
        crosses = any(isinstance(mixer, Attention) and mixer.cross for mixer in block.mixers)
        if block.stack not in TOWERS and not crosses:
            continue
        for tensor in block.tensors:
            if tensor.role == "buffer" or tensor.tied_to:
                continue
            shape = tensor.shape
            matrix = len(shape) == 2 and tensor.name.endswith(".weight") and tensor.part not in _TABLES
            inputs, outputs = (shape[1], shape[0]) if matrix else (0, 0)
            name = tensor.name.removesuffix(".weight")
            of_tower = block.stack in {"vision", "audio"}
            found.append(Idle(name, tensor.elements, block.count * tensor.copies, inputs, outputs, of_tower))
    return tuple(found)
