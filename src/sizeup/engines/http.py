"""Small questions to a server: one request, one JSON or text answer."""

from __future__ import annotations

import http.client
from typing import Any
from urllib.parse import urlsplit

import msgspec

from sizeup.errors import BadInput, NetworkError, NotFound

SECONDS = 5.0
MAX_BYTES = 16 * 2**20


class Address(msgspec.Struct, frozen=True):
    """An endpoint's URL, taken apart."""

    secure: bool
    host: str
    port: int
    prefix: str

    @property
    def authority(self) -> str:
        """`host:port`, as the Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def address(url: str) -> Address:
    """The parts of `http://host:port/prefix`; a scheme may be left out. Raises BadInput."""
    text = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise BadInput(f"{url[:120]!r} is no address: {error}", hint="give http://host:port") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise BadInput(f"{url[:120]!r} is no address of a server", hint="give http://host:port")
    secure = parts.scheme == "https"
    prefix = parts.path.rstrip("/").removesuffix("/v1")
    return Address(secure, parts.hostname, port or (443 if secure else 80), prefix)


def get_text(url: str, path: str, *, key: str = "", seconds: float = SECONDS) -> str:
    """The body of a GET. Raises NotFound for 404 and NetworkError for everything else that isn't 200."""
    return _request("GET", url, path, None, key, seconds).decode(errors="replace")


def get_json(url: str, path: str, *, key: str = "", seconds: float = SECONDS) -> Any:
    """The JSON of a GET. Raises NotFound, NetworkError; also for an answer that isn't JSON."""
    return _decoded(_request("GET", url, path, None, key, seconds), url + path)


def post_json(url: str, path: str, body: object, *, key: str = "", seconds: float = SECONDS) -> Any:
    """The JSON of a POST. Raises NotFound, NetworkError."""
    return _decoded(_request("POST", url, path, msgspec.json.encode(body), key, seconds), url + path)


def refused(status: int, reason: str, body: bytes, where: str) -> NetworkError | NotFound:
    """The error for a status that isn't 200, with what the server said."""
    kind = NotFound if status == http.client.NOT_FOUND else NetworkError
    hint = "look at the server's log"
    if status in {http.client.UNAUTHORIZED, http.client.FORBIDDEN}:
        hint = "set SIZEUP_API_KEY to the server's key"
    said = server_said(body)
    return kind(f"{where} answered {status} {reason}{f': {said}' if said else ''}", hint=hint)


def server_said(body: bytes) -> str:
    """The message in an error's body: `{"error": {"message": …}}`, `{"error": …}`, `{"detail": …}`, or its text."""
    try:
        value = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body[:200].decode(errors="replace").strip()
    for name in ("error", "message", "detail"):
        if isinstance(value, dict) and name in value:
            value = value[name]
    return str(value)[:300]


def _request(method: str, url: str, path: str, body: bytes | None, key: str, seconds: float) -> bytes:
    there = address(url)
    kind = http.client.HTTPSConnection if there.secure else http.client.HTTPConnection
    connection = kind(there.host, there.port, timeout=seconds)
    headers = {"Accept": "application/json, text/plain"} | ({"Content-Type": "application/json"} if body else {})
    if key:
        headers["Authorization"] = f"Bearer {key}"
    try:
        connection.request(method, there.prefix + path, body, headers)
        answer = connection.getresponse()
        content = answer.read(MAX_BYTES)
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise NetworkError(f"no answer from {url}: {why}", hint="check that the server runs and its address") from None
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise refused(answer.status, answer.reason, content, url + path)
    return content


def _decoded(content: bytes, where: str) -> Any:
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise NetworkError(
            f"{where} answered with something that isn't JSON: {content[:80]!r}", hint="check the address"
        ) from error
