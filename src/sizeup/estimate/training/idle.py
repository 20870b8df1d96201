"""Weights that lie on the device and take no part in the step: the towers of a model that is given text alone.

In transformers such a weight wants a gradient and never gets one, so it has neither gradient nor optimizer states
(`torch.optim` skips parameters without a gradient). Adapters sit on its linear modules as on all others, and lie idle,
too; QLoRA packs them.
"""

from __future__ import annotations

import msgspec

from sizeup.estimate.training.build import Build, Weight, packed_sizes


class Idle(msgspec.Struct, frozen=True, array_like=True):
    """`count` weights of n elements each. inputs, outputs: of a linear module's matrix; 0 for any other weight.

    tower: it is the tower's and not on the way from there into the text.
    """

    name: str
    n: int
    count: int = 1
    inputs: int = 0
    outputs: int = 0
    tower: bool = True


def lay_idle(build: Build, idle: tuple[Idle, ...], *, frozen: bool = False) -> None:
    """Put the weights on the device, with what the method does to linear modules. frozen: a tower isn't adapted."""
    method = build.method
    for part in idle:
        sizes: tuple[int, ...] = (part.n * method.item,)
        if part.inputs and method.four_bit:
            sizes = packed_sizes(part.n, method.double_quantization)
        _keep(build, part, part.name, "matrix" if part.inputs else "vector", (part.n, method.item), sizes)
        if part.inputs and method.rank and not (frozen and part.tower) and build.targeted(part.name):
            item = max(method.adapter_item, method.item)
            halves = {"lora_A": part.inputs * method.rank, "lora_B": method.rank * part.outputs}
            for half, n in (halves | ({"magnitude": part.outputs} if method.dora else {})).items():
                _keep(build, part, f"{part.name}.{half}", "adapter", (n, item), (n * item,))


def _keep(build: Build, part: Idle, name: str, kind: str, size: tuple[int, int], sizes: tuple[int, ...]) -> None:
    n, item = size
    build.weights.append(Weight(name, kind, n * part.count, item, sizes * part.count, trains=False))
