"""From a configuration to the shape of a training step, with how sure that is."""

from __future__ import annotations

from typing import Any

import msgspec

from sizeup.errors import NotFound, SizeupError
from sizeup.estimate.training.architectures.decoder import DecoderShape, segments
from sizeup.estimate.training.architectures.programs import Shape
from sizeup.estimate.training.architectures.state_space import CHUNK, scan_of
from sizeup.estimate.training.build import Build, Method
from sizeup.estimate.training.families import INDEX, ONE_BY_ONE, TEXTS, shape_reader
from sizeup.estimate.training.families.unknown import unknown
from sizeup.estimate.training.heads import headed
from sizeup.estimate.training.program import record
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.step import counted_weights
from sizeup.estimate.training.tape import Tape
from sizeup.models.anatomy.defaults import filled
from sizeup.models.config import Config
from sizeup.models.from_config import model_from_config
from sizeup.models.generic import looks_like_decoder, text_part
from sizeup.models.model import Model
from sizeup.models.model_type import model_type_of

#: Relative error of a step of an architecture whose modules haven't been read: it was up to 35 % when llama's were
#: taken for ones with plain feed-forwards, norms after attention or fused projections.
UNKNOWN = 0.35
#: The same where the code isn't in transformers, so that it was read from its description and never simulated.
DESCRIBED = 0.15
LOOPING = "the experts of {family} run one by one, by what a step's numbers say: it was never simulated"
OUTSIDE = "the code of {family} isn't in transformers: its shape follows that code's description and wasn't simulated"
#: The same where layers scan (up to 60 % over, under autocast) or carry several residual streams (up to 42 % under).
FAR = 0.6

#: Which of two roads is counted for layers that scan.
SCANS = (
    "scans are counted as transformers writes them out in Python; with the kernels of mamba-ssm or "
    "flash-linear-attention a step takes far less"
)


#: Modules of families to which that applies.
SCANNING = frozenset({"scans", "linear_attention"})


class Subject(msgspec.Struct, frozen=True):
    """What is trained. uncertainty: relative error because its modules aren't known."""

    name: str
    shape: Shape
    context: int | None
    uncertainty: float = 0.0
    notes: tuple[str, ...] = ()


def subject_of(config: dict[str, Any] | Config, name: str = "") -> Subject:
    """What a configuration trains as. Raises BadConfig, and NotFound where its sizes don't make a decoder."""
    whole = config if isinstance(config, Config) else Config(config, "the configuration")
    family = model_type_of(whole)
    if family in INDEX or (text_part(whole) is whole and family not in TEXTS):
        return _decoder(whole, family, name or family)
    from sizeup.estimate.training.families.multimodal import text_of, with_towers

    text, inner = text_of(whole, family)
    found = _decoder(text, inner, name or family, nested=True)
    if not isinstance(found.shape, DecoderShape):
        return found
    shape, note = with_towers(filled(whole, family), family, found.shape)
    if note:
        found = msgspec.structs.replace(found, notes=(*found.notes, note), uncertainty=FAR)
    return msgspec.structs.replace(found, shape=shape)


def _decoder(cfg: Config, family: str, name: str, *, nested: bool = False) -> Subject:
    """A model without towers; nested: the text part of one with towers."""
    known = shape_reader(family)
    if known is not None:
        cfg = filled(cfg, family, nested=nested)
        module = INDEX[family][0]
        notes = (SCANS,) if module in SCANNING else ()
        if module == "remote" or family in ONE_BY_ONE:
            note = (OUTSIDE if module == "remote" else LOOPING).format(family=family)
            return Subject(name, known(cfg), _context(cfg), DESCRIBED, (*notes, note))
        return Subject(name, headed(known(cfg), cfg.data), _context(cfg), notes=notes)
    if not looks_like_decoder(cfg):
        raise NotFound(
            f"no training program for model type {family[:80]!r}, and its sizes don't make a decoder",
            hint="simulate it (--simulate) where torch and transformers are installed",
        )
    cfg = filled(cfg, family, nested=nested)
    shape = _completed(cfg, unknown(cfg))
    streams = cfg.optional_int("altup_num_inputs", "hc_mult") or 1
    sure = FAR if shape.varied or streams > 1 else UNKNOWN
    unread = f"the modules of {family} haven't been read: every part its configuration names is counted at its dearest"
    said = [f"{unread}, so up to {sure:.0%} off; simulate it"]
    if shape.varied:
        said.append(SCANS)
    if streams > 1:
        said.append(f"its {streams} residual streams are counted as one: more likely under than over")
    return Subject(name, shape, _context(cfg), sure, tuple(said))


def _completed(cfg: Config, shape: DecoderShape) -> DecoderShape:
    """The shape with the weights and scans that its parts lack, where the model's own description has them."""
    try:
        model = model_from_config(cfg)
    except SizeupError:
        return shape
    lacking = model.parameters - _elements(shape)
    if lacking > 0:
        shape = msgspec.structs.replace(shape, others=lacking // shape.layers)
    return msgspec.structs.replace(shape, varied=_scans(model, shape.layers, cfg))


def _scans(model: Model, layers: int, cfg: Config) -> tuple[dict[str, Any], ...]:
    """What each layer's scan keeps; empty where no layer scans."""
    chunk = cfg.optional_int("chunk_size", "mamba_chunk_size") or CHUNK
    found: list[dict[str, Any]] = [{} for _ in range(layers)]
    for block in model.blocks:
        scans = [scan for mixer in block.mixers if (scan := scan_of(mixer, chunk)) is not None]
        for number in block.layers if scans else ():
            if number < layers:
                found[number] = {"scan": max(scans, key=lambda scan: scan.elements)}
    return tuple(found) if any(found) else ()


def _elements(shape: DecoderShape) -> int:
    """Elements of all weights of a shape's program."""
    made = record(Build(Tape(), Method(item=2), 1, 8), segments(shape, Run()), keeps_outputs=False)
    return sum(weight.n * count for weight, count in counted_weights(made))


def _context(cfg: Config) -> int | None:
    rope = cfg.optional_sub("rope_scaling", "rope_parameters")
    scaled = rope is not None and rope.optional_str("rope_type", "type") in {"yarn", "linear", "dynamic", "longrope"}
    if scaled:
        return None
    return cfg.optional_int(
        "max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "max_target_positions"
    )
