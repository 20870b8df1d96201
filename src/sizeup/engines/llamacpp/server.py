"""llama.cpp as a server: `llama-server`, or a Python program around `llama-cpp-python`.

Wire format of /completion, /props, /health, /metrics: tools/server/README.md and server-task.cpp, llama.cpp 0.5.0
(0c1e570). sizeup's own server (`sizeup/workers/llamacpp_server.py`) speaks the same.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec

from sizeup.engines.http import get_text
from sizeup.engines.launch import Launch, Server, free_port, local_url, start
from sizeup.engines.llamacpp.command import server_command
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.simulate import context_parameters, load_parameters
from sizeup.engines.metrics import totals, whole
from sizeup.engines.openai import OpenAI, probe
from sizeup.engines.protocol import Ask, Call, Chunk, Endpoint, Found, JsonObject, Stats, Timings
from sizeup.errors import MissingPart, SizeupError

PROGRAM = "llama-server"
_WORKER = Path(__file__).parents[2] / "workers" / "llamacpp_server.py"
_VERSION_SECONDS = 20
_MILLI = 1e-3


class _Clock(msgspec.Struct):
    prompt_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0
    predicted_per_token_ms: float | None = None


class _Event(msgspec.Struct):
    content: str
    stop: bool
    tokens: tuple[int, ...] = ()
    tokens_predicted: int | None = None
    tokens_evaluated: int | None = None
    stop_type: str = ""
    timings: _Clock | None = None


class Slot(msgspec.Struct, frozen=True):
    """A slot of /slots. n_prompt_tokens: in its cache, what it generated included. next_token: a list, or an object."""

    n_ctx: int = 0
    is_processing: bool = False
    n_prompt_tokens: int = 0
    next_token: Any = None

    @property
    def decoded(self) -> int:
        """Tokens generated so far for the request that it serves."""
        told = self.next_token[0] if isinstance(self.next_token, list) and self.next_token else self.next_token
        count = told.get("n_decoded") if isinstance(told, dict) else None
        return count if isinstance(count, int) else 0


def slots_in(answer: Any) -> list[Slot]:
    """The slots of a /slots answer; none in anything else."""
    try:
        return msgspec.convert(answer, list[Slot])
    except msgspec.ValidationError:
        return []


_EVENTS = msgspec.json.Decoder(_Event)


class LlamaCpp(OpenAI):
    """llama.cpp's server, whichever program it is."""

    name = "llama.cpp"
    port = 8080
    takes_tokens = True
    reuses = True

    def detect(self) -> tuple[Found, ...]:
        """`llama-server` on the path, and what listens at its usual port."""
        program = shutil.which(PROGRAM)
        there = (Found(self.name, f"{PROGRAM} on the path", program_version(program), program),) if program else ()
        return (*there, *self.listening())

    def answers(self, url: str) -> bool:
        """Whether it has /props with the defaults of a generation."""
        props = probe(url, "/props")
        return isinstance(props, dict) and "default_generation_settings" in props

    def launch(self, launch: Launch) -> Server:
        """`llama-server` when it is on the path, else sizeup's own server in the environment of `launch.python`.

        Token ids for a model without a vocabulary (random weights) are only taken by sizeup's own.
        """
        program = shutil.which(PROGRAM)
        port = launch.port or free_port(launch.host)
        endpoint = Endpoint(local_url(launch.host, port), self.name, Path(launch.model).name)
        if program and not (launch.tokens_only and launch.python):
            command, how = _native(program, launch, port), PROGRAM
        elif launch.python:
            command, how = _packaged(launch, port), "llama-cpp-python"
        else:
            raise MissingPart("no llama.cpp here", hint="run sizeup engine install llama.cpp")
        ready = endpoint.url
        server = start(
            command, endpoint, lambda: _healthy(ready), how=how, seconds=launch.ready_seconds, environment=_QUIET
        )
        server.endpoint = msgspec.structs.replace(endpoint, version=_version(ready))
        return server

    def stats(self, endpoint: Endpoint) -> Stats:
        """/metrics, where it is on, and /slots.

        llama-server counts generated tokens when a request ends: those of requests that run are in its slots.
        """
        slots = slots_in(probe(endpoint.url, "/slots"))
        busy = [slot for slot in slots if slot.is_processing]
        room = sum(slot.n_ctx for slot in slots)
        used = sum(slot.n_prompt_tokens for slot in busy) / room if room else None
        try:
            amounts = totals(get_text(endpoint.url, "/metrics", key=endpoint.key))
        except SizeupError:
            return Stats(running=len(busy), cache_used=used, slots=len(slots)) if slots else Stats()
        ended = whole(amounts, "llamacpp:tokens_predicted_total")
        return Stats(
            running=whole(amounts, "llamacpp:requests_processing"),
            waiting=whole(amounts, "llamacpp:requests_deferred"),
            cache_used=amounts.get("llamacpp:kv_cache_usage_ratio", used),
            prompt_tokens=whole(amounts, "llamacpp:prompt_tokens_total"),
            generated=None if ended is None else ended + sum(slot.decoded for slot in busy),
            slots=len(slots) or None,
        )

    def extras(self, ask: Ask) -> JsonObject:
        """Fields of a chat beyond OpenAI's."""
        return {"cache_prompt": ask.cached, "ignore_eos": ask.exact}

    def call(self, endpoint: Endpoint, ask: Ask) -> Call:
        """/completion with its own clock; a chat goes through OpenAI's route, which has the model's template."""
        if ask.messages:
            return super().call(endpoint, ask)
        body = {
            "prompt": ask.prompt,
            "n_predict": ask.tokens,
            "temperature": ask.temperature,
            "seed": ask.seed,
            "stream": True,
            "return_tokens": True,
            **self.extras(ask),
        }
        return Call("/completion", msgspec.json.encode(body))

    def read(self, event: bytes) -> Chunk | None:
        """A chunk of /completion, else one of OpenAI's."""
        if b'"choices"' in event:
            return super().read(event)
        decoded = _EVENTS.decode(event)
        if not decoded.stop:
            return Chunk(decoded.content, len(decoded.tokens) or bool(decoded.content))
        return Chunk(
            decoded.content,
            finish=decoded.stop_type or "stop",
            prompt_tokens=decoded.tokens_evaluated,
            generated=decoded.tokens_predicted,
            timings=_timings(decoded.timings),
        )


#: A failed assertion says its line instead of a backtrace.
_QUIET = {"GGML_NO_BACKTRACE": "1"}


def program_version(program: str) -> str:
    """What `llama-server --version` says; empty when it says nothing."""
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False, timeout=_VERSION_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"version:\s*(.+)", done.stdout + done.stderr)
    return found[1].strip() if found else ""


def worker_job(launch: Launch, port: int) -> JsonObject:
    """What sizeup's own server is told."""
    threads = {} if launch.threads is None else {"n_threads": launch.threads, "n_threads_batch": launch.threads}
    return {
        "gguf": launch.model,
        "host": launch.host,
        "port": port,
        "mmap": launch.setting.mmap,
        "model": load_parameters(launch.setting),
        "context": context_parameters(launch.setting) | threads,
    }


def _native(program: str, launch: Launch, port: int) -> list[str]:
    setting: LlamaSetting = launch.setting
    _, *arguments = server_command(setting, launch.model)
    threads = [] if launch.threads is None else ["-t", str(launch.threads)]
    place = ["--host", launch.host, "--port", str(port)]
    return [program, *arguments, *threads, *place, "--alias", Path(launch.model).name, "--metrics"]


def _packaged(launch: Launch, port: int) -> list[str]:
    return [launch.python, str(_WORKER), msgspec.json.encode(worker_job(launch, port)).decode()]


def _healthy(url: str) -> bool:
    try:
        return '"ok"' in get_text(url, "/health", seconds=1.0)
    except SizeupError:
        return False


def _version(url: str) -> str:
    props = probe(url, "/props")
    return str(props.get("build_info", "")) if isinstance(props, dict) else ""


def _timings(clock: _Clock | None) -> Timings | None:
    """Newer versions don't count the first token among those that were decoded; the time of one token says which."""
    if clock is None:
        return None
    each = clock.predicted_per_token_ms
    decoded = round(clock.predicted_ms / each) if each else clock.predicted_n
    return Timings(clock.prompt_n, clock.prompt_ms * _MILLI, decoded, clock.predicted_ms * _MILLI, "llama.cpp")
