"""Streams of a server, several at once: one thread, one selector, so that reading a token costs microseconds.

HTTP/1.1 (RFC 9112) with a chunked, counted or closing body; in it server-sent events (WHATWG HTML, section 9.2) or
JSON lines. Times are taken when the bytes of a token are read, before they are decoded.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from sizeup.engines.http import Address, address, refused, server_said
from sizeup.engines.protocol import Arrival, Call, Chunk, Endpoint
from sizeup.errors import NetworkError

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 300.0
MAX_HEAD_BYTES = 64 * 1024
MAX_EVENT_BYTES = 16 * 2**20
_READ_BYTES = 64 * 1024
_OK = 200

Reader = Callable[[bytes], Chunk | None]


def arrivals(
    endpoint: Endpoint, calls: Sequence[Call], read: Reader, *, silence: float = SILENCE_SECONDS
) -> Iterator[Arrival]:
    """Make all calls at once and yield each chunk as it arrives, until every stream has ended.

    read: turns an event's payload into a chunk. silence: seconds without a byte of any stream.
    Raises NetworkError when a server can't be reached, refuses, answers with garbage or stops in the middle. Closing
    the iterator closes the connections.
    """
    there = address(endpoint.url)
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        for number, call in enumerate(calls):
            stream = stack.enter_context(contextlib.closing(_Stream(number, endpoint, there, call)))
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        while selector.get_map():
            ready = selector.select(silence)
            if not ready:
                raise NetworkError(f"{endpoint.url} said nothing for {silence:g} s", hint="look at the server's log")
            for key, _ in ready:
                stream = key.data
                data = stream.receive()
                if data is None:
                    continue
                now = time.perf_counter()
                for event in stream.events(data):
                    chunk = _decoded(read, event, endpoint.url)
                    if chunk is not None:
                        stream.tokens += chunk.tokens
                        stream.finished = stream.finished or bool(chunk.finish)
                        yield Arrival(stream.number, now, chunk)
                if stream.ended:
                    selector.unregister(stream.socket)


def _decoded(read: Reader, event: bytes, url: str) -> Chunk | None:
    try:
        return read(event)
    except msgspec.DecodeError:
        with contextlib.suppress(msgspec.DecodeError):
            value = msgspec.json.decode(event)
            if isinstance(value, dict) and "error" in value:
                raise NetworkError(f"{url} gave up: {server_said(event)}", hint="look at the server's log") from None
        raise NetworkError(
            f"{url} answered with something that isn't an event of its format: {event[:80]!r}",
            hint="check that the address belongs to the engine that was named",
        ) from None


class _Stream:
    """One connection: its request is sent when it is made."""

    def __init__(self, number: int, endpoint: Endpoint, there: Address, call: Call) -> None:
        self.number, self.tokens = number, 0
        self.ended = self.finished = False
        self._url, self._wire = endpoint.url, call.wire
        self._head = bytearray()
        self._body: _Body | None = None
        self._status, self._reason = 0, ""
        self._line = b""
        self._data: list[bytes] = []
        self.socket = _connected(there, endpoint.url)
        try:
            self.socket.sendall(_request(there, endpoint.key, call))
        except OSError as error:
            self.close()
            raise _lost(endpoint.url, error) from None
        self.socket.setblocking(False)

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def receive(self) -> bytes | None:
        """What has come; empty at the end; None when it was only part of a TLS record."""
        try:
            data = self.socket.recv(_READ_BYTES)
            while isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
                data += self.socket.recv(_READ_BYTES)
        except (ssl.SSLWantReadError, BlockingIOError):
            return None
        except OSError as error:
            raise self._broken(error.strerror or str(error)) from None
        return data

    def events(self, data: bytes) -> Iterator[bytes]:
        """The payloads of the events that are complete with this data."""
        if not data:
            self._end()
        elif self._body is None:
            data = self._read_head(data)
        if self._body is not None and data:
            content = self._body.feed(data)
            if self._status != _OK:
                self._line = (self._line + content)[:MAX_HEAD_BYTES]
            else:
                yield from self._lines(content)
            if self._body.complete:
                self._end()

    def _read_head(self, data: bytes) -> bytes:
        self._head += data
        head, found, rest = bytes(self._head).partition(b"\r\n\r\n")
        if len(head) > MAX_HEAD_BYTES or not self._head.startswith(b"HTTP/1"[: len(self._head)]):
            raise NetworkError(f"{self._url} doesn't speak HTTP: {head[:60]!r}", hint="check the address")
        if not found:
            return b""
        first, *lines = head.decode("latin-1").split("\r\n")
        _, _, rest_of_first = first.partition(" ")
        status, _, self._reason = rest_of_first.partition(" ")
        self._status = int(status) if status.isdigit() else 0
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self._body = _Body(headers, self._url)
        return rest

    def _lines(self, content: bytes) -> Iterator[bytes]:
        *lines, self._line = (self._line + content).split(b"\n")
        if len(self._line) > MAX_EVENT_BYTES:
            raise NetworkError(f"{self._url} sent an event without end", hint="check the address")
        if self._wire == "lines":
            yield from (line for line in lines if line.strip())
            return
        for raw in lines:
            line = raw.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                event, self._data = b"\n".join(self._data), []
                if event == b"[DONE]":
                    self.ended = self.finished = True
                    return
                yield event

    def _end(self) -> None:
        if self._body is None:
            raise self._broken("it hung up without an answer")
        if self._status != _OK:
            raise refused(self._status, self._reason, self._line, self._url)
        if not self.finished:
            raise self._broken("the stream ended in the middle")
        self.ended = True

    def _broken(self, why: str) -> NetworkError:
        after = f" after {self.tokens} tokens" if self.tokens else ""
        return NetworkError(f"lost {self._url}{after}: {why}", hint="look at the server's log; it may have been killed")


class _Body:
    """Takes the transfer coding off a body."""

    def __init__(self, headers: dict[str, str], url: str) -> None:
        self._url = url
        self._chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        length = headers.get("content-length", "")
        self._left = int(length) if length.isdigit() and not self._chunked else None
        self._raw = b""
        self.complete = self._left == 0

    def feed(self, data: bytes) -> bytes:
        """The content in this data."""
        if not self._chunked:
            if self._left is not None:
                data = data[: self._left]
                self._left -= len(data)
                self.complete = self._left == 0
            return data
        return self._dechunked(data)

    def _dechunked(self, data: bytes) -> bytes:
        raw = self._raw + data
        place, parts = 0, []
        while not self.complete:
            line_end = raw.find(b"\r\n", place)
            if line_end < 0:
                break
            size = self._size(raw[place:line_end])
            start = line_end + 2
            if size == 0:
                self.complete = True
            elif len(raw) < start + size + 2:
                break
            else:
                parts.append(raw[start : start + size])
                place = start + size + 2
        self._raw = raw[place:]
        return b"".join(parts)

    def _size(self, line: bytes) -> int:
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            size = -1
        if not 0 <= size <= MAX_EVENT_BYTES:
            raise NetworkError(f"{self._url} sent a broken chunk: {line[:40]!r}", hint="look at the server's log")
        return size


def _connected(there: Address, url: str) -> socket.socket:
    try:
        raw = socket.create_connection((there.host, there.port), CONNECT_SECONDS)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return ssl.create_default_context().wrap_socket(raw, server_hostname=there.host) if there.secure else raw
    except OSError as error:
        raise _lost(url, error) from None


def _lost(url: str, error: OSError) -> NetworkError:
    return NetworkError(
        f"no answer from {url}: {error.strerror or error}", hint="check that the server runs and its address"
    )


def _request(there: Address, key: str, call: Call) -> bytes:
    lines = [
        f"POST {there.prefix}{call.path} HTTP/1.1",
        f"Host: {there.authority}",
        "Content-Type: application/json",
        "Accept: text/event-stream, application/x-ndjson",
        f"Content-Length: {len(call.body)}",
        "Connection: close",
    ]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + call.body
