"""The engines by name, and which of them answers at an address."""

from __future__ import annotations

import os

from sizeup.engines.http import address
from sizeup.engines.llamacpp.server import LlamaCpp
from sizeup.engines.lmstudio import LmStudio
from sizeup.engines.mlx.server import Mlx
from sizeup.engines.ollama.server import Ollama
from sizeup.engines.openai import OpenAI, chosen_model
from sizeup.engines.protocol import Endpoint
from sizeup.engines.transformers.server import Transformers
from sizeup.engines.vllm.server import Vllm
from sizeup.errors import BadInput

#: In the order in which an address is asked what it is: the most telling first, then OpenAI's API; MLX's server can't
#: be told from it.
ENGINES: dict[str, OpenAI] = {
    engine.name: engine for engine in (LlamaCpp(), Transformers(), Ollama(), Vllm(), LmStudio(), OpenAI(), Mlx())
}
KEY_VARIABLE = "SIZEUP_API_KEY"
_MARKS = ("http://", "https://")


def engine_named(name: str) -> OpenAI:
    """The engine of that name. Raises BadInput."""
    if name not in ENGINES:
        raise BadInput(f"no engine {name[:40]!r}", hint=f"one of {', '.join(ENGINES)}")
    return ENGINES[name]


def is_address(text: str) -> bool:
    """Whether a model argument is the address of a server: with a scheme, or `host:port`."""
    if text.startswith(_MARKS):
        return True
    host, colon, port = text.rpartition(":")
    return bool(colon) and port.isdigit() and "/" not in text and (host in {"localhost", "[::1]"} or _is_ip(host))


def attach(url: str, *, engine: str = "", model: str = "") -> tuple[OpenAI, Endpoint]:
    """The engine that answers there, and the endpoint with its model named.

    The key is read from SIZEUP_API_KEY. Raises NetworkError when nothing answers that sizeup knows.
    """
    there = address(url)
    root = f"{'https' if there.secure else 'http'}://{there.authority}{there.prefix}"
    kind = engine_named(engine) if engine else next((kind for kind in ENGINES.values() if kind.answers(root)), None)
    endpoint = Endpoint(root, kind.name if kind else "openai", model, key=os.environ.get(KEY_VARIABLE, ""))
    if kind is None:
        ENGINES["openai"].models(endpoint)
        kind = ENGINES["openai"]
    return kind, chosen_model(kind, endpoint)


def _is_ip(host: str) -> bool:
    parts = host.split(".")
    return len(parts) == 4 and all(part.isdigit() for part in parts)
