"""Ollama's daemon: /api/tags, /api/ps, /api/generate and /api/chat in JSON lines.

Source: docs/api.md of Ollama 0.12 to 0.15. It has no route for token ids.
"""

from __future__ import annotations

import os
import shutil

import msgspec

from sizeup.engines.http import get_json
from sizeup.engines.launch import Launch, Server, free_port, local_url, start
from sizeup.engines.openai import OpenAI, probe
from sizeup.engines.protocol import Ask, Call, Chunk, Endpoint, Found, JsonObject, Stats, Timings
from sizeup.errors import MissingPart, NetworkError

PROGRAM = "ollama"
_NANO = 1e-9


class _Said(msgspec.Struct):
    content: str = ""
    thinking: str = ""


class _Event(msgspec.Struct):
    done: bool
    response: str = ""
    thinking: str = ""
    message: _Said | None = None
    done_reason: str = ""
    prompt_eval_count: int | None = None
    prompt_eval_duration: int = 0
    eval_count: int | None = None
    eval_duration: int = 0


_EVENTS = msgspec.json.Decoder(_Event)


class Ollama(OpenAI):
    """The daemon at OLLAMA_HOST, by default port 11434 of this machine."""

    name = "ollama"
    port = 11434

    def detect(self) -> tuple[Found, ...]:
        """`ollama` on the path, and the daemon where it listens."""
        program = shutil.which(PROGRAM)
        there = (Found(self.name, "ollama on the path", "", program),) if program else ()
        return (*there, *self.listening())

    def listening(self) -> tuple[Found, ...]:
        """The daemon at OLLAMA_HOST."""
        host = os.environ.get("OLLAMA_HOST") or f"127.0.0.1:{self.port}"
        bare = host if "://" in host else f"http://{host}"
        url = bare if ":" in bare.rpartition("//")[2] else f"{bare}:{self.port}"
        answer = probe(url, "/api/version")
        version = answer.get("version", "") if isinstance(answer, dict) else None
        return () if version is None else (Found(self.name, "listening", str(version), url=url),)

    def answers(self, url: str) -> bool:
        """Whether it has /api/version and lists its models at /api/tags."""
        return isinstance(probe(url, "/api/version"), dict) and isinstance(probe(url, "/api/tags"), dict)

    def models(self, endpoint: Endpoint) -> tuple[str, ...]:
        """The tags that it holds."""
        answer = get_json(endpoint.url, "/api/tags", key=endpoint.key)
        entries = answer.get("models") if isinstance(answer, dict) else None
        if not isinstance(entries, list):
            raise NetworkError(f"{endpoint.url}/api/tags lists no models", hint="check the address")
        return tuple(str(entry["name"]) for entry in entries if isinstance(entry, dict) and "name" in entry)

    def launch(self, launch: Launch) -> Server:
        """A daemon of its own, on a free port; the model is loaded by the first request."""
        program = shutil.which(PROGRAM)
        if not program:
            raise MissingPart("Ollama is not installed here", hint="install Ollama, or use --engine llama.cpp")
        port = launch.port or free_port(launch.host)
        endpoint = Endpoint(local_url(launch.host, port), self.name, launch.model)
        environment = {
            "OLLAMA_HOST": f"{launch.host}:{port}",
            "OLLAMA_CONTEXT_LENGTH": str(launch.setting.context // launch.setting.parallel),
            "OLLAMA_NUM_PARALLEL": str(launch.setting.parallel),
        }
        return start(
            [program, "serve"],
            endpoint,
            lambda: isinstance(probe(endpoint.url, "/api/version"), dict),
            how="ollama serve",
            environment=environment,
            seconds=launch.ready_seconds,
        )

    def stats(self, endpoint: Endpoint) -> Stats:
        """What its loaded models hold, by /api/ps."""
        answer = probe(endpoint.url, "/api/ps")
        entries = answer.get("models") if isinstance(answer, dict) else None
        if not isinstance(entries, list):
            return Stats()
        sizes = [(int(e.get("size") or 0), int(e.get("size_vram") or 0)) for e in entries if isinstance(e, dict)]
        return Stats(
            memory_bytes=sum(size - on_gpu for size, on_gpu in sizes), gpu_bytes=sum(on_gpu for _, on_gpu in sizes)
        )

    def call(self, endpoint: Endpoint, ask: Ask) -> Call:
        """/api/generate without the template, or /api/chat with it."""
        options = {"num_predict": ask.tokens, "temperature": ask.temperature, "seed": ask.seed}
        body: JsonObject = {"model": endpoint.model, "stream": True, "options": options}
        if ask.messages:
            return Call("/api/chat", msgspec.json.encode(body | {"messages": ask.messages}), "lines")
        return Call("/api/generate", msgspec.json.encode(body | {"prompt": ask.prompt, "raw": True}), "lines")

    def read(self, event: bytes) -> Chunk | None:
        """A chunk for each line; the last one carries counts and nanoseconds."""
        line = _EVENTS.decode(event)
        said = line.message or _Said()
        text = line.response or line.thinking or said.content or said.thinking
        if not line.done:
            return Chunk(text, 1 if text else 0)
        timings = Timings(
            line.prompt_eval_count or 0,
            line.prompt_eval_duration * _NANO,
            line.eval_count or 0,
            line.eval_duration * _NANO,
            "ollama",
        )
        finish = line.done_reason or "stop"
        return Chunk(
            text,
            1 if text else 0,
            finish,
            line.prompt_eval_count,
            line.eval_count,
            timings if line.eval_duration else None,
        )
