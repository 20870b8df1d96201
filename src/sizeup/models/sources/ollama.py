"""Models in Ollama's store: a manifest names blobs by digest, and the model blob is a GGUF file. No daemon needed.

The store holds `manifests/<host>/<namespace>/<model>/<tag>`, JSON whose layers have mediaType, digest and size, and
`blobs/sha256-<digest>`. Ollama's second layout (github.com/ollama/ollama/pull/15735, open in April 2026) names the
folder `manifest-v2` and the default host `ollama.com`, and makes the tag a link to, or a copy of, the same JSON; it is
looked for under both spellings that have been seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from sizeup.errors import BadFile, NotFound
from sizeup.models.config import MAX_CONFIG_BYTES, parse_config
from sizeup.models.sources import gguf
from sizeup.models.sources.found import Facts, Found, facts_of_gguf
from sizeup.models.sources.header import StoredFile
from sizeup.models.sources.reference import REGISTRY, OllamaName

MAX_TEXT = 2**20
MAX_LAYERS = 10_000
MANIFEST_FOLDERS = ("manifests", "manifests-v2", "manifest-v2")
NEW_REGISTRY = "ollama.com"
_MEDIA = "application/vnd.ollama.image."


class Layer(msgspec.Struct, frozen=True):
    """One blob of a manifest: what it is (`model`, `projector`, `template`, `params`, `license` …), where, how long."""

    kind: str
    path: Path
    nbytes: int


def find_manifest(name: OllamaName, folders: Sequence[Path]) -> tuple[Path, Path] | None:
    """(manifest, store) of a model in the first store that has it; a tag matches in any case, as Ollama matches it."""
    hosts = (name.host, NEW_REGISTRY) if name.host == REGISTRY else (name.host,)
    for store in folders:
        for folder in MANIFEST_FOLDERS:
            for host in hosts:
                path = _tag(store / folder / host / name.namespace / name.model, name.tag)
                if path is not None:
                    return path, store
    return None


def _tag(model: Path, tag: str) -> Path | None:
    try:
        if (model / tag).is_file():
            return model / tag
        entries = sorted(model.iterdir()) if model.is_dir() else []
        return next((entry for entry in entries if entry.name.lower() == tag.lower() and entry.is_file()), None)
    except OSError:
        return None


def read_ollama(name: OllamaName, folders: Sequence[Path]) -> Found | None:
    """The model of that name; None when no store has it.

    Raises BadFile for a damaged manifest or a blob that is missing or cut short, and when the model is not a GGUF.
    """
    place = find_manifest(name, folders)
    if place is None:
        return None
    manifest, store = place
    layers = read_layers(manifest, store)
    models = [layer for layer in layers if layer.kind == "model"]
    if not models:
        kinds = ", ".join(sorted({layer.kind for layer in layers})) or "nothing"
        raise BadFile(
            f"{name} has no GGUF model in {store}, only {kinds}",
            hint="a cloud model or another format: give its Hub id instead",
        )
    header = gguf.merge_parts([gguf.read_gguf_path(layer.path) for layer in models])
    facts = facts_of_gguf(header)
    return Found(
        reference=str(name),
        kind="ollama",
        origin=f"Ollama's store {store}",
        name=f"{name.model}:{name.tag}",
        header=header,
        facts=_with_layers(facts, layers),
        companions=tuple(
            StoredFile(str(layer.path), layer.nbytes, 0) for layer in layers if layer.kind in {"projector", "adapter"}
        ),
    )


def read_layers(manifest: Path, store: Path) -> list[Layer]:
    """The layers of a manifest, each blob checked to be there in full. Raises BadFile."""
    try:
        with manifest.open("rb") as file:
            raw = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise NotFound(f"cannot read {manifest}: {error.strerror}", hint="check its rights") from None
    return parse_layers(raw, manifest, store)


def parse_layers(raw: bytes, manifest: Path, store: Path) -> list[Layer]:
    """The layers of a manifest's JSON; as `read_layers`."""
    layers = parse_config(raw, str(manifest)).get("layers")
    if not isinstance(layers, list) or len(layers) > MAX_LAYERS:
        raise BadFile(f"{manifest} has no list of layers", hint="pull the model again")
    return [_layer(layer, manifest, store) for layer in layers]


def _layer(layer: Any, manifest: Path, store: Path) -> Layer:
    fields = layer if isinstance(layer, dict) else {}
    media, digest, size = fields.get("mediaType"), fields.get("digest"), fields.get("size")
    if not isinstance(media, str) or not isinstance(digest, str) or isinstance(size, bool) or not isinstance(size, int):
        raise BadFile(f"{manifest} has a layer without mediaType, digest or size", hint="pull the model again")
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or any(character not in "0123456789abcdef" for character in value):
        raise BadFile(f"{manifest} names the blob {digest[:80]!r}, not a sha256 digest", hint="pull the model again")
    path = store / "blobs" / f"sha256-{value}"
    try:
        actual = path.stat().st_size
    except OSError:
        raise BadFile(f"{path} is missing, which {manifest} names", hint="pull the model again") from None
    if actual != size:
        raise BadFile(f"{path} is {actual:,} bytes long, and {manifest} says {size:,}", hint="pull the model again")
    return Layer(media.removeprefix(_MEDIA), path, size)


def _with_layers(facts: Facts, layers: Sequence[Layer]) -> Facts:
    """The facts, with Ollama's own template in place of the GGUF's, and its licence where the GGUF names none."""
    template, licence = _text(layers, "template"), _text(layers, "license")
    return msgspec.structs.replace(
        facts,
        chat_template=template or facts.chat_template,
        licence=facts.licence or (licence.strip().splitlines()[0].strip() if licence.strip() else None),
    )


def _text(layers: Sequence[Layer], kind: str) -> str:
    """The text of the first layer of a kind; empty when there is none or it can't be read."""
    for layer in layers:
        if layer.kind == kind and layer.nbytes <= MAX_TEXT:
            try:
                return layer.path.read_text(errors="replace")
            except OSError:
                return ""
    return ""
