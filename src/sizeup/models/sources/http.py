"""A small HTTP client: bounded bodies, deadlines, retries, redirects that don't carry the token elsewhere.

Proxies come from the environment (`HTTPS_PROXY`, `NO_PROXY`). A body is never read beyond what was asked for, so a
server that ignores `Range` and sends a whole model costs one request's worth of bytes, not a model's.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from sizeup.errors import BadInput, NetworkError

MAX_REDIRECTS = 8
ATTEMPTS = 4
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 20.0
CHUNK = 2**16
AGAIN_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Reply(msgspec.Struct, frozen=True):
    """What a server answered: status, headers in lower case, the body as far as it was asked for, the final URL."""

    status: int
    headers: dict[str, str]
    body: bytes
    url: str

    @property
    def total(self) -> int | None:
        """Bytes of the whole file: from Content-Range, else from the Content-Length of a full answer."""
        text = self.headers.get("content-range", "").rpartition("/")[2]
        if self.status == 200:
            text = self.headers.get("content-length", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


class _Again(Exception):
    """A failure that another attempt may mend; `pause` is what the server asked for."""

    def __init__(self, why: str, pause: float | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.pause = pause


class Client:
    """Sends GET requests.

    timeout_seconds: for each wait on the connection.
    deadline_seconds: for one request as a whole, so that a server that drips bytes is given up on.
    sleep: how to pause between attempts.
    """

    def __init__(
        self,
        *,
        timeout_seconds: float = 10.0,
        deadline_seconds: float = 120.0,
        sleep: Callable[[float], None] = time.sleep,
        user_agent: str = "sizeup",
    ) -> None:
        self.timeout_seconds = timeout_seconds
        self.deadline_seconds = deadline_seconds
        self.sleep = sleep
        self.user_agent = user_agent
        self._opener = _opener()

    def get(self, url: str, *, most: int, token: str = "", span: tuple[int, int] | None = None) -> Reply:
        """One GET, tried up to four times; the caller judges the status.

        most: the largest body to accept; NetworkError beyond it. With `span`, exactly that much is read.
        span: (first byte, number of bytes) of a range request. A body shorter than the range is fetched again.
        token: sent as a bearer token to the host of `url` only.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._once(url, most, token, span)
            except _Again as error:
                pause = FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)  # noqa: S311
                if error.pause is not None:
                    pause = max(pause, error.pause)
                if attempt == ATTEMPTS or pause > LONGEST_PAUSE_SECONDS:
                    raise _gave_up(url, error, attempt) from None
                self.sleep(pause)
        raise AssertionError("the loop returns or raises")

    def _once(self, url: str, most: int, token: str, span: tuple[int, int] | None) -> Reply:
        ends = time.monotonic() + self.deadline_seconds
        origin, target = _origin(url), url
        for _ in range(MAX_REDIRECTS + 1):
            same = _origin(target) == origin
            response = self._open(target, token if same else "", span)
            with response:
                status, headers = response.status, {name.lower(): value for name, value in response.headers.items()}
                if status in REDIRECTS and headers.get("location"):
                    target = _joined(target, headers["location"])
                    continue
                if status in AGAIN_STATUSES:
                    raise _Again(f"answered {status}", _retry_after(headers))
                body = _body(response, headers, most, span, ends, target)
            return Reply(status, headers, body, target)
        raise NetworkError(f"{url} redirects more than {MAX_REDIRECTS} times", hint="check HF_ENDPOINT and the proxy")

    def _open(self, url: str, token: str, span: tuple[int, int] | None) -> Any:
        import http.client
        import urllib.error
        import urllib.request

        headers = {"User-Agent": self.user_agent, "Accept-Encoding": "identity"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if span:
            headers["Range"] = f"bytes={span[0]}-{span[0] + span[1] - 1}"
        try:
            return self._opener.open(urllib.request.Request(url, headers=headers), timeout=self.timeout_seconds)  # noqa: S310
        except TimeoutError:
            raise _Again(f"did not answer within {self.timeout_seconds:g} s") from None
        except urllib.error.URLError as error:
            reason = error.reason
            if isinstance(reason, TimeoutError):
                raise _Again(f"did not answer within {self.timeout_seconds:g} s") from None
            if isinstance(reason, ConnectionError):
                raise _Again(f"broke the connection ({reason.strerror or reason})") from None
            raise NetworkError(
                f"cannot reach {url}: {reason}", hint="check the network, the proxy and HF_ENDPOINT"
            ) from None
        except (ConnectionError, http.client.HTTPException) as error:
            raise _Again(f"broke the connection ({type(error).__name__})") from None
        except (OSError, ValueError) as error:
            raise NetworkError(
                f"cannot reach {url}: {error}", hint="check the network, the proxy and HF_ENDPOINT"
            ) from None


def checked_url(url: str) -> str:
    """The URL, if it is http or https with a host. Raises BadInput."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or any(character <= " " or character == "\x7f" for character in url):
        raise BadInput(f"not an http address: {url[:120]!r}", hint="write https://host/path")
    return url


def _body(
    response: Any, headers: Mapping[str, str], most: int, span: tuple[int, int] | None, ends: float, url: str
) -> bytes:
    """The body, read until it ends, is long enough for the range, or is larger than allowed."""
    import http.client

    wanted = most
    if span and response.status in {200, 206}:
        if response.status == 206 and not headers.get("content-range", "").startswith(f"bytes {span[0]}-"):
            raise NetworkError(
                f"{url} sent the range {headers.get('content-range')!r} when asked for byte {span[0]:,}",
                hint="the server or a proxy before it handles Range wrongly",
            )
        if response.status == 200 and span[0]:
            raise NetworkError(f"{url} ignores Range requests", hint="download the file and give its path")
        wanted = span[1]
    pieces, length = [], 0
    try:
        while length <= wanted and (piece := response.read1(min(CHUNK, wanted + 1 - length))):
            pieces.append(piece)
            length += len(piece)
            if span and length >= wanted:
                break
            if time.monotonic() > ends:
                raise NetworkError(f"{url} sent its answer too slowly", hint="try again later")
    except TimeoutError:
        raise _Again("stopped in the middle of its answer") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Again(f"broke off in the middle of its answer ({type(error).__name__})") from None
    if length > most and not span:
        raise NetworkError(f"{url} sent more than {most:,} bytes", hint="it is not the file that was asked for")
    _refuse_short(headers, length, min(wanted, most))
    return b"".join(pieces)[:wanted]


def _refuse_short(headers: Mapping[str, str], length: int, wanted: int) -> None:
    claimed = headers.get("content-length", "")
    if claimed.isascii() and claimed.isdigit() and length < min(int(claimed[:19]), wanted):
        raise _Again(f"sent {length:,} of {claimed} bytes")


def _gave_up(url: str, error: _Again, attempts: int) -> NetworkError:
    tried = f" ({attempts} attempts)" if attempts > 1 else ""
    if error.pause and error.pause > LONGEST_PAUSE_SECONDS:
        hint = f"try again in {error.pause:.0f} s, or set HF_TOKEN for a higher limit"
    else:
        hint = "try again later; HF_ENDPOINT names another server, --offline does without"
    return NetworkError(f"{url} {error.why}{tried}", hint=hint)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: a number, or a date."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    if not text:
        return None
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _joined(base: str, location: str) -> str:
    from urllib.parse import urljoin

    try:
        return checked_url(urljoin(base, location.replace(" ", "%20")))
    except (BadInput, ValueError):
        raise NetworkError(f"{base} redirects to {location[:80]!r}", hint="check HF_ENDPOINT and the proxy") from None


def _origin(url: str) -> tuple[str, str | None, int | None]:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _opener() -> Any:
    """Urllib without its own error handling and redirects, which would pass the token on."""
    import urllib.request

    opener = urllib.request.OpenerDirector()
    handlers = (urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler)
    for handler in handlers:
        opener.add_handler(handler())
    return opener
