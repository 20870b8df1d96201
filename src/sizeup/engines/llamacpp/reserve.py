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
from sizeup.engines.llamacpp.extent import Case, Irregular, form_of
from sizeup.engines.llamacpp.graph import Graph, lives_of
from sizeup.engines.llamacpp.layers import trunk
from sizeup.engines.llamacpp.recording import Recording
from sizeup.engines.llamacpp.weights import HOST
from sizeup.models.mixers import LatentAttention
from sizeup.models.model import Model

#: Kinds of graph that are remembered for one placement.
_LIMIT = 256

#: Numbers of the open sizes, the most used ones first. Tokens of a sequence are counted in steps, so that their amounts
#: stay aligned; cells as they are padded.
_TOKENS, _SEQUENCES, _FULL, _ROWS, _WINDOWED, _KEY_BYTES, _VALUE_BYTES = range(7)
_TOKEN_STEP = 32


class Reserve:
    """The buffers for one model and placement: graphs that were recorded, by what makes them differ."""

    def __init__(self, model: Model, steps: tuple[Step, ...], frame: Frame) -> None:
        self._model, self._steps, self._frame = model, steps, frame
        self._kept = settled(steps)
        self._stateful = any(kind.recurrent() for kind in trunk(model).kinds)
        self._halves = any(backend.halves_cache for backend in frame.backends)
        self._recordings: dict[Hashable, list[Recording]] = {}

    def peaks(self, sizes: Sizes) -> dict[int, int]:
        """Place → bytes."""
        key, values = _opened(sizes, halves=self._halves)
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
        """The graph's buffers.

        With flash attention little depends on the cache; without, and with states, more is alike as the batch grows.
        """
        graph = Graph(HOST)
        build(self._model, graph, sizes, self._kept, self._frame)
        _reserve_for_skipped(self._model, graph, sizes, self._steps, self._kept)
        alignments = {HOST: CPU.alignment, **{gpu: b.alignment for gpu, b in enumerate(self._frame.backends)}}
        lives = lives_of(graph, alignments, self._frame.copies)
        return Recording(lives, alignments, case, along=_FULL if sizes.fused and not self._stateful else _TOKENS)


def _opened(sizes: Sizes, *, halves: bool) -> tuple[Hashable, tuple[int, ...]]:
    """What makes graphs differ, and the sizes that may stay open. Tokens may unless they are odd.

    halves: whether it matters which caches are F16.
    """
    s = sizes
    step = _TOKEN_STEP * s.sequences
    fixed = (s.tokens, s.sequences) if s.tokens % step else ()
    apart, every_row = s.streams == s.sequences, s.rows == s.tokens
    stored = (s.half_keys, s.half_values) if halves else ()
    key = (fixed, apart, every_row, s.snapshots, s.fused, s.rotate_keys, s.rotate_values, stored)
    tokens = 0 if fixed else s.tokens // step
    return key, (tokens, s.sequences, s.full // CELLS, s.rows, s.windowed // CELLS, s.key_bytes, s.value_bytes)


def _with_open(sizes: Sizes, case: Case) -> Sizes:
    """The sizes, those open that may be."""
    tokens, sequences = sizes.tokens, sizes.sequences
    if case.values[_TOKENS]:
        sequences = case.open(_SEQUENCES, 1)
        tokens = case.open(_TOKENS, _TOKEN_STEP) * sequences
    rows = tokens if sizes.rows == sizes.tokens else case.open(_ROWS, 1)
    case.granted.add(form_of(tokens) - form_of(rows))
    return msgspec.structs.replace(
        sizes,
        tokens=tokens,
        rows=rows,
        sequences=sequences,
        streams=sequences if sizes.streams == sizes.sequences else sizes.streams,
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
