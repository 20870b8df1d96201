"""Progress of long work: whoever does it tells, whoever shows it listens. Without a listener telling costs nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

#: Called with what is being done, how much of it is done and how much there is (0: unknown).
Listener = Callable[[str, float, float], None]

_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


def tell(what: str, done: float = 0, all_: float = 0) -> None:
    """Say what is being done, and how much of it is done."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(what, done, all_)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hear what is told inside a `with` block."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)
