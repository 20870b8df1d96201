"""Matrix products with a weight: plain, under autocast, with a low-rank adapter, on a 4-bit weight.

A linear layer keeps its input if its weight trains, and under autocast the cast copy of its weight if the input needs
a gradient. Gradients: first the weight's, then the input's (torch 2.13, `MmBackward0`, `AddmmBackward0`).
"""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.estimate.training.basic import add, cast, copy, dropout, multiply, same_size, scale, shift
from sizeup.estimate.training.tape import ADAPTER, WEIGHT_COPIES, Parameter, Storage, Tape, Value


def linear(tape: Tape, x: Value, weight: Value, bias: Parameter | None = None, *, outputs: int = 0) -> Value:
    """X · Wᵀ (+ b). outputs: rows of a weight that was computed and isn't a parameter."""
    outputs = weight.rows if isinstance(weight, Parameter) else outputs
    rows = x.n // (weight.n // outputs)
    matrix: Value = weight
    offset: Value | None = bias
    if tape.autocast:
        x = cast(tape, x, tape.autocast)
        matrix = weight_copy(tape, weight) if isinstance(weight, Parameter) else cast(tape, weight, tape.autocast)
        offset = None if bias is None else weight_copy(tape, bias)
    item = max(x.item, matrix.item)
    tape.saved()
    if not tape.grad:
        return tape.product(rows * outputs, item, (), _ungraphed)
    keep = (x.storage if matrix.needs else None, matrix.storage if x.needs else None)
    shape = (x.n, weight.n, 0 if bias is None else bias.n)
    wants = (x.needs, matrix.needs, offset is not None and offset.needs)

    def backward(g: Value, _keep: object = keep) -> Sequence[Value | None]:
        return _gradients(tape, g, shape, wants, item)

    return tape.product(rows * outputs, item, (x, matrix, offset), backward)


def _ungraphed(_g: Value) -> Sequence[Value | None]:
    """Stands in for the backward pass where no graph is made."""
    return ()


def _gradients(
    tape: Tape, g: Value, shape: tuple[int, int, int], wants: tuple[bool, bool, bool], item: int
) -> Sequence[Value | None]:
    """Of the input, the weight and the bias; the first two are views of the products.

    Without a bias (`mm`) the weight's comes first, with one (`addmm`) the input's.
    """
    biased = shape[2] > 0
    of_input = _view(tape, shape[0], item) if wants[0] and biased else None
    of_weight = _view(tape, shape[1], item) if wants[1] else None
    if wants[0] and not biased:
        of_input = _view(tape, shape[0], item)
    return of_input, of_weight, g if wants[2] else None


def _view(tape: Tape, n: int, item: int) -> Value:
    value = tape.value(n, item)
    value.view = True
    return value


def weight_copy(tape: Tape, weight: Parameter) -> Value:
    """Autocast's copy of a weight in the compute type; that of a trained weight is cached until the context ends."""
    if weight.item == tape.autocast:
        return weight
    if weight.copy is not None:
        return weight.copy
    before, tape.label = tape.label, WEIGHT_COPIES
    made = cast(tape, weight, tape.autocast)
    tape.label = before
    if weight.needs:
        weight.copy = made
        tape.cached.append(weight)
    return made


class Adapter:
    """A low-rank pair on a linear layer (Hu et al. 2021); magnitude: DoRA's vector (Liu et al. 2024).

    base_item: bytes of an element of the layer's own weight. bias_item: of its bias; 0 without one. transposed: the
    layer is a `Conv1D`. turned: what DoRA made of its weight last.
    """

    __slots__ = ("base_item", "bias_item", "down", "dropout", "magnitude", "transposed", "turned", "up")

    def __init__(
        self,
        down: Parameter,
        up: Parameter,
        dropout: float,
        magnitude: Parameter | None,
        base_item: int,
        bias_item: int,
        *,
        transposed: bool,
    ) -> None:
        self.down, self.up, self.dropout, self.magnitude = down, up, dropout, magnitude
        self.base_item, self.bias_item, self.transposed = base_item, bias_item, transposed
        self.turned: Parameter | None = None


def adapted(tape: Tape, x: Value, result: Value, adapter: Adapter, *, cloned: bool = False) -> Value:
    """Result + B(A(dropout(x))) · s, with x in the adapter's type and the sum cast back to the result's.

    cloned: the result is copied first, and x isn't cast where autocast does (peft 0.21, `lora/bnb.py`).
    """
    before, tape.label = tape.label, ADAPTER
    item = result.item
    if cloned:
        result = copy(tape, result)
    if not cloned or not tape.autocast:
        x = cast(tape, x, adapter.down.item)
    if adapter.magnitude is None:
        result = add(tape, result, scale(tape, _branch(tape, dropout(tape, x, adapter.dropout), adapter)))
    else:
        result = add(tape, result, _by_magnitude(tape, x, result, adapter, adapter.magnitude))
    result = cast(tape, result, item)
    tape.label = before
    return result


def adapted_table(tape: Tape, x: Value, down: Parameter, up: Parameter, tokens: int) -> Value:
    """Rows of a table plus rows of A times B: the gradient of A comes transposed and is laid out anew (peft 0.21)."""
    before, tape.label = tape.label, ADAPTER
    n, item = down.n, down.item

    def backward(_g: Value) -> Sequence[Value | None]:
        whole = tape.value(n, item)
        tape.transient(*[8 * tokens] * 5)
        result = tape.value(n, item)
        del whole
        return (result,)

    rows = tape.result(tokens * down.rows, item, (down,), backward)
    output = cast(tape, add(tape, x, scale(tape, linear(tape, rows, up))), x.item)
    tape.label = before
    return output


def _branch(tape: Tape, x: Value, adapter: Adapter) -> Value:
    return linear(tape, linear(tape, x, adapter.down), adapter.up)


def _by_magnitude(tape: Tape, x: Value, result: Value, adapter: Adapter, magnitude: Parameter) -> Value:
    """DoRA: what is added to the result, by magnitude / ‖W + B · A‖ of each output.

    The norm is made anew: B · A of an identity matrix, whose graph lives as long as the function, W in the adapter's
    type, both times the scale and added (peft 0.21, `lora/dora.py`). With dropout the base product is computed again,
    from that W; of a `Conv1D` that W is made a trained parameter on the way, whose gradient stays until the graph goes.
    """
    item, rank = adapter.down.item, adapter.down.rows
    inputs, outputs = adapter.down.n // rank, adapter.up.n // rank
    n = inputs * outputs
    x = dropout(tape, x, adapter.dropout)
    product = _changed(tape, adapter, inputs, rank, n)
    if adapter.transposed and adapter.base_item == item:
        adapter.turned = Parameter(n, item, None, needs=True, rows=outputs)
        whole: Value = adapter.turned
    else:
        whole = Value(n, item, tape.value(n, item).storage if adapter.base_item != item else None)
    scaled, changed = tape.value(n, item), tape.value(n, item)
    del scaled
    norm = tape.value(outputs, item)
    del changed
    factor = tape.result(outputs, item, (magnitude,), same_size(tape, norm.storage))
    branch = _branch(tape, x, adapter)
    if adapter.dropout:
        result = linear(tape, x, whole, outputs=outputs)
    elif adapter.bias_item:
        result = tape.result(result.n, max(result.item, adapter.bias_item), (result,), lambda g: (g,))
    first = multiply(tape, shift(tape, factor), result)
    second = scale(tape, multiply(tape, factor, branch))
    del product, whole
    return add(tape, first, second)


def _changed(tape: Tape, adapter: Adapter, inputs: int, rank: int, n: int) -> list[Value]:
    """B · A of an identity matrix in the adapter's type, and what its graph keeps."""
    item = adapter.down.item
    low = tape.autocast or item
    eye = tape.value(inputs * inputs, item)
    kept = [tape.value(inputs * inputs, low) if low != item else eye]
    if tape.autocast:
        weight_copy(tape, adapter.down)
    kept.append(tape.value(inputs * rank, low))
    if tape.autocast:
        weight_copy(tape, adapter.up)
    product = tape.value(n, low)
    del eye
    if not tape.grad:
        kept = []
    return [*kept, tape.value(n, item) if low != item else product]


def four_bit(tape: Tape, x: Value, weight: Parameter, bias: Parameter | None = None, *, saves: bool = True) -> Value:
    """A linear layer whose weight is unpacked to 16 bits for each product, forward and backward (QLoRA).

    Nothing of the input is kept: the weight is frozen. saves: the packed weight is kept as saved tensors are, so that
    recomputation goes as far; bitsandbytes keeps it as an attribute.
    """
    inputs = weight.n // weight.rows
    rows, n = x.n // inputs, x.n
    lowered = tape.value(x.n, 2) if x.item != 2 else x
    if saves:
        tape.saved()
    whole = weight.n

    def backward(g: Value) -> Sequence[Value | None]:
        unpacked = _unpacked(tape, whole)
        lowered_gradient = tape.value(g.n, 2) if g.item != 2 else g
        result = tape.value(n, 2)
        del unpacked, lowered_gradient
        return (result,)

    unpacked = _unpacked(tape, whole)
    output = tape.result(rows * weight.rows, 2, (x,), backward)
    del lowered, unpacked, bias
    return output


def gptq(tape: Tape, x: Value, weight: Parameter) -> Value:
    """A linear layer whose weight is unpacked by operations written in Python, and kept for the input's gradient.

    Shifted in 32 bits, cut to a byte, masked, less its zero, times its scale in fp16 (AutoGPTQ 0.7, the road of many
    tokens in `qlinear_cuda_old.py`). Derived, not simulated.
    """
    whole, n, inputs = weight.n, x.n, weight.n // weight.rows
    before, tape.label = tape.label, WEIGHT_COPIES
    shifted = tape.value(whole, 4)
    cut = tape.value(whole, 1)
    del shifted
    cut = tape.value(whole, 1)
    difference = tape.value(whole, 1)
    del cut
    unpacked = tape.value(whole, 2)
    del difference
    tape.label = before
    keep, item = unpacked.storage if x.needs else None, x.item
    tape.saved()

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        return (tape.value(n, item),)

    return tape.product(n // inputs * weight.rows, item, (x,), backward)


def _unpacked(tape: Tape, n: int) -> Storage | None:
    before, tape.label = tape.label, WEIGHT_COPIES
    storage = tape.value(n, 2).storage
    tape.label = before
    return storage
