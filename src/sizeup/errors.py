"""Every failure that sizeup reports, and the exit code that goes with it.

    SizeupError             1  something failed
    ├── BadInput            2  the request itself is wrong (an option, a shape, a machine description)
    ├── AnswerIsNo          3  the question was understood and the answer is no (does not fit, too slow)
    ├── NotFound            4  no such model, file, device (or not for you: gated)
    ├── NetworkError        5  the network, or a server on it, failed; also: offline and needed it
    ├── MissingPart         6  an optional part (an engine, a worker's environment) is not installed
    ├── BadFile             1  a file is not what it claims to be: truncated, corrupt, hostile
    └── BadConfig           1  a model configuration lacks a field or holds an impossible value

A message says what failed *with the value*; the hint is one action. Faces print them as

    error: <message>

    hint: <hint>
"""

from __future__ import annotations


class SizeupError(Exception):
    """Base of all expected failures: a message with the value, and one action as the hint."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class BadInput(SizeupError):
    """The request is wrong: an option, a shape, a machine description."""

    exit_code = 2


class AnswerIsNo(SizeupError):
    """Understood, and the answer is no: it does not fit, it is too slow."""

    exit_code = 3


class NotFound(SizeupError):
    """No such model, file or device, or one that is gated for this user."""

    exit_code = 4


class NetworkError(SizeupError):
    """The network failed, or was needed while offline."""

    exit_code = 5


class MissingPart(SizeupError):
    """An optional part (engine, worker environment) is not installed."""

    exit_code = 6


class BadFile(SizeupError):
    """A file is not what it claims to be: truncated, corrupt or hostile."""


class BadConfig(SizeupError):
    """A model configuration lacks a field or holds an impossible value."""
