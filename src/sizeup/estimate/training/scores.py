"""What every way of attention is made of: its sizes, how it is written, repeated heads, products and softmax."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sizeup.estimate.training.basic import copy
from sizeup.estimate.training.tape import Tape, Value, rounded


class Heads(msgspec.Struct, frozen=True):
    """Sizes of one attention: batch, rows of queries and keys, heads, and the length of a key and of a value.

    apart: each of the batch is an attention of its own: only one's temporaries are there at once.
    """

    batch: int
    queries: int
    keys: int
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    apart: bool = False

    @property
    def groups(self) -> int:
        """Query heads for each key head."""
        return self.heads // self.kv_heads

    @property
    def scores(self) -> int:
        """Elements of the score matrix."""
        return self.batch * self.heads * self.queries * self.keys


class Way(msgspec.Struct, frozen=True):
    """How an attention is computed.

    eager: by the model's own Python. softcap: scores pass a tanh. p: dropout of the weights. causal: whether a token
    sees only earlier ones. broadcast: one head of keys meets all queries inside the products (Falcon).

    Of eager attention: softmax_in_fp32: made in fp32 and cast back. scaled: scores are multiplied by a number. wide:
    queries and keys are cast to fp32 first. copied: queries and keys lie so that the product copies them. sinks: a
    trained column joins the scores. less_largest: the largest of each row is taken off (GPT-OSS). sinks_wide: and kept
    in fp32. in_fp32: scores are made in fp32 even under autocast (Flint). sinks_scale: instead the output is scaled by
    how far each row's log-sum-exp is above its head's sink (Granite). added: scores begin as the bias that they are
    added to (Bloom). chosen: scores are chosen by a buffer of booleans (GPT-Neo). filled: by the mask (MPT). floored:
    masked scores are compared with the least number once more (XGLM). cast_late: weights are cast after the dropout.
    triangle: scores are multiplied by a buffer of ones and zeros and get a least number where it is zero (GPT). raised:
    scores are cast to fp32, get their bias and number there, and are cast back for the softmax; all of them keep names
    (falcon-rw). lingers: the `masked` scores, `all`, or the masked ones and the `weights`, have names that live as long
    as the module's function. contiguous: the output is copied to rows.
    """

    eager: bool = False
    softcap: bool = False
    p: float = 0.0
    softmax_in_fp32: bool = True
    causal: bool = True
    sinks: bool = False
    scaled: bool = True
    wide: bool = False
    added: bool = False
    chosen: bool = False
    filled: bool = False
    floored: bool = False
    lingers: str = ""
    sinks_scale: bool = False
    less_largest: bool = False
    in_fp32: bool = False
    sinks_wide: bool = False
    cast_late: bool = False
    triangle: bool = False
    raised: bool = False
    broadcast: bool = False
    copied: bool = False
    contiguous: bool = True


def repeat_heads(tape: Tape, x: Value, h: Heads) -> Value:
    """`repeat_kv`: keys or values copied for each query head; the gradient is summed over the copies."""
    if h.groups == 1:
        return x
    n = x.n

    def backward(g: Value) -> Sequence[Value | None]:
        return (tape.value(n, g.item),)

    output = tape.result(n * h.groups, x.item, (x,), backward)
    output.strided = False
    return output


def spread_heads(tape: Tape, x: Value, h: Heads) -> Value:
    """`repeat_kv` of a model: a single head is only seen many times, several are copied."""
    if h.kv_heads > 1 or h.groups == 1:
        return repeat_heads(tape, x, h)
    n = x.n
    output = Value(n * h.groups, x.item, x.storage)
    tape.record((x,), (output,), lambda g: (tape.value(n, g.item),))
    return output


def product(tape: Tape, a: Value, b: Value, n: int, h: Heads, *, as_it_is: bool = False) -> Value:
    """A batched matrix product of two tensors; it keeps both.

    Parts of larger tensors are copied first, unless there is one sequence, whose heads can be seen as a batch.
    as_it_is: the first needs no copy in any case.
    """
    if h.batch > 1 and not h.apart:
        a, b = a if as_it_is else _dense(tape, a), _dense(tape, b)
    item = max(a.item, b.item)
    keep = (a.storage if b.needs else None, b.storage if a.needs else None)
    sizes, wants = (a.n, b.n), (a.needs, b.needs)
    tape.saved()

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        results = []
        for size, want in zip(sizes, wants, strict=True):
            result = tape.value(size, item) if want else None
            if result is not None:
                result.view = result.strided = True
            results.append(result)
        return results

    return tape.product(n, item, (a, b), backward)


def _dense(tape: Tape, x: Value) -> Value:
    """A part of a larger tensor, or one head seen many times, is copied before it is multiplied."""
    if x.storage is None:
        return x
    held, size = x.storage.size, rounded(x.bytes)
    return x if held == size or tape.allocated(held) == tape.allocated(size) else copy(tape, x)


def softmax(tape: Tape, x: Value, *, safe: bool = False) -> Value:
    """softmax; the safe one of the math kernel also looks for rows that are all masked."""
    output = tape.value(x.n, x.item)
    if safe:
        tape.transient(x.n * x.item, x.n * x.item, x.n)
    keep = output.storage
    tape.saved()
    tape.record((x,), (output,), lambda g, _keep=keep: (tape.value(g.n, g.item),))
    return output
