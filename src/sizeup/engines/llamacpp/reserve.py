"""The memory that llama.cpp reserves for intermediate results: its largest graph, run through its own allocator.

The graph of one batch is rebuilt in miniature, so the figure is the allocator's and no rule of thumb. Layers that
repeat are built as often as it takes for the pattern to settle. One graph answers for all batches and caches that make
the same graph (`extent`), one run of the allocator for all in which it would choose the same (`replay`).

Source: graph_reserve in src/llama-context.cpp, build_arch_graph in src/models/*.cpp, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

from collections.abc import Hashable

import msgspec

from sizeup.engines.llamacpp.assembly import Frame, Step, build
from sizeup.engines.llamacpp.backends import CPU
from sizeup.engines.llamacpp.builder import Sizes
from sizeup.engines.llamacpp.cache import CELLS
from sizeup.engines.llamacpp.compute_bound import bound
from sizeup.engines.llamacpp.extent import Case, Irregular
from sizeup.engines.llamacpp.graph import Graph, lives_of
from sizeup.engines.llamacpp.layers import trunk
from sizeup.engines.llamacpp.recording import Recording
from sizeup.engines.llamacpp.weights import HOST
from sizeup.models.mixers import LatentAttention
from sizeup.models.model import Model

#: Kinds of graph that are remembered for one placement.
_LIMIT = 256

#: Numbers of the open sizes. Tokens of a sequence are counted in steps, so that their amounts stay aligned.
_TOKENS, _FULL, _WINDOWED, _KEY_BYTES, _VALUE_BYTES = range(5)
_TOKEN_STEP = 32


class Reserve:
    """The buffers for one model and placement: graphs that were recorded, by what makes them differ."""

    def __init__(self, model: Model, steps: tuple[Step, ...], frame: Frame) -> None:
        self._model, self._steps, self._frame = model, steps, frame
        self._kept = settled(steps)
        self._recordings: dict[Hashable, list[Recording]] = {}

    def peaks(self, sizes: Sizes) -> dict[int, int]:
        """Place → bytes."""
        key, values = _opened(sizes)
        known: list[Recording] = [*self._recordings.get(key, ()), *self._recordings.get(sizes, ())]
        for recording in known:
            if recording.holds(values):
                return recording.peaks(values)
        try:
            recording = self._record(key, sizes, values)
        except (KeyError, AssertionError):  # a layer that has not the tensors the graph is built of
            return bound(self._model, sizes, self._steps, self._frame)
        return recording.peaks(values)

    def _record(self, key: Hashable, sizes: Sizes, values: tuple[int, ...]) -> Recording:
        """A new recording, with sizes left open if the graph can be built so: with operations that extents have."""
        case = Case(values)
        try:
            recording = self._recorded(_with_open(sizes, case), case)
        except (Irregular, TypeError):
            key, recording = sizes, self._recorded(sizes, Case(values))
        if len(self._recordings) >= _LIMIT:
            self._recordings.clear()
        self._recordings.setdefault(key, []).append(recording)
        return recording

    def _recorded(self, sizes: Sizes, case: Case) -> Recording:
        """The graph's buffers. With flash attention little depends on the cache; without, all grows with the batch."""
        graph = Graph(HOST)
        build(self._model, graph, sizes, self._kept, self._frame)
        _reserve_for_skipped(self._model, graph, sizes, self._steps, self._kept)
        alignments = {HOST: CPU.alignment, **{gpu: b.alignment for gpu, b in enumerate(self._frame.backends)}}
        lives = lives_of(graph, alignments, self._frame.copies)
        return Recording(lives, alignments, case, along=_FULL if sizes.fused else _TOKENS)


def _opened(sizes: Sizes) -> tuple[Hashable, tuple[int, ...]]:
    """What makes graphs differ, and the sizes that may stay open. Tokens may unless they are odd."""
    s = sizes
    step = _TOKEN_STEP * s.sequences
    tokens = 0 if s.tokens % step else s.tokens // step
    fixed = 0 if tokens else s.tokens
    rows = 0 if s.rows == s.tokens else s.rows
    flags = (s.fused, s.rotate_keys, s.rotate_values, s.half_keys, s.half_values)
    key = (fixed, rows, s.sequences, s.streams, s.snapshots, flags)
    return key, (tokens, s.full // CELLS, s.windowed // CELLS, s.key_bytes, s.value_bytes)


def _with_open(sizes: Sizes, case: Case) -> Sizes:
    """The sizes, those open that may be."""
    tokens = case.open(_TOKENS, _TOKEN_STEP * sizes.sequences) if case.values[_TOKENS] else sizes.tokens
    return msgspec.structs.replace(
        sizes,
        tokens=tokens,
        rows=tokens if sizes.rows == sizes.tokens else sizes.rows,
        full=case.open(_FULL, CELLS) if sizes.cached else tokens,
        windowed=case.open(_WINDOWED, CELLS) if sizes.cached else tokens,
        key_bytes=case.open(_KEY_BYTES, 1),
        value_bytes=case.open(_VALUE_BYTES, 1),
    )


def settled(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The layers that decide the peaks: each run of kinds seen once with its neighbours, and both ends.

    Layers are left out in pairs, for results alternate between two addresses.
    """
    last = len(steps) - 1
    seen: set[tuple[Step, ...]] = set()
    kept: list[Step] = []
    skipped: list[Step] = []
    for place, step in enumerate(steps):
        around = steps[max(0, place - 2) : place + 2]
        if place < 2 or place >= last - 1 or around not in seen:
            kept += skipped[: len(skipped) % 2]
            skipped = []
            kept.append(step)
        else:
            skipped.append(step)
        seen.add(around)
    return tuple(kept)


def _reserve_for_skipped(
    model: Model, graph: Graph, sizes: Sizes, steps: tuple[Step, ...], kept: tuple[Step, ...]
) -> None:
    """Sparse attention holds a zeroed tensor for every layer from the start, also for the layers left out here."""
    kinds = trunk(model).kinds
    for step in dict.fromkeys(steps):
        mixer = kinds[step[0]].attention()
        if isinstance(mixer, LatentAttention) and mixer.indexer:
            skipped = steps.count(step) - kept.count(step)
            zeros = min(mixer.indexer.top_k, sizes.full) * sizes.tokens
            graph.leaves[:0] = [graph.input(zeros, place=step[1].compute) for _ in range(skipped)]
