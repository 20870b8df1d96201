"""What `run`, `chat` and `bench` share: from a model's name to a file, a plan for it, and a server that runs it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from sizeup.advice.grid import best_plan, grid, remedies
from sizeup.advice.plans import Plan
from sizeup.engines.launch import LOCAL, Launch, Server
from sizeup.engines.llamacpp.randomweights import write_random
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.simulate import file_content
from sizeup.engines.openai import OpenAI
from sizeup.engines.registry import engine_named
from sizeup.errors import AnswerIsNo, MissingPart, NotFound, SizeupError
from sizeup.machines.device import Machine
from sizeup.machines.spec import load_machine
from sizeup.measure.simulation import worker_python
from sizeup.models.catalogue.find import find
from sizeup.models.load import load_model
from sizeup.models.model import Model
from sizeup.models.sources.resolve import resolve
from sizeup.progress import tell
from sizeup.quantity.units import format_bytes, format_tokens
from sizeup.workers.host import find_python

TRANSFORMERS = "transformers"
#: Names the Python of an environment with torch and transformers, before SIZEUP_WORKER_PYTHON.
TRANSFORMERS_VARIABLE = "SIZEUP_TRANSFORMERS_PYTHON"


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be served, and how far the plan is free."""

    model: str
    format: str = ""
    contexts: tuple[int, ...] | None = None
    setting: LlamaSetting = LlamaSetting()
    random: bool = False
    force: bool = False
    offline: bool = False


class Served(msgspec.Struct, frozen=True):
    """A model with its plan here. file: its weights; None when random ones stand in for them.

    reference: what was asked for.
    """

    model: Model
    machine: Machine
    plan: Plan
    file: Path | None
    reference: str = ""

    @property
    def format(self) -> str:
        """The format that the plan names."""
        return self.plan.format


def planned(wish: Wish) -> Served:
    """The best plan of a model on this machine.

    Raises AnswerIsNo when it doesn't fit and isn't forced, NotFound for a model that isn't known.
    """
    file = None if wish.random else local_gguf(wish.model)
    by_path = file is not None and Path(wish.model).expanduser().exists()
    model = load_model(str(file) if by_path else wish.model, network=not wish.offline)
    machine = load_machine(None)
    formats = (wish.format,) if wish.format and not file else None
    plan = best_plan(grid(model, machine, wish.setting, formats=formats, contexts=wish.contexts))
    if plan.fits.verdict == "no" and not wish.force:
        raise AnswerIsNo(
            f"{model.name} in {plan.format} with {format_tokens(plan.context)} tokens of context takes "
            f"{format_bytes(plan.footprint.total_bytes)} and does not fit: {format_bytes(-plan.fits.headroom_bytes)} "
            f"too much for {plan.fits.device}",
            hint=f"{remedies(model, machine, plan)[0]}; or --force",
        )
    return Served(model, machine, plan, file, wish.model)


def local_gguf(text: str) -> Path | None:
    """The GGUF file on this machine that is meant; None for anything else.

    A path: that file, or the only model in a folder. A name: what Ollama, LM Studio, llama.cpp or the Hub's cache keep.
    """
    path = Path(text).expanduser()
    if path.is_file() and path.suffix.lower() == ".gguf":
        return path
    if path.is_dir():
        inside = [p for p in sorted(path.glob("*.gguf")) if not p.name.startswith("mmproj")]
        return inside[0] if len(inside) == 1 else None
    return None if path.exists() else _kept_gguf(text)


def _kept_gguf(name: str) -> Path | None:
    """The file of a name in another program's store: the first part of one that llama.cpp finds the others of."""
    try:
        found = resolve(name, network=False)
    except SizeupError:
        return None
    if found.header is None or found.header.kind != "gguf" or not found.header.complete:
        return None
    first, *others = [Path(file.name) for file in found.header.files]
    return first if first.is_file() and (not others or first.suffix == ".gguf") else None


@contextlib.contextmanager
def serving(
    served: Served, engine: str, *, threads: int | None = None, host: str = LOCAL, port: int = 0
) -> Iterator[tuple[OpenAI, Server]]:
    """A server with the plan's setting for the length of a `with` block; random weights where it has no file.

    Raises MissingPart without the engine, SizeupError when it doesn't start.
    """
    kind = engine_named(engine)
    with contents_for(kind.name, served) as path:
        server = started(kind, served, path, threads=threads, host=host, port=port)
    try:
        yield kind, server
    finally:
        kind.stop(server)


def started(
    kind: OpenAI, served: Served, path: Path, *, threads: int | None = None, host: str = LOCAL, port: int = 0
) -> Server:
    """Start the engine with the plan's setting, and wait until it is ready."""
    tell(f"starting {kind.name}")
    launch = Launch(
        str(path),
        served.plan.setting,
        python=_python(kind.name),
        host=host,
        port=port,
        threads=threads or cores(served.machine),
        tokens_only=served.file is None,
    )
    return kind.launch(launch)


def cores(machine: Machine) -> int | None:
    """Threads worth having: the physical cores, no more than may be used; None when unknown."""
    allowed = [n for n in (machine.cpu.units, machine.cpu_threads, machine.limits.cpus) if n]
    return max(1, int(min(allowed))) if allowed else None


@contextlib.contextmanager
def weights_of(served: Served) -> Iterator[Path]:
    """The file of the weights; random ones are removed at the end of the block, when the engine has mapped them."""
    if served.file is not None:
        yield served.file
        return
    with tempfile.TemporaryDirectory(prefix="sizeup-") as folder:
        tell(f"writing {format_bytes(served.plan.footprint.component('weights'))} of random weights")
        path = Path(folder, f"{served.model.name.rpartition('/')[2]}-random.gguf")
        write_random(path, *file_content(served.model, served.plan.setting))
        yield path


def needs_file(served: Served, wish: Wish) -> Served:
    """The same, when it has a file or random weights are wanted. Raises NotFound: sizeup downloads no weights."""
    if served.file is None and not wish.random:
        raise NotFound(
            f"the weights of {served.model.name} are not on this machine as a GGUF file",
            hint="give the path of a GGUF file, a tag of Ollama, or --random for random weights of the same shape",
        )
    return served


def plain_format(engine: str, wanted: str) -> str:
    """The format that a plan names: what was asked for; transformers computes in 16 bits unless told otherwise."""
    return wanted or ("BF16" if engine == TRANSFORMERS else "")


def has_weights(engine: str, served: Served) -> bool:
    """Whether real weights are served, not random ones."""
    if engine != TRANSFORMERS:
        return served.file is not None
    folder = Path(served.reference).expanduser()
    return folder.is_dir() and any(folder.glob("*.safetensors"))


@contextlib.contextmanager
def contents_for(engine: str, served: Served) -> Iterator[Path]:
    """What an engine is given: a GGUF file; for transformers a folder, of a configuration alone for random weights."""
    if engine == "llama.cpp":
        with weights_of(served) as path:
            yield path
        return
    named = Path(served.reference).expanduser()
    if engine != TRANSFORMERS or named.is_dir():
        yield Path(served.reference)
        return
    with tempfile.TemporaryDirectory(prefix="sizeup-") as folder:
        Path(folder, "config.json").write_bytes(msgspec.json.encode(_config(served)))
        yield Path(folder)


def _config(served: Served) -> dict[str, Any]:
    """The configuration of a model that isn't a folder here. Raises NotFound without one."""
    entry = find(served.reference)
    if entry is None:
        raise NotFound(
            f"transformers needs a folder with config.json, and {served.reference[:80]!r} is none",
            hint="give the folder of a model, or a name of the catalogue for random weights",
        )
    return entry.config


def _python(engine: str) -> str:
    """The Python of an engine that is a package; empty without it, when a program may still be there."""
    try:
        if engine == TRANSFORMERS:
            return transformers_python()
        return worker_python() if engine == "llama.cpp" else ""
    except MissingPart:
        return ""


def transformers_python() -> str:
    """The Python with torch and transformers. Raises MissingPart when there is none."""
    named = os.environ.get(TRANSFORMERS_VARIABLE)
    if not named:
        return find_python(("torch", "transformers"), TRANSFORMERS)
    if not Path(named).is_file():
        hint = f"correct or unset {TRANSFORMERS_VARIABLE}"
        raise MissingPart(f"{TRANSFORMERS_VARIABLE} names {named!r}, which isn't there", hint=hint)
    return named
