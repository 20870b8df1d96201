"""Lightning attention (Qin et al. 2024) as MiniMax-Text-01 trains it in transformers 5.23, block by block.

Inside a block of 256 tokens every pair has a score, weighed by a decay that is a buffer; a state of head_dim² for each
head goes from block to block. Heads lie token by token, so that with several sequences every product copies them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.architectures.causal_convolution import without_padding
from sizeup.estimate.training.architectures.reordered import seen
from sizeup.estimate.training.basic import add, copy, cut, join, multiply, pointwise, split
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.loops import repeat
from sizeup.estimate.training.tape import STATE_SPACE, Tape, Value
from sizeup.estimate.training.tensors import matmul, turned

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer


class Lightning(msgspec.Struct, frozen=True):
    """heads of head_dim; tokens of a block; the activation of queries, keys and values."""

    heads: int
    head_dim: int
    block: int
    activation: str = "silu"

    def __call__(self, layer: Layer, x: Value) -> Value:
        """The attention's output."""
        build, tape, hidden = layer.build, layer.build.tape, layer.shape.hidden
        before, tape.label = tape.label, STATE_SPACE
        width = self.heads * self.head_dim
        buffers = _decays(build, self)
        qkv = activate(tape, build.linear("self_attn.qkv_proj", x, hidden, 3 * width), self.activation)
        qkv = without_padding(tape, qkv, padding=layer.run.padding)
        y = blocks(build, qkv, self, buffers)
        y = layer.norm("self_attn.norm", y, width)
        gate = pointwise(tape, build.linear("self_attn.output_gate", x, hidden, width), keeps_output=True)
        y = multiply(tape, gate, y)
        del gate
        y = build.linear("self_attn.out_proj", y, width, hidden)
        tape.label = before
        return y


def _decays(build: Build, a: Lightning) -> Value:
    """The buffers: a rate for each head, decays of queries and keys, and those of every pair."""
    sizes = {"slope_rate": 1, "query_decay": a.block, "key_decay": a.block, "diagonal_decay": a.block * a.block}
    for name, n in sizes.items():
        build.frozen(f"self_attn.{name}", a.heads * n)
    return Value(a.heads, build.method.item, None)


def blocks(build: Build, qkv: Value, a: Lightning, decay: Value) -> Value:
    """What all blocks give, in order."""
    tape, sequence = build.tape, build.sequence
    n = build.tokens * a.heads * a.head_dim
    query, key, value = (turned(tape, part) for part in split(tape, qkv, (n, n, n)))
    chain = Chain(tape, build.batch, a, (query, key, value), decay)
    full = sequence // a.block
    results: list[Value] = []
    cuts = sequence > a.block
    repeat(tape, full, lambda: results.append(chain.step(a.block, cuts=cuts)), results)
    rest = sequence - full * a.block
    if rest > 0:
        results.append(chain.step(rest, cuts=cuts))
    chain.end()
    output = join(tape, results)
    results.clear()
    output = copy(tape, turned(tape, output))
    chain.names.clear()
    return output


class Chain:
    """The scan over blocks, with the names of its loop."""

    def __init__(self, tape: Tape, batch: int, a: Lightning, parts: tuple[Value, Value, Value], decay: Value) -> None:
        self.tape, self.batch, self.sizes, self.parts, self.decay = tape, batch, a, parts, decay
        self.names: dict[str, Value] = {}
        self.state: Value | None = tape.value(batch * a.heads * a.head_dim * a.head_dim, parts[0].item)
        self.read = 0

    def step(self, length: int, *, cuts: bool) -> Value:
        """One block: pairs inside it, what the state gives, and the next state."""
        tape, a, names, state = self.tape, self.sizes, self.names, self.state
        if state is None:
            raise ValueError("the scan has ended")
        n, copies = self.batch * a.heads * length * a.head_dim, self.batch > 1
        q, k, v = (cut(tape, part, n) if cuts else part for part in self.parts)
        block_decay = tape.value(a.heads, self.decay.item)
        names["block_decay"] = block_decay
        pairs = matmul(tape, q, k, self.batch * a.heads * length * length, copies=(copies, copies))
        names["weights"] = pairs
        pairs = weighed(tape, pairs, self.decay)
        inside = seen(tape, matmul(tape, pairs, v, n, copies=(False, copies)), copied_back=copies)
        del pairs
        names["inside"] = inside
        asked = weighed(tape, q, self.decay)
        between = seen(tape, matmul(tape, asked, state, n, copies=(copies, False)), copied_back=copies)
        del asked
        names["between"] = between
        output = add(tape, between, inside)
        names["output"] = output
        self.read = len(tape.nodes)
        told = weighed(tape, k, self.decay)
        grown = matmul(tape, told, v, state.n, copies=(copies, copies))
        del told
        names["grown"] = grown
        self.state = add(tape, weighed(tape, state, self.decay), grown)
        return output

    def end(self) -> None:
        """Nobody reads the last state: its graph goes, but not itself."""
        del self.tape.nodes[self.read :]
        if self.state is not None:
            self.names["state"] = Value(self.state.n, self.state.item, self.state.storage)
        grown = self.names["grown"]
        self.names["grown"] = Value(grown.n, grown.item, grown.storage)
        self.state = None


def weighed(tape: Tape, x: Value, decay: Value) -> Value:
    """X times a buffer: only the buffer is kept."""
    n, item = x.n, max(x.item, decay.item)
    return tape.result(n, item, (x,), lambda _g: (tape.value(n, item),))
