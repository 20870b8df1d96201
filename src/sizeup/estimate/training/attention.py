"""Scaled dot-product attention: which kernel torch chooses, and what each keeps.

Choice after torch 2.13, `aten/src/ATen/native/transformers/cuda/sdp_utils.cpp`: flash, then efficient, then math.
transformers 5.23 (`integrations/sdpa_attention.py`) passes grouped heads as they are when there is no mask, and repeats
keys and values otherwise; without a mask the kernel is told that it is causal, so that no mask is made.

    flash      q, k, v, the output and 4 bytes a row and head (log-sum-exp); 16-bit, heads up to 256, no mask
    efficient  the same, with equal numbers of heads
    math       everything: scores twice in 32 bits, s² a head
    eager      the model's own Python: scores, softmax in fp32 and its 16-bit copy
"""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.estimate.training.basic import add, cast, copy, dropout, scale
from sizeup.estimate.training.eager import eager
from sizeup.estimate.training.scores import Heads, Way, product, repeat_heads, softmax, spread_heads
from sizeup.estimate.training.tape import ATTENTION, Parameter, Storage, Tape, Value

__all__ = ["Heads", "Way", "attend", "flash_temporaries", "kernel", "product", "repeat_heads"]


def kernel(item: int, h: Heads, *, mask: bool, grouped: bool, broadcast: bool = False) -> str:
    """The kernel torch takes on a device of compute capability 8.0 or newer; grouped: heads are passed as they are."""
    equal = h.heads == h.kv_heads
    if item == 2 and not mask and h.head_dim == h.value_dim <= 256 and (equal or grouped):
        return "flash"
    multiple = 8 if item == 2 else 4
    if h.head_dim % multiple == 0 and h.value_dim % multiple == 0 and (equal or not (grouped or broadcast)):
        return "efficient"
    return "math"


def attend(
    tape: Tape, q: Value, k: Value, v: Value, h: Heads, way: Way, mask: Value | None = None, bias: Value | None = None,
    sinks: Parameter | None = None, names: list[Value] | None = None,
) -> Value:  # fmt: skip
    """The attention's output, (batch, queries, heads · value_dim), in the order of memory that the next layer wants.

    sinks: a trained column of scores. names: takes what the module's function has names for until it returns.
    """
    before, tape.label = tape.label, ATTENTION
    if way.eager:
        output = eager(tape, q, k, v, h, way, mask, bias, sinks, [] if names is None else names)
    else:
        output = _sdpa(tape, q, k, v, h, way, mask, bias)
    tape.label = before
    return output


def _sdpa(
    tape: Tape, q: Value, k: Value, v: Value, h: Heads, way: Way, mask: Value | None, bias: Value | None
) -> Value:
    grouped = h.groups > 1 and mask is None and bias is None and h.head_dim == h.value_dim <= 256 and not way.broadcast
    if h.groups > 1 and not grouped and not way.broadcast:
        k, v = spread_heads(tape, k, h), spread_heads(tape, v, h)
    if bias is not None:
        mask = _bias_mask(tape, bias, mask, way, h)
    if tape.autocast:
        q, k, v = (cast(tape, x, tape.autocast) for x in (q, k, v))
        mask = None if mask is None else _cast_mask(tape, mask, tape.autocast)
    chosen = kernel(q.item, h, mask=mask is not None, grouped=grouped, broadcast=way.broadcast)
    if chosen == "flash":
        return _flash(tape, q, k, v, h)
    if chosen == "efficient":
        return _efficient(tape, q, k, v, h, mask)
    return _math(tape, q, k, v, h, way, mask, grouped=grouped)


def _cast_mask(tape: Tape, mask: Value, item: int) -> Value:
    return mask if mask.item == 1 else cast(tape, mask, item)


def _bias_mask(tape: Tape, bias: Value, mask: Value | None, way: Way, h: Heads) -> Value:
    """`create_position_bias_mask`: the bias where a token may look, the least number elsewhere."""
    if mask is not None and mask.item != 1:
        return add(tape, bias, mask)
    if mask is None and not way.causal:
        return copy(tape, bias) if bias.strided else bias
    chosen = mask.storage if mask is not None else tape.value(h.queries * h.keys, 1).storage
    tape.saved()

    def backward(g: Value, _keep: object = chosen) -> Sequence[Value | None]:
        return (tape.value(g.n, g.item),)

    n = bias.n * (h.batch if mask is not None else 1)
    masked = tape.result(n, bias.item, (bias,), backward)
    return copy(tape, masked) if bias.strided else masked


def _flash(tape: Tape, q: Value, k: Value, v: Value, h: Heads) -> Value:
    """Heads whose length isn't a multiple of 8 are padded; the padded copies are what is kept."""
    spare = -h.head_dim % 8
    if spare:
        q, k, v = (_padded(tape, x, h.head_dim, spare) for x in (q, k, v))
    sizes, item = (q.n, k.n, v.n), q.item
    dim = h.head_dim + spare
    tape.saved()
    output = tape.computed(h.batch * h.queries * h.heads * dim, item)
    rows = tape.computed(h.batch * h.heads * h.queries, 4)
    seed, offset = tape.computed(1, 1), tape.computed(1, 1)
    keep = [q.storage, k.storage, v.storage, output.storage, rows.storage, seed.storage, offset.storage]
    hidden = flash_temporaries(h, dim, item)
    headed = q.headed

    def backward(_g: Value, _keep: list[Storage | None] = keep) -> Sequence[Value | None]:
        results = [tape.value(n, item) for n in sizes]
        tape.transient(*hidden)
        results[0].strided = results[1].strided = False
        for result in results:
            result.headed = headed
        return results

    tape.saved()
    tape.record((q, k, v), (output,), backward)
    if spare:
        return _unpadded(tape, output, h.batch * h.queries * h.heads * h.head_dim)
    return copy(tape, output) if q.headed else output


def flash_temporaries(h: Heads, dim: int, item: int) -> list[int]:
    """What the flash backward allocates inside: softmax_d and the fp32 sum of dq; dk and dv of every query head.

    Source: torch 2.13, `aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp` (mha_bwd).
    """
    rows, batch = -(-h.queries // 128) * 128, 1 if h.apart else h.batch
    width = -(-dim // 32) * 32 if dim <= 192 else 256
    sizes = [4 * batch * h.heads * rows, 4 * batch * rows * h.heads * width]
    if h.groups > 1:
        sizes += [batch * h.keys * h.heads * dim * item] * 2
    return sizes


def _padded(tape: Tape, x: Value, dim: int, spare: int) -> Value:
    n = x.n
    return tape.result(x.n // dim * (dim + spare), x.item, (x,), lambda g: (tape.value(n, g.item),))


def _unpadded(tape: Tape, x: Value, n: int) -> Value:
    output = Value(n, x.item, x.storage)
    whole = x.n
    tape.record((x,), (output,), lambda g: (tape.value(whole, g.item),))
    return copy(tape, output)


def _efficient(tape: Tape, q: Value, k: Value, v: Value, h: Heads, mask: Value | None) -> Value:
    """The memory-efficient kernel; a boolean mask becomes one of numbers, padded to a multiple of 8 columns."""
    additive = None if mask is None else _additive(tape, mask, q.item, h)
    sizes, item = (q.n, k.n, v.n), q.item
    tape.saved()
    output = tape.computed(h.batch * h.queries * h.heads * h.value_dim, item)
    rows = tape.computed(h.batch * h.heads * (-(-h.queries // 32) * 32), 4)
    seed, offset = tape.computed(1, 8), tape.computed(1, 8)
    keep = [q.storage, k.storage, v.storage, output.storage, rows.storage, seed.storage, offset.storage]
    keep.append(None if additive is None else additive.storage)
    apart = h.batch if h.apart else 1
    hidden = [4 * h.batch * h.heads * h.queries // apart]
    if item == 2:
        hidden.append(4 * q.n // apart)
    bias_gradient = additive is not None and additive.needs

    def backward(_g: Value, _keep: list[Storage | None] = keep) -> Sequence[Value | None]:
        results: list[Value | None] = [tape.value(n, item) for n in sizes]
        results.append(tape.value(h.scores, item) if bias_gradient else None)
        tape.transient(*hidden)
        return results

    tape.saved()
    tape.record((q, k, v, additive), (output,), backward)
    return output


def _additive(tape: Tape, mask: Value, item: int, h: Heads) -> Value:
    if mask.item == 1:
        mask = Value(mask.n, item, tape.value(mask.n, item).storage)
    spare = -h.keys % 8
    if spare:
        n = mask.n
        padded = tape.result(n // h.keys * (h.keys + spare), mask.item, (mask,), lambda g: (tape.value(n, g.item),))
        output = Value(n, mask.item, padded.storage)
        whole = padded.n
        tape.record((padded,), (output,), lambda g: (tape.value(whole, g.item),))
        return output
    return mask


def _math(tape: Tape, q: Value, k: Value, v: Value, h: Heads, way: Way, mask: Value | None, *, grouped: bool) -> Value:
    """The composite: queries and keys scaled, keys and values of every query head, scores, softmax, product."""
    item = q.item
    if item == 2:
        q, k, v = cast(tape, q, 4), cast(tape, k, 4), cast(tape, v, 4)
    headed = q.headed
    q = scale(tape, q)
    if mask is None and way.causal:
        mask = _causal_mask(tape, h, q.item)
    elif mask is not None and mask.item == 1:
        mask = Value(mask.n, q.item, tape.value(mask.n, q.item).storage)
    if grouped:
        k, v = repeat_heads(tape, k, h), repeat_heads(tape, v, h)
    several = h.batch > 1
    shown = repeat_heads if several else spread_heads
    left = copy(tape, q) if several and (way.broadcast or not headed) else q
    weights = product(tape, left, shown(tape, scale(tape, k), h) if way.broadcast else scale(tape, k), h.scores, h)
    weights = softmax(tape, weights, safe=True)
    weights = dropout(tape, weights, way.p)
    if way.broadcast:
        v = shown(tape, v, h)
    output = product(tape, weights, v, h.batch * h.queries * h.heads * h.value_dim, h)
    output = cast(tape, output, item)
    return copy(tape, output)


def _causal_mask(tape: Tape, h: Heads, item: int) -> Value:
    n = h.queries * h.keys
    lower = tape.value(n, 1)
    tape.transient(n)
    mask = tape.value(n, item)
    del lower
    return mask
