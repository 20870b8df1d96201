"""From a reference to a raw model: every place that may have it is asked in turn, and the answer says which did.

The ladder: a dict; a path; Ollama's store; the Hub's cache, LM Studio and llama.cpp on this machine; this program's
cache; the Hub. A step that fails is noted and the next one is asked; when all fail, the first damaged copy is
reported, else that nothing was found. A copy that holds a configuration but no headers is kept as the second best.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sizeup.errors import NetworkError, NotFound, SizeupError
from sizeup.models.sources.environment import HubSettings, ollama_folders
from sizeup.models.sources.found import Found, Step, facts_of_gguf, is_pickled
from sizeup.models.sources.gguf_choice import choose, first_parts, projectors
from sizeup.models.sources.header import StoredFile
from sizeup.models.sources.local import find_local, read_path
from sizeup.models.sources.ollama import read_ollama
from sizeup.models.sources.reference import HubName, checked, file_url, hub_name, ollama_name

if TYPE_CHECKING:
    from sizeup.models.sources.http import Client
    from sizeup.models.sources.hub import Hub, Repository

Progress = Callable[[int, int, str], None]
Rung = tuple[str, Callable[[], Found | None]]

_FILES = (".gguf", ".safetensors", ".json", ".bin", ".pt", ".pth", ".ckpt", ".pkl")


def resolve(
    reference: str | os.PathLike[str] | dict[str, Any],
    *,
    network: bool,
    headers: bool = True,
    settings: HubSettings | None = None,
    client: Client | None = None,
    progress: Progress | None = None,
) -> Found:
    """The raw model that a reference stands for.

    network: whether the Hub, or the host of a URL, may be asked. `HF_HUB_OFFLINE` has the last word.
    headers: False takes a configuration where one is found and asks for no weight headers beside it.
    settings: the Hub as the environment describes it, unless given.
    progress: called with (done, all, what) while headers are fetched.

    Raises BadInput (not a reference), NotFound (nowhere, or gated), NetworkError (unreachable, or needed while
    offline), BadFile and BadConfig (what was found is damaged).
    """
    if isinstance(reference, dict):
        return Found("dict", "dict", "a configuration given as a dict", config=reference)
    text = checked(os.fspath(reference))
    path = Path(text).expanduser()
    if isinstance(reference, os.PathLike) or _looks_like_path(text) or _exists(path):
        found = read_path(path, headers=headers)
        return msgspec.structs.replace(found, reference=text, steps=(Step(f"the path {path}", "found"),))
    settings = settings or HubSettings.from_environment()
    remote = _Remote(settings, network=network, headers=headers, client=client, progress=progress)
    rungs = list(_rungs(text, settings, remote, headers=headers))
    if not rungs:
        raise NotFound(f"no model {text[:120]!r}", hint="give org/name, an Ollama tag, a path or a catalogue name")
    return _climb(text, rungs, headers=headers)


def _rungs(text: str, settings: HubSettings, remote: _Remote, *, headers: bool) -> Iterator[Rung]:
    name = hub_name(text, settings.endpoint)
    tagged = ollama_name(text)
    if tagged is not None:
        yield f"Ollama's store ({tagged})", lambda: read_ollama(tagged, ollama_folders())
    if name is not None:
        for place, path in find_local(name):
            target = path / name.file if name.file and path.is_dir() else path
            yield place, lambda target=target: read_path(target, tag=name.tag, headers=headers)  # type: ignore[misc]
        yield f"the Hub at {settings.endpoint} ({name})", lambda: remote.repository(name)
    elif tagged is None and (url := file_url(text)):
        yield f"the address {url}", lambda: remote.file(url)


def _climb(text: str, rungs: list[Rung], *, headers: bool) -> Found:
    """Ask the places in turn until one has the model."""
    steps: list[Step] = []
    errors: list[SizeupError] = []
    second: Found | None = None
    for number, (place, ask) in enumerate(rungs, 1):
        try:
            found = ask()
        except SizeupError as error:
            steps.append(Step(place, error.message))
            errors.append(error)
            continue
        if found is None:
            steps.append(Step(place, "not there"))
            continue
        if headers and found.header is None and second is None and number < len(rungs):
            steps.append(Step(place, "a configuration, no weights"))
            second = found
            continue
        steps.append(Step(place, "found"))
        return msgspec.structs.replace(found, reference=text, steps=tuple(steps))
    if second is not None:
        return msgspec.structs.replace(second, reference=text, steps=tuple(steps))
    raise _first_that_counts(text, errors, steps)


def _first_that_counts(text: str, errors: list[SizeupError], steps: list[Step]) -> SizeupError:
    """A damaged copy before a failing network before a plain absence; the places asked go into the hint."""
    for error in errors:
        if not isinstance(error, NotFound | NetworkError):
            return error
    if errors:
        return errors[-1]
    asked = "; ".join(f"{step.place}: {step.outcome}" for step in steps)
    return NotFound(f"no model {text[:120]!r} ({asked})", hint=f"pull it with Ollama, or give org/name: {text[:60]}")


class _Remote:
    """The Hub and single files behind URLs, opened when first asked, since the HTTP modules take time to import."""

    def __init__(
        self, settings: HubSettings, *, network: bool, headers: bool, client: Client | None, progress: Progress | None
    ) -> None:
        self.settings, self.network, self.headers = settings, network, headers
        self.client, self.progress = client, progress

    def repository(self, name: HubName) -> Found:
        """A repository: GGUF when a tag or a file asks for it or there is nothing else, else safetensors."""
        from sizeup.models.sources.hub import Hub

        hub = Hub(self.settings, network=self.network, client=self.client, progress=self.progress)
        repository = hub.repository(name)
        origin = f"{self.settings.endpoint}/{repository.name} at {repository.commit[:12]}"
        base = Found(str(name), "config", origin, repository.name, repository.commit, facts=repository.facts)
        names = list(repository.files)
        weights = any((file.endswith(".safetensors") and "/" not in file) or is_pickled(file) for file in names)
        only_gguf = first_parts(names) and not weights and (self.headers or "config.json" not in names)
        if name.tag or name.file.endswith(".gguf") or only_gguf:
            return _gguf_of(hub, repository, base, name.file or choose(names, name.tag, repository.name))
        return self._checkpoint_of(hub, repository, base)

    def file(self, url: str) -> Found:
        """A single file behind a URL of any host. No token is sent."""
        from sizeup.models.sources.single import read_url

        if not self.network or self.settings.offline:
            raise NetworkError(f"{url} needs the network, which was not to be asked", hint="allow the network")
        return read_url(url, self.settings, self.client)

    def _checkpoint_of(self, hub: Hub, repository: Repository, base: Found) -> Found:
        config = hub.config(repository)
        header = hub.safetensors(repository) if self.headers or config is None else None
        if config is None and header is None:
            if repository.facts.pickled_bytes:
                raise NotFound(
                    f"{repository.name} holds pickled weights only, which are never opened, and no config",
                    hint="give a repository with safetensors or a config.json",
                )
            raise NotFound(
                f"{repository.name} holds no config.json, safetensors or GGUF file",
                hint="give a language model's repository",
            )
        kind = "config" if header is None else "safetensors"
        return msgspec.structs.replace(base, kind=kind, config=config, header=header)


def _gguf_of(hub: Hub, repository: Repository, base: Found, file: str) -> Found:
    header = hub.gguf(repository, file)
    own = facts_of_gguf(header)
    facts = msgspec.structs.replace(
        base.facts,
        licence=base.facts.licence or own.licence,
        chat_template=own.chat_template or base.facts.chat_template,
        languages=base.facts.languages or own.languages,
        base_models=base.facts.base_models or own.base_models,
    )
    companions = tuple(StoredFile(name, repository.files[name] or 0, 0) for name in projectors(list(repository.files)))
    return msgspec.structs.replace(
        base, kind="gguf", origin=f"{base.origin}, {file}", header=header, facts=facts, companions=companions
    )


def _looks_like_path(text: str) -> bool:
    if "://" in text:
        return False
    return (
        text.startswith(("/", "./", "../", "~", ".\\", "..\\"))
        or text in {".", ".."}
        or (text.lower().endswith(_FILES) and not text.startswith(("hf.co/", "huggingface.co/")))
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
