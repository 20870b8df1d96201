"""Servers of models on this machine: at the usual ports, and wherever a process with an engine's name listens."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable

import msgspec

from sizeup.engines.http import address
from sizeup.engines.launch import local_url
from sizeup.engines.openai import OpenAI
from sizeup.engines.protocol import Endpoint, Stats
from sizeup.engines.registry import ENGINES, attach
from sizeup.errors import SizeupError
from sizeup.measure.bench.resources import listener_pid
from sizeup.measure.watch.sample import ServerLoad

_NAMES = ("llama-server", "llamacpp_server", "ollama", "vllm", "lmstudio", "lm-studio", "mlx_lm")
#: How often new servers are looked for.
_SEARCH_SECONDS = 10.0


class _Known(msgspec.Struct):
    """A server, and what it had counted when it was asked last."""

    engine: OpenAI
    endpoint: Endpoint
    pid: int | None
    before: Stats = Stats()
    at: float = 0.0


class Servers:
    """Finds servers and asks them. urls: looked at besides those that are found."""

    def __init__(self, urls: Iterable[str] = (), *, search: bool = True) -> None:
        self._urls, self._search = tuple(urls), search
        self._known: dict[str, _Known] = {}
        self._searched = float("-inf")

    def now(self) -> tuple[ServerLoad, ...]:
        """What each server says of itself; one that no longer answers is forgotten."""
        if time.monotonic() - self._searched > _SEARCH_SECONDS:
            self._find()
        loads = []
        for url, known in list(self._known.items()):
            load = _load(known)
            if load is None:
                del self._known[url]
            else:
                loads.append(load)
        return tuple(loads)

    def _find(self) -> None:
        self._searched = time.monotonic()
        candidates = dict.fromkeys((*self._urls, *(_listening() if self._search else ())))
        for url in candidates:
            if url not in self._known:
                with contextlib.suppress(SizeupError):
                    engine, endpoint = attach(url)
                    self._known[url] = _Known(engine, endpoint, listener_pid(address(url).port))


def _listening() -> Iterable[str]:
    """Addresses where a server may be: where an engine usually listens, and where a process with its name does."""
    import psutil

    usual = {engine.port for engine in ENGINES.values()}
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr:
                port = connection.laddr.port
                if port in usual or _is_engine(connection.pid):
                    yield local_url(connection.laddr.ip, port)


def _is_engine(pid: int | None) -> bool:
    import psutil

    if pid is None:
        return False
    try:
        command = " ".join(psutil.Process(pid).cmdline()[:4]).lower()
    except psutil.Error:
        return False
    return any(name in command for name in _NAMES)


def _load(known: _Known) -> ServerLoad | None:
    """Its load now; None when it is gone."""
    engine, endpoint = known.engine, known.endpoint
    stats = engine.stats(endpoint)
    if stats == Stats() and not engine.answers(endpoint.url):
        return None
    now = time.monotonic()
    seconds = now - known.at if known.at else 0.0
    before, known.before, known.at = known.before, stats, now
    return ServerLoad(
        url=endpoint.url,
        engine=engine.name,
        model=endpoint.model,
        pid=known.pid,
        running=stats.running,
        waiting=stats.waiting,
        slots=stats.slots,
        cache_used=stats.cache_used,
        tokens_per_s=rate(before.generated, stats.generated, seconds),
        prompt_tokens_per_s=rate(before.prompt_tokens, stats.prompt_tokens, seconds),
        memory_bytes=stats.memory_bytes,
        gpu_bytes=stats.gpu_bytes,
    )


def rate(before: int | None, after: int | None, seconds: float) -> float | None:
    """Counted for each second; None without two counts, 0 after a restart of the counter."""
    if before is None or after is None or seconds <= 0:
        return None
    return max(0, after - before) / seconds
