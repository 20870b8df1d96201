"""A file behind HTTP, read by ranges."""

from __future__ import annotations

from collections.abc import Callable

from sizeup.errors import NetworkError
from sizeup.models.sources.http import Client, Reply

MAX_READ = 2**27
MAX_TOTAL = 2**28


class RemoteFile:
    """A byte source over range requests.

    first: bytes to fetch at once; what lies in them needs no further request.
    check: judges a reply's status, raising what fits it.
    """

    def __init__(
        self, client: Client, url: str, *, first: int, check: Callable[[Reply], None], token: str = "", name: str = ""
    ) -> None:
        self.name = name or url
        self._client, self._url, self._token, self._check = client, url, token, check
        self._fetched = 0
        self._start = b""
        reply = self._get(0, first)
        self._start = reply.body
        if reply.total is None:
            raise NetworkError(f"{url} doesn't say how long the file is", hint="download the file and give its path")
        self.size = reply.total
        if len(self._start) < min(first, self.size):
            raise _short(url, len(self._start), min(first, self.size))

    def read(self, start: int, count: int) -> bytes:
        """Exactly `count` bytes from `start`."""
        known = self._start[start : start + count]
        if len(known) == count:
            return known
        begin, rest = start + len(known), count - len(known)
        reply = self._get(begin, rest)
        if len(reply.body) != rest:
            raise _short(self._url, len(reply.body), rest)
        if reply.total != self.size:
            raise NetworkError(f"{self._url} changed while it was read", hint="try again")
        return known + reply.body

    def _get(self, start: int, count: int) -> Reply:
        self._fetched += count
        if count > MAX_READ or self._fetched > MAX_TOTAL:
            raise NetworkError(
                f"{self.name} wants {self._fetched:,} bytes read for its header alone", hint="the file is damaged"
            )
        reply = self._client.get(self._url, most=count, token=self._token, span=(start, count))
        self._check(reply)
        return reply


def _short(url: str, length: int, wanted: int) -> NetworkError:
    return NetworkError(f"{url} sent {length:,} of {wanted:,} bytes", hint="try again")
