"""What a model reference means: a Hub name with revision or GGUF tag, a URL, an Ollama name."""

from __future__ import annotations

import re

import msgspec

from sizeup.errors import BadInput

HUB_HOSTS = frozenset({"hf.co", "huggingface.co", "www.huggingface.co", "hf-mirror.com"})
MAX_REFERENCE = 2048
REGISTRY = "registry.ollama.ai"
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,254}")


class HubName(msgspec.Struct, frozen=True):
    """A repository at the Hub.

    revision: a branch, a tag or a commit; `main` when none was given.
    tag: the quantization of a GGUF repository, as llama.cpp writes it: `org/name:Q4_K_M`.
    file: one file of the repository, when a URL named it.
    """

    repository: str
    revision: str = "main"
    tag: str = ""
    file: str = ""

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"{self.repository}{revision}{':' if self.tag else ''}{self.tag}{'/' if self.file else ''}{self.file}"


class OllamaName(msgspec.Struct, frozen=True):
    """A model in Ollama's store: registry, namespace (one part or two), model, tag."""

    host: str
    namespace: str
    model: str
    tag: str

    def __str__(self) -> str:
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"


def hub_name(reference: str, endpoint: str = "") -> HubName | None:
    """`org/name`, `org/name@revision`, `org/name:TAG`; also after `hf.co/`, `https://huggingface.co/` or the endpoint.

    None when the reference is not a Hub name. Raises BadInput for a URL at the Hub that names no model.
    """
    text = checked(reference)
    rest = _after_hub_host(text, endpoint)
    if rest is not None and (found := _from_path(rest)):
        return found
    if rest is not None and "://" in text:
        raise BadInput(f"{text!r} names no model", hint="write org/name or https://huggingface.co/org/name")
    return _from_name(text if rest is None else rest)


def file_url(reference: str) -> str | None:
    """The reference, when it is the http address of a file this program reads; else None."""
    path = reference.split("?", 1)[0].split("#", 1)[0].lower()
    if not path.startswith(("http://", "https://")):
        return None
    if not path.endswith((".gguf", ".safetensors", ".json")):
        raise BadInput(
            f"{reference[:120]!r} is not the address of a model",
            hint="give org/name, or the address of a .gguf, a .safetensors or a config.json",
        )
    return reference


def ollama_name(reference: str) -> OllamaName | None:
    """`llama3.1:8b`, `user/model`, `hf.co/org/name:Q4_K_M`, `host/namespace/model:tag`; also after `ollama:`.

    None when the reference can't be an Ollama name.
    """
    text = checked(reference).removeprefix("ollama:").removeprefix("https://ollama.com/").removeprefix("ollama.com/")
    found = re.fullmatch(rf"((?:{_PART}(?::\d{{1,5}})?/)?(?:{_PART}/)?)({_PART})(?::({_PART}))?", text)
    if not found:
        return None
    parts = found[1].rstrip("/").split("/") if found[1] else []
    if len(parts) == 2:
        host, namespace = parts
    else:
        host, namespace = REGISTRY, (parts[0] if parts else "library")
    return None if ":" in namespace else OllamaName(host, namespace, found[2], found[3] or "latest")


def checked(reference: str) -> str:
    """The reference without spaces around it. Raises BadInput when it can't be a name, a path or a URL."""
    text = reference.strip()
    if not text or len(text) > MAX_REFERENCE or any(character < " " for character in text):
        raise BadInput(f"not a model reference: {text[:80]!r}", hint="give org/name, a path or a catalogue name")
    return text


def _after_hub_host(text: str, endpoint: str) -> str | None:
    """What follows the Hub's host in a URL or in `hf.co/…`; None when there is no Hub host."""
    if endpoint and text.startswith(f"{endpoint}/"):
        return text[len(endpoint) + 1 :]
    host, slash, rest = text.removeprefix("https://").removeprefix("http://").partition("/")
    if slash and host.lower() in HUB_HOSTS:
        return rest
    return text.removeprefix("hf://") if text.startswith("hf://") else None


def _from_path(rest: str) -> HubName | None:
    """`org/name/resolve/main/model.gguf` and its like: the path of the Hub's own URLs."""
    path = rest.split("?", 1)[0].split("#", 1)[0].strip("/")
    found = re.fullmatch(rf"({_PART}/{_PART})/(?:resolve|blob|tree|raw)/([^/]+)(?:/(.+))?", path)
    if not found:
        return HubName(path) if re.fullmatch(_PART, path) else _from_name(path)
    file = found[3] or ""
    if not _REVISION.fullmatch(found[2]) or ".." in found[2] or ".." in file.split("/"):
        return None
    return HubName(found[1], found[2], file=file if file.endswith((".gguf", ".safetensors", ".json")) else "")


def _from_name(text: str) -> HubName | None:
    found = re.fullmatch(rf"({_PART}/{_PART})(?:@([^:@]+))?(?::({_PART}))?", text)
    if not found or ".." in found[1] or found[1].endswith((".gguf", ".safetensors", ".json")):
        return None
    revision = found[2] or "main"
    if not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision or revision.endswith("/"):
        raise BadInput(f"not a revision: {revision[:80]!r}", hint="give a branch, a tag or a commit")
    return HubName(found[1], revision, found[3] or "")
