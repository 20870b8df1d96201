"""What ranks of tensor parallelism pass each other where transformers' plan gathers and splits (5.23).

`colwise_gather_output`: each rank computes some columns and all of them are gathered (fused projections, norms over
whole queries). `rowwise_split_input`: each takes its part of a whole input.
"""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.estimate.training.tape import Tape, Value


def gathered(tape: Tape, local: Value, ways: int) -> Value:
    """All ranks' parts: received rank after rank, then joined in the last dimension; the gradient is the own part."""
    n, whole = local.n, local.n * ways
    received = tape.value(whole, local.item)
    output = tape.result(whole, local.item, (local,), lambda g: (tape.value(n, g.item),))
    del received
    return output


def parted(tape: Tape, x: Value, ways: int) -> Value:
    """A copy of the own part; its gradient is gathered from all ranks."""
    whole, item = x.n, x.item

    def backward(_g: Value) -> Sequence[Value | None]:
        received = tape.value(whole, item)
        result = tape.value(whole, item)
        del received
        return (result,)

    return tape.result(whole // ways, item, (x,), backward)
