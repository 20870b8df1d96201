"""LM Studio's local server: OpenAI's API at port 1234, and its own list of models at /api/v0/models.

Source: LM Studio's documentation, "REST API v0". It is started by its application (`lms server start`).
"""

from __future__ import annotations

from sizeup.engines.http import get_json
from sizeup.engines.openai import OpenAI, probe
from sizeup.engines.protocol import Endpoint, Found
from sizeup.errors import NetworkError


class LmStudio(OpenAI):
    """LM Studio, attached to."""

    name = "lmstudio"
    port = 1234

    def detect(self) -> tuple[Found, ...]:
        """Its server, when it listens."""
        return self.listening()

    def answers(self, url: str) -> bool:
        """Whether it lists models at /api/v0/models."""
        answer = probe(url, "/api/v0/models")
        return isinstance(answer, dict) and isinstance(answer.get("data"), list)

    def models(self, endpoint: Endpoint) -> tuple[str, ...]:
        """Its language models, those that are loaded first."""
        answer = get_json(endpoint.url, "/api/v0/models", key=endpoint.key)
        entries = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(entries, list):
            raise NetworkError(f"{endpoint.url}/api/v0/models lists no models", hint="check the address")
        chats = [e for e in entries if isinstance(e, dict) and e.get("type") != "embeddings" and "id" in e]
        return tuple(str(e["id"]) for e in sorted(chats, key=lambda e: e.get("state") != "loaded"))
