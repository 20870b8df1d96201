"""Start the best plan of a model on an engine, wait until it is ready, and print its address.

MODEL is the path of a GGUF file; with --random any model that sizeup knows, with random weights of the same shape. For
other engines it is what they call it: a tag of Ollama, a folder or Hub id for vLLM and MLX, a folder of safetensors
for transformers. Of what Ollama and LM Studio keep, llama.cpp runs the file itself.
It runs until Ctrl-C or SIGTERM, and nothing of it is left then. What doesn't fit is refused with exit code 3.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Literal, Self

import msgspec
from msgspec import Meta

from sizeup.advice.plans import Plan
from sizeup.engines.launch import LOCAL, Server
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.registry import engine_named
from sizeup.engines.signals import interruptible
from sizeup.errors import NotFound
from sizeup.operations.serving import TRANSFORMERS, Wish, contents_for, needs_file, plain_format, planned, started
from sizeup.quantity.units import parse_tokens


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to start, and how."""

    model: Annotated[str, Meta(description="The path of a GGUF file, or what another engine calls the model.")]
    engine: Annotated[
        Literal["llama.cpp", "ollama", "vllm", "mlx", "transformers"], Meta(description="The engine.")
    ] = "llama.cpp"
    format: Annotated[str, Meta(description="The format of random weights (Q4_K_M).")] = ""
    context: Annotated[str | int, Meta(description="Tokens of context (8192, 32k); default: the best plan's.")] = ""
    kv: Annotated[str, Meta(description="Cache type: f16, q8_0, q4_0; or K/V as q8_0/q4_0.")] = "f16"
    gpu_layers: Annotated[int | None, Meta(description="Layers on the GPUs; -1 all; default: as many as fit.")] = None
    users: Annotated[int, Meta(description="Sequences at once, each with the whole context.")] = 1
    threads: Annotated[int | None, Meta(description="Threads on the CPU; default: the engine's.")] = None
    host: Annotated[str, Meta(description="Where it listens.")] = LOCAL
    port: Annotated[int, Meta(description="Its port; 0: any free one.")] = 0
    random: Annotated[bool, Meta(description="Random weights of the same shape instead of real ones.")] = False
    force: Annotated[bool, Meta(description="Start it even if it doesn't fit.")] = False
    offline: Annotated[bool, Meta(description="Never use the network.")] = False


class RunReport(msgspec.Struct, dict=True):
    """A server that runs. In Python: use it in a `with` block, or call `stop`."""

    model: str
    url: str
    engine: str
    version: str
    how: str
    pid: int
    plan: Plan
    schema: str = "sizeup.run/1"

    def attach(self, server: Server) -> Self:
        """Remember the server behind this report."""
        self._server = server
        return self

    def wait(self) -> int | None:
        """Wait until the server ends by itself: its status. Ctrl-C and SIGTERM raise KeyboardInterrupt."""
        with interruptible():
            return self._server.wait()

    def last_words(self) -> str:
        """The end of the server's log."""
        return self._server.last_words()

    def stop(self) -> None:
        """End the server."""
        self._server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def run(request: RunRequest) -> RunReport:
    """Choose the plan and start it."""
    if request.engine == TRANSFORMERS and not request.random and not Path(request.model).expanduser().is_dir():
        raise NotFound(f"{request.model[:80]!r} is no folder of safetensors", hint="give its folder, or --random")
    wish = wish_of(request)
    served = planned(wish)
    kind = engine_named(request.engine)
    with contextlib.ExitStack() as stack:
        stack.enter_context(interruptible())
        if kind.name == "llama.cpp":
            needs_file(served, wish)
        path = stack.enter_context(contents_for(kind.name, served))
        server = started(kind, served, path, threads=request.threads, host=request.host, port=request.port)
    end = server.endpoint
    found = RunReport(served.model.name, end.url, end.engine, end.version, server.how, server.pid, served.plan)
    return found.attach(server)


def wish_of(request: RunRequest) -> Wish:
    """What a request asks for."""
    keys, _, values = request.kv.partition("/")
    return Wish(
        model=request.model,
        format=plain_format(request.engine, request.format),
        contexts=(parse_tokens(request.context),) if request.context else None,
        setting=LlamaSetting(
            cache_k=keys,
            cache_v=values or keys,
            gpu_layers=request.gpu_layers,
            parallel=request.users,
            unified=request.users == 1,
        ),
        random=request.random,
        force=request.force,
        offline=request.offline,
    )
