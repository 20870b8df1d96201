"""From safetensors headers to a model: every tensor of the files, to the byte, with an anatomy's roles if there is one.

Names that an anatomy describes take its roles, parts, mixers and layer kinds, also under another prefix
(`language_model.model.layers…` for `model.language_model.layers…`); all others are told by `name_rules`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from sizeup.formats.checkpoint import CheckpointScheme
from sizeup.formats.checkpoint_configs import scheme_from_config
from sizeup.models import name_rules
from sizeup.models.config import Config
from sizeup.models.from_config import model_from_config, storage_dtype
from sizeup.models.grouping import LayerKind, Placed, blocks_of, feed_forward_of, layer_name
from sizeup.models.mixers import Attention, Mixer
from sizeup.models.model import Block, Facts, Model
from sizeup.models.model_type import model_type_of
from sizeup.models.name_match import NameMatch
from sizeup.models.packed import Logical, PackingHints, unpack
from sizeup.models.sources.header import Header
from sizeup.models.tensors import Tensor

#: Elements of a head when nothing says so; the cache doesn't depend on it, only on the width of the projections.
_USUAL_HEAD = 128

_PLAIN = frozenset({"BF16", "F16", "F32", "F64"})


def model_from_safetensors(header: Header, config: dict[str, Any] | Config | None = None, name: str = "") -> Model:
    """The model that safetensors headers describe, with the configuration beside them when there is one.

    The bytes of its tensors, tied ones left out, are the header's `data_bytes`.
    """
    origin = header.files[0].name if header.files else "the safetensors header"
    cfg = config if config is None or isinstance(config, Config) else Config(config, "the configuration")
    plan = _plan(cfg)
    scheme = scheme_from_config(cfg.data) if cfg else None
    logical = unpack(header.tensors, packing_hints(scheme))
    reader = _Reader(plan, cfg, logical)
    blocks = blocks_of(reader.placed(), reader.describe)
    notes = (*_plan_notes(plan), *reader.notes)
    if not header.complete:
        notes = (*notes, "the file holds no tensor data: sizes are those its header declares")
    return Model(
        name=name or (cfg.optional_str("_name_or_path") if cfg else None) or origin,
        family=plan.family if plan else (model_type_of(cfg) if cfg else "unknown"),
        blocks=blocks,
        hidden=reader.hidden,
        vocabulary=reader.vocabulary,
        context=plan.context if plan else None,
        road="safetensors header",
        dtype=(storage_dtype(cfg) if cfg else None) or _main_dtype(logical),
        scheme=scheme.name if scheme else _scheme_of(logical),
        architecture=plan.architecture if plan else "",
        origin=origin,
        notes=notes,
        facts=plan.facts if plan else Facts(),
    )


def _plan(cfg: Config | None) -> Model | None:
    """What the configuration alone would give, without quantization; None when it gives nothing."""
    if cfg is None:
        return None
    from sizeup.errors import SizeupError

    data = {
        key: value
        for key, value in cfg.data.items()
        if key not in {"quantization_config", "quantization", "compression_config"}
    }
    try:
        return model_from_config(Config(data, cfg.origin))
    except SizeupError:
        return None


def _plan_notes(plan: Model | None) -> tuple[str, ...]:
    if plan is None:
        return ("no configuration describes these tensors: roles are told from names",)
    if plan.road == "generic":
        return (f"model type {plan.family!r} has no anatomy: roles are told from names",)
    return tuple(note for note in plan.notes if "storage format" not in note)


def packing_hints(scheme: CheckpointScheme | None) -> PackingHints:
    """Bits and group of the first packed layout that a scheme names."""
    layouts = [group.layout for group in scheme.groups if group.layout] if scheme else []
    bits = next((getattr(layout, "bits", 0) for layout in layouts if getattr(layout, "bits", 0)), 4)
    group = next((getattr(layout, "group", 0) for layout in layouts if getattr(layout, "group", 0) > 0), 64)
    return PackingHints(bits, group)


class _Reader:
    """Places the tensors of a file in layers, by anatomy where it knows them."""

    def __init__(self, plan: Model | None, cfg: Config | None, logical: list[Logical]) -> None:
        self.plan = plan if plan is not None and plan.road == "anatomy" else None
        self.cfg = cfg
        self.logical = logical
        self.match = NameMatch(self.plan.blocks if self.plan else ())
        self.notes: list[str] = []
        table = self._table()
        self.hidden = plan.hidden if plan else (table.shape[1] if table else 0)
        self.vocabulary = plan.vocabulary if plan else (table.shape[0] if table else 0)
        self.encoder_decoder = any(".encoder." in f".{item.name}" for item in logical) and any(
            ".decoder." in f".{item.name}" for item in logical
        )
        self.layers = plan.layers if plan else None
        self.per_token = self._experts_per_token(plan)

    def _table(self) -> Logical | None:
        tables = [
            item
            for item in self.logical
            if len(item.shape) == 2
            and not item.side
            and name_rules.role_of(item.name, item.shape, "", "text")[0] == "embedding"
        ]
        return max(tables, key=lambda item: item.shape[0], default=None)

    @staticmethod
    def _experts_per_token(plan: Model | None) -> int | None:
        forwards = [block.feed_forward for block in plan.blocks if block.feed_forward] if plan else []
        return max((forward.experts_per_token for forward in forwards), default=0) or None

    def placed(self) -> list[Placed]:
        """Every tensor of the file, experts gathered, and the tied tensors that the anatomy adds."""
        single = [self._place(item) for item in sorted(self.logical, key=lambda item: item.side)]
        return [*self._gathered(single), *self._tied()]

    def _place(self, item: Logical) -> tuple[Placed, int | None]:
        template, copy = name_rules.split_copy(item.name)
        found = None if item.side else self.match.find(template, item.shape, flat=item.flat)
        if found is not None:
            return self._as_described(item, template, found.block, found.tensor, found.layer), copy
        stack, layer_template, layer = self._where(item.name, template)
        role, part = ("scale", "scale") if item.side else name_rules.role_of(item.name, item.shape, item.stored, stack)
        tensor = Tensor(layer_template, item.shape, role, part, stored=item.stored)
        if role == "routed_expert" and copy is None and len(item.shape) > 1:
            tensor = self._stacked(tensor)
        elif copy is not None and self.per_token and role in {"routed_expert", "scale"}:
            tensor = msgspec.structs.replace(tensor, active=self.per_token)
        return Placed(tensor, stack, layer, "" if layer is not None else _section(stack, role)), copy

    def _where(self, name: str, template: str) -> tuple[str, str, int | None]:
        """(stack, template, layer) of a name that no anatomy describes; scales go where their weight is."""
        weight = self.match.beside(template)
        if weight is not None:
            block, layer = weight
            return block.stack, _with_layer(template, layer, block), layer
        stack = name_rules.stack_of(name, encoder_decoder=self.encoder_decoder)
        layer_template, layer = name_rules.split_layer(template)
        if stack == "text" and layer is not None and self.layers and layer >= self.layers:
            stack = "mtp"
        return stack, layer_template, layer

    def _as_described(self, item: Logical, template: str, block: Block, known: Tensor, layer: int | None) -> Placed:
        """A tensor that the anatomy knows: under the file's name and shape, with the anatomy's role and part."""
        role = known.role
        if known.tied_to:
            role = "buffer"
            self.notes.append(f"the file stores {item.name} although it is tied: {known.elements:,} elements twice")
        shape = known.stored_shape if item.flat else item.shape
        copies, fused = known.copies, known.fused
        if fused == "stacked" and shape[:1] == (copies,):
            shape = shape[1:]
        elif fused == "rows" and shape and shape[0] % copies == 0:
            shape = (shape[0] // copies, *shape[1:])
        else:
            fused = ""
        tensor = Tensor(
            _with_layer(template, layer, block),
            shape,
            role,
            "duplicate" if known.tied_to else known.part,
            copies=copies if fused else 1,
            active=known.active,
            stored=item.stored,
            fused=fused,
        )
        return Placed(tensor, block.stack, layer, "" if block.layers else block.name)

    def _stacked(self, tensor: Tensor) -> Tensor:
        """All experts of a layer in one tensor: `copies` of one."""
        copies = tensor.shape[0]
        active = min(self.per_token, copies) if self.per_token else None
        return msgspec.structs.replace(tensor, shape=tensor.shape[1:], copies=copies, active=active, fused="stacked")

    def _gathered(self, single: list[tuple[Placed, int | None]]) -> Iterable[Placed]:
        """Experts 0 … n-1 with one shape and format become one tensor with n copies."""
        groups: dict[Placed, list[int]] = {}
        for item, copy in single:
            if copy is None:
                yield item
            else:
                groups.setdefault(item, []).append(copy)
        for item, copies in groups.items():
            if sorted(copies) == list(range(len(copies))):
                active = item.tensor.active
                tensor = msgspec.structs.replace(
                    item.tensor, copies=len(copies), active=min(active, len(copies)) if active else None
                )
                yield msgspec.structs.replace(item, tensor=tensor)
            else:
                for copy in copies:
                    name = item.tensor.name.replace("{copy}", str(copy))
                    tensor = msgspec.structs.replace(item.tensor, name=name, active=None)
                    yield msgspec.structs.replace(item, tensor=tensor)

    def _tied(self) -> Iterable[Placed]:
        """Tied tensors aren't stored; the anatomy says that they are used."""
        for block in self.plan.blocks if self.plan else ():
            for tensor in block.tensors:
                source = self.match.stored_name(tensor.tied_to) if tensor.tied_to else None
                if source:
                    for layer in block.layers or (None,):
                        tied = msgspec.structs.replace(tensor, tied_to=source)
                        yield Placed(tied, block.stack, layer, "" if block.layers else block.name)

    def describe(self, stack: str, layer: int, tensors: tuple[Tensor, ...]) -> LayerKind:
        """The kind of a layer: the anatomy's, else told from its tensors."""
        block = self.match.layer_block(stack, layer)
        if block is not None:
            return LayerKind(block.name, block.mixers, block.feed_forward)
        if stack in {"vision", "audio", "projector"}:
            return LayerKind(f"{stack} layer")
        mixers = self._mixers(tensors)
        forward = feed_forward_of(tensors, self.hidden) if self.hidden else None
        return LayerKind(layer_name(mixers, forward, tensors), mixers, forward)

    def _mixers(self, tensors: tuple[Tensor, ...]) -> tuple[Mixer, ...]:
        """Plain attention of the projections' widths; heads from the configuration, or usual ones."""
        widths = {
            t.part: t.shape[0] for t in tensors if t.role == "attention" and t.part in {"q", "k", "v"} and t.is_matrix
        }
        if "q" not in widths:
            return ()
        heads = self.cfg.optional_int("num_attention_heads", "n_head") if self.cfg else None
        head = self.cfg.optional_int("head_dim") if self.cfg else None
        size = head or (widths["q"] // heads if heads else _USUAL_HEAD)
        if not size or widths["q"] % size:
            size = widths["q"]
        keys, values = widths.get("k", widths["q"]), widths.get("v", widths["q"])
        kv_heads = max(1, keys // size)
        note = f"heads of {size} assumed: the files don't say"
        if not (heads or head) and note not in self.notes:
            self.notes.append(note)
        return (Attention(max(1, widths["q"] // size), kv_heads, size, max(1, values // kv_heads)),)


def _with_layer(template: str, layer: int | None, block: Block) -> str:
    """The layer's number in a name as `{layer}`: where the block's own names have it."""
    if layer is None:
        return template
    before = block.tensors[0].name.partition("{layer}")[0].rstrip(".").rpartition(".")[2]
    return template.replace(f"{before}.{layer}.", f"{before}.{{layer}}.", 1)


def _section(stack: str, role: str) -> str:
    if stack in {"vision", "audio"}:
        return f"{stack} tower"
    if stack == "projector":
        return "projector"
    if stack == "mtp":
        return "multi-token prediction"
    return "output" if role in {"head", "norm"} else "embedding"


def _main_dtype(logical: list[Logical]) -> str:
    """The plain format with the most elements."""
    held: dict[str, int] = {}
    for item in logical:
        if not item.side and item.stored in _PLAIN:
            held[item.stored] = held.get(item.stored, 0) + 1
    return max(held, key=lambda dtype: held[dtype]).lower() if held else "bf16"


def _scheme_of(logical: list[Logical]) -> str | None:
    """A scheme's name by the packed format with the most tensors, for files without a configuration."""
    packed = [item.stored for item in logical if item.stored not in _PLAIN and not item.side and len(item.shape) > 1]
    if not packed or not any(item.side for item in logical):
        return None
    return max(sorted(set(packed)), key=packed.count).lower()
