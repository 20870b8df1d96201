"""Watch the machine and the servers of models on it: processors, memory, GPUs, tokens per second, queues.

In a terminal the view is live; piped it is a line for each sample, with --json a JSON object on each line. --guard 95%
warns when memory or a GPU's memory is fuller than that, and with --stop PID (or a program's name) ends that run before
the machine begins to swap. --model adds the headroom that is left at that model's predicted peak. --serve PORT offers
the newest sample to Prometheus at http://127.0.0.1:PORT/metrics.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Annotated, Self

import msgspec
from msgspec import Meta

from sizeup.engines.signals import interruptible
from sizeup.errors import BadInput, SizeupError
from sizeup.measure.watch.exposition import Exposed
from sizeup.measure.watch.guard import Alarm, check, parse_share, stop, targets
from sizeup.measure.watch.sample import Sample
from sizeup.measure.watch.sampler import Sampler
from sizeup.operations.serving import Wish, planned
from sizeup.quantity.units import parse_tokens


class WatchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """How often to look, at what, and what to do when memory runs short."""

    interval: Annotated[float, Meta(description="Seconds between samples.", ge=0.1)] = 1.0
    once: Annotated[bool, Meta(description="Take one sample and end; exit code 3 when past the guard.")] = False
    samples: Annotated[int | None, Meta(description="End after so many samples.")] = None
    server: Annotated[tuple[str, ...], Meta(description="A server's address besides those that are found.")] = ()
    model: Annotated[str, Meta(description="Show the headroom at this model's predicted peak.")] = ""
    format: Annotated[str, Meta(description="Its format (Q4_K_M); default: the best plan's.")] = ""
    context: Annotated[str | int, Meta(description="Its tokens of context; default: the best plan's.")] = ""
    guard: Annotated[str, Meta(description="Warn when memory or a GPU is fuller than this: 95%.")] = ""
    stop: Annotated[str, Meta(description="With --guard: end this process (a PID or a program's name).")] = ""
    serve: Annotated[int | None, Meta(description="Offer /metrics to Prometheus at this port of 127.0.0.1.")] = None


class WatchReport(msgspec.Struct, dict=True):
    """The first sample. alarm: when it is past the guard. metrics: the address for Prometheus.

    In Python: `for sample, alarm in report.follow()`, in a `with` block.
    """

    sample: Sample
    alarm: Alarm | None = None
    predicted_bytes: int | None = None
    metrics: str | None = None
    once: bool = False
    schema: str = "sizeup.watch/1"

    @property
    def exit_code(self) -> int:
        """3 when the first sample was past the guard."""
        return 3 if self.alarm else 0

    def begin(self, watch: _Watch) -> Self:
        """Remember what takes the samples."""
        self._watch = watch
        return self

    def follow(self) -> Iterator[tuple[Sample, Alarm | None]]:
        """The first sample, then one after each interval, until Ctrl-C or as many as were asked for."""
        with self, interruptible():
            yield self.sample, self.alarm
            if not self.once:
                yield from self._watch.more()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.close()


def watch(request: WatchRequest) -> WatchReport:
    """Take the first sample."""
    limit = parse_share(request.guard) if request.guard else None
    if request.stop and limit is None:
        raise BadInput("--stop needs a guard", hint="add --guard 95%")
    if request.stop:
        targets(request.stop)
    predicted = _predicted(request) if request.model else None
    watching = _Watch(request, limit, predicted)
    try:
        sample, alarm = watching.look()
    except BaseException:
        watching.close()
        raise
    report = WatchReport(sample, alarm, predicted, watching.metrics, request.once)
    if request.once:
        watching.close()
    return report.begin(watching)


class _Watch:
    """The sampler, the guard and the page for Prometheus."""

    def __init__(self, request: WatchRequest, limit: float | None, predicted: int | None) -> None:
        self._request, self._limit = request, limit
        self._exposed = Exposed(request.serve) if request.serve is not None else None
        self.metrics = f"http://127.0.0.1:{self._exposed.port}/metrics" if self._exposed else None
        self._sampler = Sampler(request.server, predicted_bytes=predicted)
        self._open = True

    def look(self) -> tuple[Sample, Alarm | None]:
        """One sample, and what the guard makes of it."""
        sample = self._sampler.sample()
        if self._exposed:
            self._exposed.sample = sample
        alarm = check(sample, self._limit) if self._limit is not None else None
        if alarm and self._request.stop:
            with contextlib.suppress(SizeupError):
                alarm = msgspec.structs.replace(alarm, stopped=stop(targets(self._request.stop)))
        return sample, alarm

    def more(self) -> Iterator[tuple[Sample, Alarm | None]]:
        """The samples after the first."""
        taken, due = 1, time.monotonic()
        while self._request.samples is None or taken < self._request.samples:
            due = max(due + self._request.interval, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
            yield self.look()
            taken += 1

    def close(self) -> None:
        """Let go of the GPUs' library and the port; twice does no harm."""
        if self._open:
            self._open = False
            self._sampler.__exit__(None, None, None)
            if self._exposed:
                self._exposed.close()


def _predicted(request: WatchRequest) -> int:
    """What the best plan of the model holds on the host at its peak."""
    contexts = (parse_tokens(request.context),) if request.context else None
    wish = Wish(model=request.model, format=request.format, contexts=contexts, force=True, offline=True)
    return planned(wish).plan.footprint.devices[-1].total_bytes
