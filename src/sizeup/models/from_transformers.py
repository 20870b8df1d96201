"""From what the transformers worker found to a model: the class as it was built on the meta device.

The worker (`sizeup.workers.transformers_meta`) answers with plain data; this module needs neither it nor transformers.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sizeup.models.config import Config
from sizeup.models.from_config import ASSUMED_DTYPE, storage_dtype
from sizeup.models.from_safetensors import plan_of
from sizeup.models.generic import text_part
from sizeup.models.model import Model
from sizeup.models.model_type import model_type_of
from sizeup.models.packed import Logical
from sizeup.models.tensor_reader import TensorReader


class BuiltClass(msgspec.Struct, frozen=True):
    """A class of transformers, built without values.

    class_name, version: which class of which transformers. config: the configuration with every default filled in.
    tensors: checkpoint name → shape, ties left out. buffers: those of them that aren't parameters.
    ties: tied name → the name that holds its values. parameters: elements of all parameters, ties once.
    """

    class_name: str
    version: str
    config: dict[str, Any]
    tensors: dict[str, tuple[int, ...]]
    buffers: tuple[str, ...] = ()
    ties: dict[str, str] = {}
    parameters: int = 0


def model_from_transformers(built: BuiltClass, name: str = "", origin: str = "") -> Model:
    """The model of a built class; its parameters are the class's own count, or a note says how they differ."""
    cfg = Config(built.config, origin or built.class_name)
    plan = plan_of(cfg)
    logical = [Logical(tensor, tuple(shape), "") for tensor, shape in built.tensors.items()]
    reader = TensorReader(
        logical,
        None if plan and plan.road == "anatomy" else plan,
        text_part(cfg),
        buffers=frozenset(built.buffers),
        ties=built.ties,
    )
    blocks = reader.blocks()
    model = Model(
        name=name or cfg.optional_str("_name_or_path") or built.class_name,
        family=model_type_of(cfg),
        blocks=blocks,
        hidden=reader.hidden,
        vocabulary=reader.vocabulary,
        context=plan.context if plan else None,
        road="transformers",
        dtype=storage_dtype(cfg) or ASSUMED_DTYPE,
        architecture=built.class_name,
        origin=f"{built.class_name} of transformers {built.version}, built on the meta device",
        notes=tuple(reader.notes),
    )
    if built.parameters and model.parameters != built.parameters:
        note = f"the class counts {built.parameters:,} parameters, its checkpoint names {model.parameters:,}"
        return msgspec.structs.replace(model, notes=(*model.notes, note))
    return model
