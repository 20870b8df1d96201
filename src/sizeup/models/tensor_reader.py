"""Places the tensors of a checkpoint in layers: by an anatomy where it knows them, by names and shapes elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from sizeup.models import name_rules
from sizeup.models.config import Config
from sizeup.models.grouping import LayerKind, Placed, blocks_of, feed_forward_of, layer_name, with_copies
from sizeup.models.mixers_by_shape import ASSUMED_HEADS, mixers_of
from sizeup.models.model import Block, Model
from sizeup.models.name_match import Match, NameMatch
from sizeup.models.packed import Logical
from sizeup.models.tensors import Tensor

_TOWERS = frozenset({"vision", "audio", "projector"})


class TensorReader:
    """From a checkpoint's tensors to blocks.

    plan: what the configuration alone gives; only an exact one (road `anatomy`) names tensors. cfg: the part of the
    configuration that describes the text. buffers: the names that aren't parameters, where that is known; None lets
    names decide. ties: tied name → the name that holds its values, for what isn't in the list; given for a class as it
    was built, which has no multi-token prediction. In files, layers beyond the configuration's are such.
    """

    def __init__(
        self,
        logical: list[Logical],
        plan: Model | None,
        cfg: Config,
        *,
        buffers: frozenset[str] | None = None,
        ties: Mapping[str, str] | None = None,
    ) -> None:
        self.plan = plan if plan is not None and plan.road == "anatomy" else None
        self.cfg, self.logical, self.buffers, self.ties = cfg, logical, buffers, dict(ties or {})
        self.match = NameMatch(self.plan.blocks if self.plan else ())
        self.notes: list[str] = []
        table = self._table()
        self.hidden = plan.hidden if plan else (table.shape[1] if table else 0)
        self.vocabulary = plan.vocabulary if plan else (table.shape[0] if table else 0)
        self.layers = plan.layers if plan and ties is None else None
        self.per_token = _experts_per_token(plan)
        dotted = [f".{item.name}" for item in logical]
        self.encoder_decoder = any(".encoder." in name for name in dotted) and any(
            ".decoder." in name for name in dotted
        )

    def blocks(self) -> tuple[Block, ...]:
        """All tensors in blocks; `notes` then says what was assumed."""
        return blocks_of(self._placed(), self._describe)

    def _table(self) -> Logical | None:
        """The largest embedding."""
        tables = [
            item
            for item in self.logical
            if len(item.shape) == 2
            and not item.side
            and name_rules.role_of(item.name, item.shape, "", "text")[0] == "embedding"
        ]
        return max(tables, key=lambda item: item.shape[0], default=None)

    def _placed(self) -> list[Placed]:
        """Every tensor; the experts of a layer that differ in their number only are looked at once."""
        groups: dict[tuple[bool, str, tuple[int, ...], str, bool], list[int | None]] = {}
        for item in self.logical:
            template, copy = name_rules.split_copy(item.name)
            groups.setdefault((item.side, template, item.shape, item.stored, item.flat), []).append(copy)
        placed = []
        for (side, template, shape, stored, flat), copies in sorted(groups.items(), key=lambda group: group[0][0]):
            one = self._place(Logical(template, shape, stored, side=side, flat=flat))
            placed += list(with_copies(one, [copy for copy in copies if copy is not None]))
        return [*placed, *self._tied()]

    def _place(self, item: Logical) -> Placed:
        """One tensor, or the experts of a layer, under a name with `{copy}` for the expert's number."""
        found = None if item.side else self.match.find(item.name, item.shape, flat=item.flat)
        if found is not None:
            return self._as_described(item, found)
        stack, template, layer = self._where(item.name)
        role, part = ("scale", "scale") if item.side else self._role(item, stack)
        tensor = Tensor(template, item.shape, role, part, stored=item.stored or None)
        alone = "{copy}" not in item.name
        if role == "routed_expert" and alone and len(item.shape) > 1:
            tensor = self._stacked(tensor)
        elif not alone and self.per_token and role in {"routed_expert", "scale"}:
            tensor = msgspec.structs.replace(tensor, active=self.per_token)
        return Placed(tensor, stack, layer, "" if layer is not None else _section(stack, role))

    def _role(self, item: Logical, stack: str) -> tuple[str, str]:
        """The role by name; whoever listed the buffers knows better which they are."""
        role, part = name_rules.role_of(item.name, item.shape, item.stored, stack)
        if self.buffers is None or (item.name in self.buffers) == (role == "buffer"):
            return role, part
        if item.name in self.buffers:
            return "buffer", part
        return ("router" if part == "router_correction" else "attention" if "attn" in item.name else "mlp"), part

    def _where(self, name: str) -> tuple[str, str, int | None]:
        """(stack, template, layer) of a name that no anatomy describes; scales go where their weight is."""
        weight = self.match.beside(name)
        if weight is not None:
            block, layer = weight
            return block.stack, _with_layer(name, layer, block), layer
        stack = name_rules.stack_of(name, encoder_decoder=self.encoder_decoder)
        layer_template, layer = name_rules.split_layer(name)
        if stack == "text" and layer is not None and self.layers and layer >= self.layers:
            stack = "mtp"
        return stack, layer_template, layer

    def _as_described(self, item: Logical, found: Match) -> Placed:
        """A tensor that the anatomy knows: under the file's name and shape, with the anatomy's role and part."""
        known, block, layer = found.tensor, found.block, found.layer
        if known.tied_to:
            self.notes.append(f"the files store {item.name} although it is tied: {known.elements:,} elements twice")
        shape, copies, fused = known.stored_shape if item.flat else item.shape, known.copies, known.fused
        if fused == "stacked" and shape[:1] == (copies,):
            shape = shape[1:]
        elif fused == "rows" and shape and shape[0] % copies == 0:
            shape = (shape[0] // copies, *shape[1:])
        else:
            fused = ""
        tensor = Tensor(
            _with_layer(item.name, layer, block),
            shape,
            "buffer" if known.tied_to else known.role,
            "duplicate" if known.tied_to else known.part,
            copies=copies if fused else 1,
            active=known.active,
            stored=item.stored or None,
            fused=fused,
        )
        return Placed(tensor, block.stack, layer, "" if block.layers else block.name)

    def _stacked(self, tensor: Tensor) -> Tensor:
        """All experts of a layer in one tensor: `copies` of one."""
        copies = tensor.shape[0]
        active = min(self.per_token, copies) if self.per_token else None
        return msgspec.structs.replace(tensor, shape=tensor.shape[1:], copies=copies, active=active, fused="stacked")

    def _tied(self) -> Iterable[Placed]:
        """Tied tensors aren't stored; the anatomy, or whoever listed the tensors, says that they are used."""
        for block in self.plan.blocks if self.plan else ():
            for tensor in block.tensors:
                source = self.match.stored_name(tensor.tied_to) if tensor.tied_to else None
                if source:
                    for layer in block.layers or (None,):
                        tied = msgspec.structs.replace(tensor, tied_to=source)
                        yield Placed(tied, block.stack, layer, "" if block.layers else block.name)
        shapes = {item.name: item.shape for item in self.logical}
        for name, source in self.ties.items():
            if source in shapes:
                stack, template, layer = self._where(name)
                role, part = name_rules.role_of(name, shapes[source], "", stack)
                tied = Tensor(template, shapes[source], role, part, tied_to=source)
                yield Placed(tied, stack, layer, "" if layer is not None else _section(stack, role))

    def _describe(self, stack: str, layer: int, tensors: tuple[Tensor, ...]) -> LayerKind:
        """The kind of a layer: the anatomy's, else told from its tensors."""
        block = self.match.layer_block(stack, layer)
        if block is not None:
            return LayerKind(block.name, block.mixers, block.feed_forward)
        if stack in _TOWERS:
            return LayerKind(f"{stack} layer")
        mixers = mixers_of(tensors, self.cfg, stack, layer)
        if mixers and not self.cfg.has("num_attention_heads", "n_head", "n_heads", "num_heads", "head_dim"):
            self.notes = [*(note for note in self.notes if note != ASSUMED_HEADS), ASSUMED_HEADS]
        forward = feed_forward_of(tensors, self.hidden) if self.hidden else None
        name = layer_name(mixers, forward, tensors)
        return LayerKind(f"{stack} {name}" if stack in {"encoder", "decoder"} else name, mixers, forward)


def _experts_per_token(plan: Model | None) -> int | None:
    forwards = [block.feed_forward for block in plan.blocks if block.feed_forward] if plan else []
    return max((forward.experts_per_token for forward in forwards), default=0) or None


def _with_layer(template: str, layer: int | None, block: Block) -> str:
    """The layer's number in a name as `{layer}`: where the block's own names have it."""
    if layer is None:
        return template
    before = block.tensors[0].name.partition("{layer}")[0].rstrip(".").rpartition(".")[2]
    return template.replace(f"{before}.{layer}.", f"{before}.{{layer}}.", 1)


def _section(stack: str, role: str) -> str:
    if stack in {"vision", "audio"}:
        return f"{stack} tower"
    if stack in {"projector", "mtp"}:
        return "projector" if stack == "projector" else "multi-token prediction"
    return "output" if role in {"head", "norm"} else "embedding"
