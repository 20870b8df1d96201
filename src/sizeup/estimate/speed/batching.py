"""Several users: throughput of batched decoding, and a simple queue for requests that arrive at random."""

from __future__ import annotations

import msgspec


class Load(msgspec.Struct, frozen=True):
    """How a server of `slots` sequences stands under arrivals.

    utilisation: share of the time that a slot is busy; waiting_seconds: mean time in the queue, None when it grows
    without end.
    """

    slots: int
    utilisation: float
    waiting_seconds: float | None


def request_seconds(prompt_seconds: float, step_seconds: float, generated: int) -> float:
    """Seconds of one request: reading the prompt (its first token comes with it), then a step for each other token."""
    return prompt_seconds + step_seconds * max(0, generated - 1)


def queue(arrivals_per_s: float, service_seconds: float, slots: int) -> Load:
    """Waiting in an M/M/c queue: Erlang's C over (slots / service - arrivals).

    Source: A. K. Erlang 1917. Known error: real service times vary less than exponential ones, so real waits are
    shorter, by half at most.
    """
    offered = arrivals_per_s * service_seconds
    utilisation = offered / slots
    if utilisation >= 1:
        return Load(slots, utilisation, None)
    term = total = 1.0
    for number in range(1, slots):
        term *= offered / number
        total += term
    last = term * offered / slots / (1 - utilisation)
    wait = last / (total + last) * service_seconds / (slots * (1 - utilisation))
    return Load(slots, utilisation, wait)
