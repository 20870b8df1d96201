"""What came of a cell: speeds, waiting times, memory, and how far the engine's own clock agrees."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sizeup.measure.bench.cells import Cell
from sizeup.measure.bench.client import Reply, Run
from sizeup.measure.bench.resources import Usage
from sizeup.measure.bench.statistics import NOISY, Measured, Percentiles, drift, measured, percentile, percentiles
from sizeup.quantity import Interval


class Prediction(msgspec.Struct, frozen=True):
    """What was expected of a cell, in tokens/s; None where nothing can be said.

    ceiling: what the memory's bandwidth would allow at the very most.
    """

    decode: Interval | None = None
    prefill: Interval | None = None
    ceiling: float | None = None
    because: str = ""


class CellResult(msgspec.Struct, frozen=True):
    """One cell, measured.

    prompt, generated: tokens that were really computed, the median of all requests.
    prefill, decode: tokens/s of one request. throughput: generated tokens/s of all requests together.
    engine_prefill, engine_decode: the engine's own figures for the same requests; None where it has no clock.
    disagreement: of our decode with its, |ours / its - 1|, the median of all requests.
    noisy: why the runs can't be trusted; empty when they can.
    """

    cell: Cell
    prompt: int
    generated: int
    prefill: Measured
    decode: Measured | None
    throughput: Measured
    first: Percentiles
    between: Percentiles | None
    engine_prefill: float | None
    engine_decode: float | None
    usage: Usage
    disagreement: float | None = None
    predicted: Prediction = Prediction()
    noisy: str = ""

    @property
    def share_of_ceiling(self) -> float | None:
        """Decode over the ceiling; None where either is unknown."""
        if self.decode is None or not self.predicted.ceiling:
            return None
        return self.decode.value / self.predicted.ceiling


def summarize(cell: Cell, runs: Sequence[Run], usage: Usage, predicted: Prediction) -> CellResult:
    """The result of a cell's runs."""
    replies = [reply for run in runs for reply in run.replies]
    gaps = [gap for reply in replies for gap in reply.gaps]
    speeds = [_mean([reply.decode for reply in run.replies if reply.decode is not None]) for run in runs]
    decodes = [speed for speed in speeds if speed is not None]
    prefills = [_mean([reply.prefill for reply in run.replies]) or 0.0 for run in runs]
    prefill, throughput = measured(prefills), measured([run.throughput for run in runs])
    first = percentiles([reply.first for reply in replies])
    assert prefill is not None and throughput is not None and first is not None  # noqa: S101, PT018  a cell has runs
    decode = measured(decodes)
    return CellResult(
        cell=cell,
        prompt=_middle([reply.prompt for reply in replies]),
        generated=_middle([reply.generated for reply in replies]),
        prefill=prefill,
        decode=decode,
        throughput=throughput,
        first=first,
        between=percentiles(gaps),
        engine_prefill=_clocked([(r.timings.prompt_tokens, r.timings.prompt_seconds) for r in replies if r.timings]),
        engine_decode=_clocked([(r.timings.decode_tokens, r.timings.decode_seconds) for r in replies if r.timings]),
        usage=usage,
        disagreement=_disagreement(replies),
        predicted=predicted,
        noisy=_noise(decode or prefill),
    )


def _clocked(counts: Sequence[tuple[int, float]]) -> float | None:
    """The median of tokens/s by the engine's clock."""
    speeds = measured([tokens / seconds for tokens, seconds in counts if tokens and seconds > 0])
    return speeds.value if speeds else None


def _disagreement(replies: Sequence[Reply]) -> float | None:
    """Each request by our clock and by the engine's."""
    off = [
        abs(reply.decode * clock.decode_seconds / clock.decode_tokens - 1)
        for reply in replies
        if reply.decode is not None and (clock := reply.timings) is not None and clock.decode_tokens
    ]
    return percentile(off, 0.5) if off else None


def _noise(speed: Measured) -> str:
    if speed.spread > NOISY:
        return f"runs differ by {speed.spread:.0%}"
    change = drift(speed.runs)
    return (
        f"the last run was {abs(change):.0%} {'faster' if change > 0 else 'slower'}" if abs(change) > 2 * NOISY else ""
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _middle(values: Sequence[int]) -> int:
    return sorted(values)[len(values) // 2]
