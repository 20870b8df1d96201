"""Parameters as trees that explain themselves: by role, by component and kind of layer, and the size class."""

from __future__ import annotations

from sizeup.models.model import Block, Model
from sizeup.models.tensors import ROLES, Tensor
from sizeup.quantity import Term, leaf, total

UNIT = "parameters"

#: Upper bounds of the size classes, in parameters.
SIZE_CLASSES = ((100e6, "small"), (1e9, "medium"), (10e9, "large"))

_ROLE_NAMES = {
    "mlp": "dense feed-forward",
    "routed_expert": "routed experts",
    "shared_expert": "shared experts",
    "state_space": "state space",
    "linear_attention": "linear attention",
    "mtp": "multi-token prediction",
    "head": "output head",
}


def role_name(role: str) -> str:
    """A role as people read it: `routed_expert` → `routed experts`."""
    return _ROLE_NAMES.get(role, role)


def size_class(parameters: int) -> str:
    """Small < 100M ≤ medium < 1B ≤ large ≤ 10B < extra large."""
    if parameters == SIZE_CLASSES[-1][0]:
        return "large"
    return next((name for bound, name in SIZE_CLASSES if parameters < bound), "extra large")


def built_blocks(model: Model) -> tuple[Block, ...]:
    """The blocks that the model's class builds: all but multi-token prediction."""
    return tuple(block for block in model.blocks if block.stack != "mtp")


def role_sums(model: Model) -> dict[str, int]:
    """Parameters by role, in the order of ROLES, roles without any left out: Σ of elements · copies · layers."""
    sums: dict[str, int] = {}
    for block in built_blocks(model):
        for tensor in block.tensors:
            sums[tensor.role] = sums.get(tensor.role, 0) + block.count * tensor.parameters
    return {role: sums[role] for role in ROLES if sums.get(role)}


def by_role(model: Model) -> Term:
    """The sums of the roles as a tree; its value is `model.parameters`."""
    return _total("parameters", [leaf(role_name(role), held, unit=UNIT) for role, held in role_sums(model).items()])


def by_component(model: Model) -> Term:
    """The parameters of each block, `58 × mixture layer`, with the roles in it; its value is `model.parameters`."""
    return _total("parameters", [_block_term(block) for block in built_blocks(model)])


def mtp_term(model: Model) -> Term | None:
    """The multi-token prediction layers that are stored beside the model; None when there are none."""
    parts = [_block_term(block) for block in model.blocks if block.stack == "mtp"]
    return _total("multi-token prediction", parts) if parts else None


def _block_term(block: Block) -> Term:
    name = f"{block.count} × {block.name}" if block.layers else block.name
    grouped: dict[str, list[Tensor]] = {}
    for tensor in block.tensors:
        if tensor.parameters:
            grouped.setdefault(tensor.role, []).append(tensor)
    roles = [_role_term(block, role, grouped[role]) for role in ROLES if role in grouped]
    return _total(name, roles, layers_formula(block))


def _role_term(block: Block, role: str, tensors: list[Tensor]) -> Term:
    amount = sum(tensor.parameters for tensor in tensors)
    formula = " + ".join(_tensor_formula(tensor) for tensor in tensors)
    if block.layers:
        formula = f"{block.count} layers × ({formula})"
    return leaf(role_name(role), block.count * amount, formula, unit=UNIT)


def _tensor_formula(tensor: Tensor) -> str:
    shape = "·".join(f"{extent:,}" for extent in tensor.shape) or "1"
    label = tensor.part or tensor.name.rpartition(".")[0]
    return f"{label} {tensor.copies}×{shape}" if tensor.copies > 1 else f"{label} {shape}"


def layers_formula(block: Block) -> str:
    """The layer numbers of a block as ranges: `layers 3–60`, `layers 0, 2, 4`; empty outside the layers."""
    if not block.layers:
        return ""
    runs: list[list[int]] = []
    for layer in sorted(block.layers):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    shown = [str(first) if first == last else f"{first}–{last}" for first, last in runs]
    return "layers " + ", ".join(shown)


def _total(name: str, parts: list[Term], formula: str = "") -> Term:
    return total(name, parts, formula) if parts else leaf(name, 0, formula, unit=UNIT)
