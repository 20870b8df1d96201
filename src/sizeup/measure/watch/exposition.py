"""Samples in the Prometheus text format (0.0.4), and the small server that gives them away on this machine only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec

from sizeup.engines.launch import LOCAL
from sizeup.errors import SizeupError
from sizeup.measure.watch.sample import Gpu, Sample, ServerLoad

_CONTENT = "text/plain; version=0.0.4; charset=utf-8"


class Metric(msgspec.Struct, frozen=True):
    """A gauge: its name without the prefix, what it says, and its values by labels."""

    name: str
    help: str
    values: tuple[tuple[dict[str, str], float], ...]


def exposition(sample: Sample) -> str:
    """All gauges of a sample."""
    lines: list[str] = []
    for metric in _metrics(sample):
        if metric.values:
            name = f"sizeup_{metric.name}"
            lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} gauge"]
            lines += [f"{name}{_labels(labels)} {value:.17g}" for labels, value in metric.values]
    return "\n".join(lines) + "\n"


def _metrics(sample: Sample) -> Iterator[Metric]:
    yield _plain("cpu_busy_ratio", "Processors in use.", sample.cpu)
    yield _plain("memory_used_bytes", "Memory that programs hold.", sample.memory_used_bytes)
    yield _plain("memory_total_bytes", "Memory that there is.", sample.memory_total_bytes)
    yield _plain("swap_used_bytes", "Swap in use.", sample.swap_used_bytes)
    yield _plain("headroom_bytes", "Memory left at the predicted peak.", sample.headroom_bytes)
    for field, help_ in (
        ("used_bytes", "Memory in use on the GPU."),
        ("total_bytes", "Memory of the GPU."),
        ("busy", "Share of the time that the GPU computed."),
        ("watts", "Power of the GPU."),
        ("celsius", "Temperature of the GPU."),
    ):
        yield Metric(f"gpu_{field}", help_, tuple(_of_gpus(sample.gpus, field)))
    for field, help_ in (
        ("running", "Requests being served."),
        ("waiting", "Requests that wait."),
        ("cache_used", "Share of the KV cache in use."),
        ("tokens_per_s", "Tokens generated for each second."),
        ("prompt_tokens_per_s", "Prompt tokens read for each second."),
    ):
        yield Metric(f"server_{field}", help_, tuple(_of_servers(sample.servers, field)))
    held = tuple(({"pid": str(h.pid), "name": h.name}, float(h.bytes)) for h in sample.holders)
    yield Metric("process_resident_bytes", "Resident memory of the processes that hold most.", held)


def _plain(name: str, help_: str, value: float | None) -> Metric:
    return Metric(name, help_, () if value is None else (({}, float(value)),))


def _of_gpus(gpus: tuple[Gpu, ...], field: str) -> Iterator[tuple[dict[str, str], float]]:
    for number, gpu in enumerate(gpus):
        if (value := getattr(gpu, field)) is not None:
            yield {"gpu": str(number), "name": gpu.name}, float(value)


def _of_servers(servers: tuple[ServerLoad, ...], field: str) -> Iterator[tuple[dict[str, str], float]]:
    for server in servers:
        if (value := getattr(server, field)) is not None:
            yield {"url": server.url, "engine": server.engine, "model": server.model}, float(value)


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


class Exposed:
    """The newest sample at http://127.0.0.1:PORT/metrics, until it is closed."""

    def __init__(self, port: int) -> None:
        self.sample: Sample | None = None
        exposed = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = exposition(exposed.sample).encode() if exposed.sample and self.path == "/metrics" else b""
                self.send_response(200 if body else 404)
                self.send_header("Content-Type", _CONTENT)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
                """Say nothing: the terminal shows the samples."""

        try:
            self._server = ThreadingHTTPServer((LOCAL, port), Handler)
        except OSError as error:
            raise SizeupError(f"can't listen at port {port}: {error.strerror}", hint="give another --serve") from error
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Listen no longer."""
        self._server.shutdown()
        self._server.server_close()
