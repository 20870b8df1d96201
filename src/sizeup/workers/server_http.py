"""HTTP for workers that serve a model, in llama-server's words and OpenAI's. Standard library only.

GET  /health /props /metrics /v1/models
POST /completion /v1/completions /v1/chat/completions, streamed when asked to
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

MAX_BODY_BYTES = 64 * 2**20
Event = dict[str, Any]


class Request:
    """One thing to generate; its events arrive in `events`, None last."""

    def __init__(self, tokens: list[int], options: dict[str, Any]) -> None:
        self.tokens = tokens
        self.most = int(options.get("n_predict", options.get("max_tokens")) or 128)
        self.exact = bool(options.get("ignore_eos", False))
        self.cached = bool(options.get("cache_prompt", True))
        self.temperature = float(options.get("temperature") or 0.0)
        self.seed = int(options.get("seed") or 0) & 0xFFFFFFFF
        self.events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self.cancelled = False


class Refusal(Exception):
    """A request that can't be served, with its status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Text(Protocol):
    """A model's vocabulary. size: how many ids it has."""

    size: int

    def tokens(self, text: str) -> list[int]:
        """The ids of a text. Raises ValueError without a vocabulary."""

    def chat(self, messages: Any) -> list[int]:
        """The ids of a chat in the model's template. Raises ValueError without a vocabulary."""


class Slots(Protocol):
    """What computes requests. length: tokens of a sequence at most. prompt_tokens, generated: since it started."""

    length: int
    prompt_tokens: int
    generated: int

    @property
    def running(self) -> int:
        """Requests being computed."""

    @property
    def waiting(self) -> int:
        """Requests that wait."""

    def submit(self, request: Request) -> None:
        """Hand a request in, from any thread."""


class App:
    """The model that is served. props: what /props tells besides its name and vocabulary; prefix: of its metrics."""

    def __init__(self, name: str, text: Text, slots: Slots, props: dict[str, Any], prefix: str) -> None:
        self.name, self.text, self.slots, self.props, self.prefix = name, text, slots, props, prefix

    def get(self, path: str) -> tuple[str, bytes] | None:
        """Content type and body of a GET; None for an unknown path."""
        if path == "/metrics":
            return "text/plain; version=0.0.4", self._metrics().encode()
        answers: dict[str, Any] = {
            "/health": {"status": "ok"},
            "/v1/models": {"object": "list", "data": [{"id": self.name, "object": "model", "owned_by": self.prefix}]},
            "/props": {**self.props, "model_path": self.name, "vocabulary": self.text.size},
        }
        return None if path not in answers else ("application/json", json.dumps(answers[path]).encode())

    def _metrics(self) -> str:
        slots = self.slots
        amounts = {
            "prompt_tokens_total": slots.prompt_tokens,
            "tokens_predicted_total": slots.generated,
            "requests_processing": slots.running,
            "requests_deferred": slots.waiting,
        }
        return "".join(f"{self.prefix}:{name} {amount}\n" for name, amount in amounts.items())

    def post(self, path: str, body: dict[str, Any]) -> tuple[Request, Callable[[Event], dict[str, Any]]]:
        """The request that a POST makes, and how its events are told on this route."""
        routes: dict[str, Callable[[Event], dict[str, Any]]] = {
            "/completion": dict,
            "/v1/completions": lambda event: self._openai(event, {"text": event["content"]}),
            "/v1/chat/completions": lambda event: self._openai(event, {"delta": {"content": event["content"]}}),
        }
        if path not in routes:
            raise Refusal(404, f"no route {path}")
        prompt = body.get("messages") if "chat" in path else body.get("prompt")
        return self._request(prompt, body, chat="chat" in path), routes[path]

    def _request(self, prompt: Any, body: dict[str, Any], *, chat: bool) -> Request:
        try:
            if chat:
                tokens = self.text.chat(prompt)
            elif isinstance(prompt, str):
                tokens = self.text.tokens(prompt)
            else:
                tokens = [int(token) for token in prompt]
            request = Request(tokens, body)
        except Exception as error:
            raise Refusal(400, f"the prompt can't be read: {error}"[:500]) from None
        if not tokens or not all(0 <= token < self.text.size for token in tokens):
            raise Refusal(400, f"a prompt needs token ids from 0 to {self.text.size - 1}")
        if len(tokens) >= self.slots.length:
            raise Refusal(400, f"{len(tokens)} prompt tokens exceed the context of {self.slots.length}")
        return request

    def _openai(self, event: Event, choice: dict[str, Any]) -> dict[str, Any]:
        if "error" in event:
            return event
        reason = {"eos": "stop", "limit": "length"}.get(event.get("stop_type", "")) if event["stop"] else None
        told: dict[str, Any] = {
            "object": "text_completion" if "text" in choice else "chat.completion.chunk",
            "model": self.name,
            "created": int(time.time()),
            "choices": [{"index": 0, "finish_reason": reason, **choice}],
        }
        if event["stop"]:
            read, written = event["tokens_evaluated"], event["tokens_predicted"]
            told["usage"] = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
            told["timings"] = event["timings"]
        return told


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    app: App

    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""

    def do_GET(self) -> None:
        """Answer what the app has."""
        found = self.app.get(self.path.partition("?")[0])
        if found is None:
            self._answer(404, "application/json", _error(404, f"no route {self.path[:100]}"))
        else:
            self._answer(200, *found)

    def do_POST(self) -> None:
        """Generate."""
        try:
            body = self._body()
            request, told = self.app.post(self.path.partition("?")[0], body)
        except Refusal as refusal:
            self._answer(refusal.status, "application/json", _error(refusal.status, str(refusal)))
            return
        self.app.slots.submit(request)
        try:
            if body.get("stream"):
                self._stream(request, told)
            else:
                self._whole(request, told)
        except OSError:
            self.close_connection = True
        finally:
            request.cancelled = True

    def _body(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            raise Refusal(400, "the request needs a Content-Length within bounds")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except ValueError as error:
            raise Refusal(400, f"the body isn't JSON: {error}") from None
        if not isinstance(body, dict):
            raise Refusal(400, "the body isn't a JSON object")
        return body

    def _stream(self, request: Request, told: Callable[[Event], dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while (event := request.events.get()) is not None:
            self._chunk(b"data: " + json.dumps(told(event)).encode() + b"\n\n")
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _whole(self, request: Request, told: Callable[[Event], dict[str, Any]]) -> None:
        events = list(iter(request.events.get, None))
        if "error" in events[-1]:
            self._answer(500, "application/json", json.dumps(events[-1]).encode())
            return
        last = events[-1] | {"content": "".join(event["content"] for event in events)}
        answer = told(last)
        for choice in answer.get("choices", ()):
            if "delta" in choice:
                choice["message"] = {"role": "assistant", **choice.pop("delta")}
        self._answer(200, "application/json", json.dumps(answer).encode())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _error(status: int, message: str) -> bytes:
    return json.dumps({"error": {"code": status, "message": message}}).encode()


def listen(app: App, host: str, port: int) -> None:
    """Serve the app from threads of its own."""
    Handler.app = app
    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
