r"""Trainable parameters of low-rank adapters (LoRA), on targets named as peft names them.

A target is a name such as `q_proj` (the last parts of a module's name), several of them, `all-linear`, or a regular
expression that matches whole module names (`.*\\.layers\\.[0-9]\\..*_proj`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sizeup.errors import BadInput
from sizeup.models.count import UNIT, layers_formula
from sizeup.models.model import Block, Model
from sizeup.models.tensors import Tensor
from sizeup.quantity import Term, leaf, total

ALL_LINEAR = "all-linear"

# Matrices that are not torch.nn.Linear modules, or that `all-linear` leaves out (the output head).
_NOT_LINEAR = frozenset({"embedding", "norm", "head", "router", "buffer", "scale"})
_REGEX_SIGNS = frozenset("*+?[](){}|^$\\")


def lora_parameters(
    model: Model, targets: str | Sequence[str] = ALL_LINEAR, rank: int = 16, *, expert_modules: bool = False
) -> Term:
    """Σ over the adapted matrices of rank · (inputs + outputs), Hu et al. 2021, section 4.1.

    expert_modules: whether each routed expert is a module of its own. transformers ≥ 5 stacks the experts of a layer
    in one tensor that isn't a module, so that peft's targets pass over them; earlier versions adapt every expert.
    Checked against peft 0.21 on small models. Known differences: for some mixtures (DeepSeek, Qwen3-Next) it rewrites
    `all-linear` to the stacked experts and leaves their shared expert out; it refuses `out_proj` of Mamba models.
    Raises BadInput for a rank below 1, a broken expression, and targets that match nothing, naming what there is.
    """
    if rank < 1:
        raise BadInput(f"LoRA rank is {rank}; it must be 1 or more", hint="give --rank 16")
    matches = _matcher(targets)
    parts = [
        term
        for block in model.blocks
        if block.stack != "mtp"
        for tensor in block.tensors
        if _is_module(tensor, expert_modules=expert_modules)
        if (term := _adapter(block, tensor, rank, matches))
    ]
    if not parts:
        known = ", ".join(sorted({_last(_module(t.name)) for b in model.blocks for t in b.tensors if t.is_matrix}))
        raise BadInput(f"no module of {model.name} matches the targets {targets!r}", hint=f"its matrices are {known}")
    return total(f"LoRA of rank {rank}", parts, source="Hu et al. 2021")


class _Targets:
    """Which modules are meant."""

    def __init__(self, targets: str | Sequence[str]) -> None:
        self.everything = targets == ALL_LINEAR
        self.pattern = self._compiled(targets) if isinstance(targets, str) and not self.everything else None
        self.names = () if isinstance(targets, str) else tuple(targets)

    @staticmethod
    def _compiled(text: str) -> re.Pattern[str]:
        if not _REGEX_SIGNS.intersection(text):
            return re.compile(rf"(?:.*\.)?(?:{'|'.join(re.escape(name.strip()) for name in text.split(','))})")
        try:
            return re.compile(text)
        except re.error as error:
            raise BadInput(
                f"the targets {text!r} aren't a regular expression: {error}", hint="name modules: q_proj"
            ) from None

    def hit(self, module: str, role: str) -> bool:
        """Whether a module is adapted."""
        if self.everything:
            return role not in _NOT_LINEAR
        if self.pattern:
            return self.pattern.fullmatch(module) is not None
        return any(module == name or module.endswith(f".{name}") for name in self.names)


def _matcher(targets: str | Sequence[str]) -> _Targets:
    return _Targets(targets)


def _adapter(block: Block, tensor: Tensor, rank: int, targets: _Targets) -> Term | None:
    layers = sum(1 for name in _modules(block, tensor) if targets.hit(name, tensor.role))
    if not layers:
        return None
    rows, columns = tensor.shape
    each = rank * (rows + columns)
    formula = f"{layers:,} × {rank} × ({columns:,} + {rows:,}), {layers_formula(block)}".rstrip(", ")
    return leaf(_last(_module(tensor.name)), layers * each, formula, unit=UNIT)


def _modules(block: Block, tensor: Tensor) -> Iterator[str]:
    for layer in block.layers or (None,):
        for name in tensor.names(layer):
            yield _module(name)


def _is_module(tensor: Tensor, *, expert_modules: bool) -> bool:
    if len(tensor.shape) != 2 or tensor.tied_to or not tensor.name.endswith(".weight"):
        return False
    return expert_modules or tensor.role != "routed_expert"


def _module(name: str) -> str:
    return name.removesuffix(".weight")


def _last(module: str) -> str:
    return module.rpartition(".")[2]
