"""ZeRO 1 and 2 as DeepSpeed does them: who holds states and gradients, and the buffer that gradients pass through.

Weights stay whole on every rank. Of N ranks each holds, for P weights that train:

    stage 1   1/N of states and master copies; all gradients
    stage 2   1/N of the gradients, too: a gradient goes to its owner as soon as the bucket that it lies in is full
    bucket    `reduce_bucket_size` elements in the gradients' type, made before each backward pass: 5·10⁸ by default;
              counted as no more than P, which is what it takes to hold every gradient
    step      the share of the gradients once more in fp32, where master copies are stepped

DeepSpeed makes master copies and states in fp32 whatever the weights are in: precision `bf16-fp32-master` says so.
Source: Rajbhandari et al. 2020; DeepSpeed 0.17, `runtime/zero/stage_1_and_2.py` (`backward`, `step`).
"""

from __future__ import annotations

import msgspec

from sizeup.estimate.training.step import Static

BUCKET_ELEMENTS = 500_000_000


def share(size: int, ways: int) -> int:
    """The largest rank's part of so many bytes."""
    return -(-size // ways)


def partitioned(static: Static, gradients: int, item: int, stage: int, ways: int) -> Static:
    """What a rank holds. static: of an undivided run. gradients: bytes of all of them, in elements of `item` bytes."""
    kept = share(gradients, ways) if stage == 2 else static.gradients
    return msgspec.structs.replace(
        static,
        states=share(static.states, ways),
        masters=share(static.masters, ways),
        gradients=kept,
        buckets=min(gradients, BUCKET_ELEMENTS * item),
    )
