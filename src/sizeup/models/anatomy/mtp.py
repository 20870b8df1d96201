"""Multi-token prediction: layers after the last that guess further tokens. Checkpoints store them, classes drop them.

They stand in the stack `mtp`, which `Model.parameters` leaves out and reconciliation with a checkpoint counts.
"""

from __future__ import annotations

import msgspec

from sizeup.models.anatomy.family import Anatomy, Sizes
from sizeup.models.anatomy.parts import Part, Tensors, linear, norm, norm_tensors, stack_of, weight
from sizeup.models.config import Config
from sizeup.models.model import Block
from sizeup.models.tensors import Tensor

MAX_MTP = 100
NOTE = "multi-token prediction layers are stored with the checkpoint, but the class doesn't build them"


#: Under which names configurations say how many there are.
FIELDS = (
    "num_nextn_predict_layers",
    "num_mtp_modules",
    "mtp_num_hidden_layers",
    "num_mtp_layers",
    "mtp_num_layers",
    "n_mtp_layers",
)


def with_note(cfg: Config, anatomy: Anatomy) -> Anatomy:
    """The anatomy, with a note when its configuration names prediction layers that nobody has described."""
    nested = cfg.data.get("text_config")
    parts = (cfg.data, nested if isinstance(nested, dict) else {})
    named = (value for part in parts for name in FIELDS if isinstance(value := part.get(name), int))
    count = next((value for value in named if value > 0), 0)
    if not count or any(block.stack == "mtp" for block in anatomy.blocks):
        return anatomy
    note = (
        f"the configuration names multi-token prediction layers ({count}) that aren't described: neither counted here"
    )
    note += " nor built by the class, but a published file may hold them"
    return msgspec.structs.replace(anatomy, notes=(*anatomy.notes, note))


def mtp_count(cfg: Config, *names: str) -> int:
    """How many prediction layers the configuration names; 0 when it names none."""
    return cfg.int(*(names or ("num_nextn_predict_layers",)), min=0, max=MAX_MTP, default=0)


def deepseek_mtp(
    cfg: Config, s: Sizes, anatomy: Anatomy, prefix: str, *, own_tables: bool = True, extra: Tensors = ()
) -> Anatomy:
    """DeepSeek-V3's: a last layer more, that projects the embedding beside the hidden state, 2·hidden → hidden.

    Each of `num_nextn_predict_layers` repeats the last layer under the next numbers, with two norms, the projection
    and a final norm. own_tables: whether it stores an embedding and a head of its own. extra: what else it has that the
    last layer lacks.
    """
    tables: Tensors = ()
    if own_tables:
        tables = (
            *weight("embed_tokens.weight", (s.vocabulary, s.hidden), "mtp", "tokens"),
            *weight("shared_head.head.weight", (s.vocabulary, s.hidden), "mtp", "head"),
        )
    around = (
        *norm_tensors("enorm", s.hidden),
        *norm_tensors("hnorm", s.hidden),
        *linear("eh_proj", s.hidden, 2 * s.hidden, "mtp", "eh_proj"),
        *norm_tensors("shared_head.norm", s.hidden),
        *tables,
        *extra,
    )
    return with_mtp(anatomy, mtp_count(cfg), around, f"{prefix}.layers", first=s.layers)


def with_mtp(anatomy: Anatomy, count: int, around: Tensors, prefix: str, *, first: int, extra: Tensors = ()) -> Anatomy:
    """The anatomy with `count` prediction layers: the model's last layer again, and what is around it.

    around: tensors of each prediction layer; extra: tensors outside them. Names go under `prefix.{layer}`.
    """
    if not count:
        return anatomy
    last = last_layer(anatomy)
    inner = tuple(_moved(tensor, prefix) for tensor in last.tensors)
    outer = tuple(msgspec.structs.replace(tensor, name=f"{prefix}.{{layer}}.{tensor.name}") for tensor in around)
    layer = msgspec.structs.replace(
        last,
        name="multi-token prediction layer",
        tensors=tuple(_as_mtp(tensor) for tensor in (*inner, *outer)),
        layers=tuple(range(first, first + count)),
        stack="mtp",
    )
    blocks = [*anatomy.blocks, layer]
    if extra:
        blocks.append(Block("multi-token prediction", tuple(_as_mtp(tensor) for tensor in extra), stack="mtp"))
    return msgspec.structs.replace(anatomy, blocks=tuple(blocks), notes=(*anatomy.notes, NOTE))


def with_layers(anatomy: Anatomy, parts: list[Part], count: int, prefix: str, *, first: int = 0) -> Anatomy:
    """The anatomy with `count` prediction layers of these parts, named `prefix.{layer}` and numbered from `first`."""
    if not count:
        return anatomy
    (built,) = stack_of(prefix, ["prediction"] * count, lambda _: parts, stack="mtp", first=first)
    layer = msgspec.structs.replace(
        built, name="multi-token prediction layer", tensors=tuple(_as_mtp(tensor) for tensor in built.tensors)
    )
    return msgspec.structs.replace(anatomy, blocks=(*anatomy.blocks, layer), notes=(*anatomy.notes, NOTE))


def qwen_mtp(s: Sizes, anatomy: Anatomy, parts: list[Part], count: int) -> Anatomy:
    """Qwen's: a projection of 2·hidden with two norms before full layers of the model's kind, a norm after them."""
    if not count:
        return anatomy
    norms = [norm(name, s.hidden) for name in ("input_layernorm", "post_attention_layernorm")]
    anatomy = with_layers(anatomy, [*parts, *norms], count, "mtp.layers")
    around = (
        *linear("mtp.fc", s.hidden, 2 * s.hidden, "mtp", "eh_proj"),
        *norm_tensors("mtp.pre_fc_norm_embedding", s.hidden),
        *norm_tensors("mtp.pre_fc_norm_hidden", s.hidden),
        *norm_tensors("mtp.norm", s.hidden),
    )
    block = Block("multi-token prediction", tuple(_as_mtp(tensor) for tensor in around), stack="mtp")
    return msgspec.structs.replace(anatomy, blocks=(*anatomy.blocks, block))


def last_layer(anatomy: Anatomy) -> Block:
    """The block that the last layer of the text stack belongs to."""
    layered = [block for block in anatomy.blocks if block.layers and block.stack == "text"]
    return max(layered, key=lambda block: block.layers[-1])


def _moved(tensor: Tensor, prefix: str) -> Tensor:
    _, _, inner = tensor.name.partition(".{layer}.")
    return msgspec.structs.replace(tensor, name=f"{prefix}.{{layer}}.{inner}")


def _as_mtp(tensor: Tensor) -> Tensor:
    return tensor if tensor.role == "buffer" else msgspec.structs.replace(tensor, role="mtp")
