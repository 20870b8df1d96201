"""What a scan keeps of each token when it is written out in Python, as transformers does without kernel packages.

In fp32, for each token of a layer (n state, H heads, q tokens of a chunk, k and v lengths of a key and a value):

    Mamba            5 · inner · n + 10 · inner      decays and inputs of every state, and every state
    Mamba 2          3 · H · q + 7 · H · n + 10 · inner      a score for each pair in a chunk: decay, product, both
    linear attention H · (12 · k + 10 · v + 7 · 64)  chunks of 64
    with a decay of each channel, H · (3 · 64 · k + 1365) beside: a decay and two products for each pair in a chunk,
                     and every row and square of the triangle that is solved row by row, Σ i² + i of 64 rows
    RWKV             8 · H · v
    short convolution 4 · channels

These are counts of the tensors that the operations save, from the code of transformers 5.23 (`mamba2_chunk_scan`,
`torch_chunk_gated_delta_rule` …), without those that are shared; the backward pass takes half as much again. Against
simulated steps of nine small models, by which the counts were settled, this is over by 7 to 60 %: layers also count as
attention, at its dearest.
With mamba-ssm's or flash-linear-attention's kernels nothing of this is kept: the projections and the scan's output are.

Only models whose modules haven't been read are counted so; the others have `chunk_scan`, `selective_scan` and more.
"""

from __future__ import annotations

import msgspec

from sizeup.estimate.training.build import Build
from sizeup.estimate.training.tape import STATE_SPACE, Value
from sizeup.models.mixers import LinearAttention, Mixer, ShortConvolution, StateSpace

LINEAR_CHUNK, CHUNK = 64, 256


class Scan(msgspec.Struct, frozen=True):
    """elements: kept of each token, in fp32. chunk: sequences are padded to a multiple of it."""

    elements: int
    chunk: int = 1


def scan_of(mixer: Mixer, chunk: int) -> Scan | None:
    """What a mixer keeps; None for one that doesn't scan. chunk: of Mamba 2, as the configuration says."""
    if isinstance(mixer, StateSpace):
        if mixer.version == 1:
            return Scan(5 * mixer.inner * mixer.state + 10 * mixer.inner)
        heads = max(1, mixer.heads)
        return Scan(heads * (3 * chunk + 7 * mixer.state) + 10 * mixer.inner, chunk)
    if isinstance(mixer, LinearAttention) and mixer.kind.startswith("rwkv"):
        return Scan(8 * mixer.heads * mixer.value_dim)
    if isinstance(mixer, LinearAttention):
        each = 12 * mixer.key_dim + 10 * mixer.value_dim + 7 * LINEAR_CHUNK
        if mixer.kind == "kda":
            each += 3 * LINEAR_CHUNK * mixer.key_dim + (LINEAR_CHUNK**2 - 1) // 3
        return Scan(mixer.heads * each, LINEAR_CHUNK)
    return Scan(4 * mixer.channels) if isinstance(mixer, ShortConvolution) else None


def scanned(build: Build, x: Value, scan: Scan) -> Value:
    """The stream, with what a scan beside it keeps."""
    tape = build.tape
    before, tape.label = tape.label, STATE_SPACE
    tokens = build.batch * -(-build.sequence // scan.chunk) * scan.chunk
    size = 2 * tokens * scan.elements
    kept = tape.value(tokens * scan.elements, 4).storage
    tape.saved()
    output = Value(x.n, x.item, x.storage)

    def backward(g: Value, _kept: object = kept) -> tuple[Value]:
        tape.transient(size)
        return (g,)

    tape.record((x,), (output,), backward)
    tape.label = before
    return output
