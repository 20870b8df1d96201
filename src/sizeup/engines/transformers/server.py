"""transformers as a server: sizeup's own program around it, in an environment with torch and transformers.

It runs folders of safetensors, and any configuration with random weights. Its wire format is llama-server's
(`sizeup/workers/transformers_server.py`).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from sizeup.engines.http import get_text
from sizeup.engines.launch import Launch, Server, free_port, local_url, start
from sizeup.engines.llamacpp.server import LlamaCpp
from sizeup.engines.metrics import totals, whole
from sizeup.engines.openai import probe
from sizeup.engines.protocol import Endpoint, Found, JsonObject, Stats
from sizeup.errors import MissingPart, SizeupError

#: No server of another kind listens there usually.
PORT = 8087
_WORKER = Path(__file__).parents[2] / "workers" / "transformers_server.py"
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


class Transformers(LlamaCpp):
    """transformers, one request after the other."""

    name = "transformers"
    port = PORT

    def detect(self) -> tuple[Found, ...]:
        """What listens at its port; its environment is found by who may start it."""
        return self.listening()

    def answers(self, url: str) -> bool:
        """Whether its /props name transformers."""
        props = probe(url, "/props")
        return isinstance(props, dict) and props.get("engine") == self.name

    def launch(self, launch: Launch) -> Server:
        """The server program in the environment of `launch.python`; model: a folder."""
        if not launch.python:
            raise MissingPart("no transformers here", hint="run sizeup engine install transformers")
        port = launch.port or free_port(launch.host)
        endpoint = Endpoint(local_url(launch.host, port), self.name, Path(launch.model).name)
        command = [launch.python, str(_WORKER), msgspec.json.encode(_job(launch, port)).decode()]
        server = start(
            command,
            endpoint,
            lambda: self.answers(endpoint.url),
            how=self.name,
            environment=_OFFLINE,
            seconds=launch.ready_seconds,
        )
        props = probe(endpoint.url, "/props")
        version = str(props.get("build_info", "")) if isinstance(props, dict) else ""
        server.endpoint = msgspec.structs.replace(endpoint, version=version)
        return server

    def stats(self, endpoint: Endpoint) -> Stats:
        """/metrics."""
        try:
            amounts = totals(get_text(endpoint.url, "/metrics", key=endpoint.key))
        except SizeupError:
            return Stats()
        return Stats(
            running=whole(amounts, "transformers:requests_processing"),
            waiting=whole(amounts, "transformers:requests_deferred"),
            prompt_tokens=whole(amounts, "transformers:prompt_tokens_total"),
            generated=whole(amounts, "transformers:tokens_predicted_total"),
        )


def _job(launch: Launch, port: int) -> JsonObject:
    return {
        "folder": str(Path(launch.model).expanduser().resolve()),
        "host": launch.host,
        "port": port,
        "context": launch.setting.context // launch.setting.parallel,
        "threads": launch.threads,
    }
