"""Weights that lie on the device and take no part in the step: the towers of a model that is given text alone.

In transformers such a weight wants a gradient and never gets one, so it has neither gradient nor optimizer states
(`torch.optim` skips parameters without a gradient). Adapters sit on its linear modules as on all others, and lie idle,
too; QLoRA packs them.
"""

from __future__ import annotations

import msgspec

from sizeup.estimate.training.build import Build, Weight, packed_sizes


class Idle(msgspec.Struct, frozen=True, array_like=True):
    """`count` weights of n elements each. inputs, outputs: of a linear module's matrix; 0 for any other weight."""

    name: str
    n: int
    count: int = 1
    inputs: int = 0
    outputs: int = 0


def lay_idle(build: Build, idle: tuple[Idle, ...]) -> None:
    """Put the weights on the device, with what the method does to linear modules."""
    method = build.method
    for part in idle:
        sizes: tuple[int, ...] = (part.n * method.item,)
        if part.inputs and method.four_bit:
            sizes = packed_sizes(part.n, method.double_quantization)
        _keep(build, part.name, "matrix" if part.inputs else "vector", part, part.n, sizes)
        if part.inputs and method.rank and build.targeted(part.name):
            item = max(method.adapter_item, method.item)
            for half, n in (("lora_A", part.inputs * method.rank), ("lora_B", method.rank * part.outputs)):
                _keep(build, f"{part.name}.{half}", "adapter", part, n, (n * item,))
            if method.dora:
                _keep(build, f"{part.name}.magnitude", "adapter", part, part.outputs, (part.outputs * item,))


def _keep(build: Build, name: str, kind: str, part: Idle, n: int, sizes: tuple[int, ...]) -> None:
    item = sizes[0] // n or 2
    build.weights.append(Weight(name, kind, n * part.count, item, sizes * part.count, trains=False))
