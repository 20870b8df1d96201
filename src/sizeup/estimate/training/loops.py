"""Python loops over a sequence, run a few times instead of as often as the sequence is long.

From its second run on, a loop's body writes the same to the log and keeps the same; the first and the last run differ
(nothing is there yet, nobody reads the last state). So the body is run four times at most; what the other runs would
keep is added up, each tensor rounded by itself, and goes when the second run's graph has run backward. The highest
points of forward and backward are those of the last two runs, when all of it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sizeup.estimate.training.tape import ROUND, Node, Storage, Tape, Value, rounded

RUNS = 4


def repeat(tape: Tape, count: int, body: Callable[[], None], results: list[Value] | None = None) -> None:
    """Run the body as if `count` times; it keeps its state in names of its own.

    results: a list to which each run adds; what is in it lives as long as the list, and not as long as the graph.
    """
    results = [] if results is None else results
    done = 0
    while done < RUNS and done < count:
        start, first, already = len(tape.log), len(tape.nodes), len(results)
        body()
        if done == 1 and count > RUNS:
            added = results[already:]
            if len(tape.nodes) > first:
                _keep_more(tape, tape.nodes[first], count - RUNS, start, added)
            results += [_times(tape, value, count - RUNS) for value in added]
        done += 1


def _times(tape: Tape, value: Value, times: int) -> Value:
    """As many more values like that, as one."""
    storage = tape.value(times * tape.allocated(rounded(value.bytes)), 1).storage
    return Value(times * value.n, value.item, storage)


def _keep_more(tape: Tape, node: Node, times: int, start: int, others: list[Value]) -> None:
    """Let a node of the graph keep `times` as much again as the log has gained since `start`, but for the others."""
    backward = node.backward
    more: list[Storage] = []
    gained = tape.gained(start)
    for value in others:
        if value.storage is not None:
            gained[value.storage.entry & ROUND - 1] -= tape.allocated(value.storage.size)
    for label, size in gained.items():
        before, tape.label = tape.label, label
        storage = tape.value(times * size // ROUND, ROUND).storage
        tape.label = before
        if storage is not None:
            more.append(storage)

    def with_more(grad: Any, _kept: list[Storage] = more) -> Sequence[Value | None]:
        return backward(grad)

    node.backward = with_more
    tape.saved()
