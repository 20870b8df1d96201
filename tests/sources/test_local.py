"""Folders, files and other programs' caches; Ollama's store; and the order in which they are asked."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from gguf_files import key, raw, tensor, text, write_real
from hub_server import COMMIT, FakeHub
from safetensors_files import CONFIG, model, sharded, write

from sizeup.errors import BadConfig, BadFile, BadInput, NetworkError, NotFound
from sizeup.models.sources.environment import HubSettings
from sizeup.models.sources.found import Found
from sizeup.models.sources.reference import HubName, OllamaName, hub_name, ollama_name
from sizeup.models.sources.resolve import resolve

Q4 = raw([key("general.license", 8, text("mit"))], [tensor("a", (256,), 12)], data=160)
Q8 = raw(tensors=[tensor("a", (32,), 8)], data=64)


def find(reference: object, **options: bool) -> Found:
    return resolve(reference, network=False, **options)  # type: ignore[arg-type]


def test_a_dict() -> None:
    assert (find(CONFIG).kind, find(CONFIG).config) == ("dict", CONFIG)


def test_a_folder_with_shards(tmp_path: Path) -> None:
    found = find(write(tmp_path / "m", sharded()))
    assert (found.kind, found.name, found.config, found.header.data_bytes) == ("safetensors", "m", CONFIG, 640)
    assert find(str(tmp_path / "m")).header == found.header
    assert find(tmp_path / "m", headers=False).kind == "config"
    assert find(tmp_path / "m" / "model.safetensors.index.json").header == found.header


def test_a_folder_with_the_facts_of_its_card(tmp_path: Path) -> None:
    card = b"---\nlicense: apache-2.0\nlanguage:\n- en\n- de\nbase_model: org/base\n---\n# Model\n"
    tokenizer = {"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}
    files = {"config.json": b"{}", "README.md": card, "tokenizer_config.json": json.dumps(tokenizer).encode()}
    facts = find(write(tmp_path, {**files, "pytorch_model.bin": b"12345", "training_args.bin": b"1"})).facts
    assert (facts.licence, facts.languages, facts.base_models) == ("apache-2.0", ("en", "de"), ("org/base",))
    assert (facts.chat_template, facts.pickled_bytes) == ("d", 5)


def test_damaged_facts_are_no_reason_to_fail(tmp_path: Path) -> None:
    files = {"config.json": b"{}", "README.md": b"---\n\xff\xfe", "tokenizer_config.json": b"{{{"}
    assert find(write(tmp_path, files)).facts.licence is None


def test_single_files(tmp_path: Path) -> None:
    write(tmp_path / "folder", {"config.json": json.dumps(CONFIG).encode(), "x.safetensors": model({"a": 2})})
    found = find(tmp_path / "folder" / "config.json")
    assert (found.kind, found.name, found.config) == ("config", "folder", CONFIG)
    found = find(tmp_path / "folder" / "x.safetensors")
    assert (found.kind, found.config, found.header.data_bytes) == ("safetensors", CONFIG, 8)
    found = find(write_real(tmp_path / "tiny.gguf"))
    assert (found.kind, found.name, found.facts.licence, found.facts.languages, found.facts.chat_template) == (
        "gguf", "tiny", "apache-2.0", ("en", "de"), "{{ messages }}"
    )  # fmt: skip
    (tmp_path / "org--name.json").write_text("{}")
    assert find(tmp_path / "org--name.json").name == "org/name"


def test_a_folder_with_gguf_files(tmp_path: Path) -> None:
    folder = write(tmp_path, {"m-Q8_0.gguf": Q8, "Q4_K_M/m-Q4_K_M.gguf": Q4, "mmproj-F16.gguf": Q8})
    found = find(folder)
    assert (found.header.tensors[0].dtype, [Path(c.name).name for c in found.companions]) == (
        "Q4_K",
        ["mmproj-F16.gguf"],
    )
    assert found.facts.licence == "mit"


def test_a_header_counts_more_than_a_configuration(tmp_path: Path) -> None:
    folder = write(tmp_path, {"m-Q4_K_M.gguf": Q4, "config.json": b"{}"})
    assert find(folder).kind == "gguf"
    assert find(folder, headers=False).kind == "config"
    assert find(write(tmp_path, {"pytorch_model.bin": b"x"})).kind == "config"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "m.pt", "m.pth", "m.ckpt", "pytorch_model.bin.index.json"])
def test_pickled_files_are_never_opened(tmp_path: Path, name: str) -> None:
    write(tmp_path, {name: b"\x80\x04"})
    with pytest.raises(BadFile, match="never opened"):
        find(tmp_path / name)


def test_a_folder_with_pickled_weights_only(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="never opened"):
        find(write(tmp_path, {"pytorch_model.bin": b"x"}))


@pytest.mark.parametrize(
    ("files", "kind", "words"),
    [
        ({}, NotFound, "no model in"),
        ({"config.json": b"{"}, BadFile, "not JSON"),
        ({"config.json": b'{"a":1,"a":2}'}, BadConfig, "twice"),
        ({"model.safetensors": b"x"}, BadFile, "too short"),
        ({"m.gguf": b"x"}, BadFile, "GGUF"),
        ({"model.safetensors.index.json": b"{}"}, BadFile, "weight_map"),
        ({"a.safetensors": model({"a": 1}), "b.safetensors": model({"a": 1})}, BadFile, "several files"),
    ],
)
def test_damaged_folders(tmp_path: Path, files: dict[str, bytes], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        find(write(tmp_path, files))


@pytest.mark.parametrize(
    "reference", ["./absent", "/absent/x.gguf", "~/absent", "absent.gguf", "org/absent.safetensors"]
)
def test_absent_paths(reference: str) -> None:
    with pytest.raises(NotFound, match="no file"):
        find(reference)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.parametrize("name", ["x.gguf", "x.safetensors", "config.json"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(BadFile, match="not a regular file"):
        find(tmp_path / name)


@pytest.mark.parametrize("reference", ["", "  ", "a\0b", "x" * 5000, "a\nb"])
def test_what_is_no_reference(reference: str) -> None:
    with pytest.raises(BadInput):
        find(reference)


def test_a_name_that_is_nowhere() -> None:
    with pytest.raises(NotFound, match="no model 'nothing'") as caught:
        find("nothing")
    assert caught.value.hint
    with pytest.raises(NotFound, match="no model"):
        find("what is this?")


def hub_cache(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    """A repository laid out as the Hub's cache does it: links from snapshots to blobs."""
    base = folder / f"models--{name.replace('/', '--')}"
    write(base, {"refs/main": COMMIT.encode()})
    for file, data in files.items():
        blob = base / "blobs" / hashlib.sha256(data).hexdigest()
        write(blob.parent, {blob.name: data})
        link = base / "snapshots" / COMMIT / file
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return base


@pytest.mark.parametrize("variable", ["", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "LLAMA_CACHE"])
def test_the_hubs_cache(home: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    inner = {"HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}.get(variable, "")
    if variable:
        monkeypatch.setenv(variable, str(home / "other"))
    base = hub_cache(home / "other" / inner if variable else home / ".cache/huggingface/hub", "org/name", sharded())
    before = sorted(base.rglob("*"))
    found = find("org/name")
    assert (found.kind, found.header.data_bytes, found.config) == ("safetensors", 640, CONFIG)
    assert "the Hub's cache" in found.steps[-1].place
    assert find(f"org/name@{COMMIT}").header == found.header
    assert before == sorted(base.rglob("*"))
    with pytest.raises(NetworkError):
        find("org/name@v2")


def test_lm_studio(home: Path) -> None:
    write(home / ".lmstudio/models/org/name-GGUF", {"name-Q8_0.gguf": Q8, "name-Q4_K_M.gguf": Q4})
    assert find("org/name-GGUF").header.tensors[0].dtype == "Q4_K"
    assert find("org/name-GGUF:Q8_0").header.tensors[0].dtype == "Q8_0"
    (home / ".lmstudio-home-pointer").write_text(f"{home}/moved\n")
    write(home / "moved/models/org/name-GGUF", {"name-Q6_K.gguf": Q8})
    assert "moved" in find("org/name-GGUF").origin


def test_llama_cpps_old_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / ".cache/llama.cpp", {"org_name-GGUF_name-Q4_K_M.gguf": Q4, "org_name-GGUF_name-Q8_0.gguf": Q8})
    monkeypatch.setattr("sys.platform", "linux")
    assert find("org/name-GGUF:q8_0").header.tensors[0].dtype == "Q8_0"


def test_a_damaged_copy_is_passed_over_for_a_whole_one(home: Path) -> None:
    hub_cache(home / ".cache/huggingface/hub", "org/g", {"g-Q4_K_M.gguf": Q4[:-100]})
    with pytest.raises(BadFile, match="incomplete"):
        find("org/g")
    write(home / ".lmstudio/models/org/g", {"g-Q4_K_M.gguf": Q4})
    found = find("org/g")
    assert ["incomplete" in step.outcome for step in found.steps if "cache" in step.place] == [True]
    assert "LM Studio" in found.steps[-1].place


def test_a_configuration_is_kept_while_headers_are_looked_for(home: Path, hub: FakeHub, settings: HubSettings) -> None:
    hub_cache(home / ".cache/huggingface/hub", "org/name", {"config.json": json.dumps(CONFIG).encode()})
    found = find("org/name")
    assert (found.kind, found.config) == ("config", CONFIG)
    assert "not to be asked" in found.steps[-1].outcome
    hub.repositories["org/name"] = sharded()
    assert resolve("org/name", network=True, settings=settings).kind == "safetensors"


LAYER = "application/vnd.ollama.image."


def ollama(store: Path, name: str, layers: dict[str, bytes], folder: str = "manifests") -> Path:
    """A model in Ollama's store."""
    entries = []
    for kind, data in layers.items():
        digest = hashlib.sha256(data).hexdigest()
        write(store / "blobs", {f"sha256-{digest}": data})
        entries.append({"mediaType": LAYER + kind, "digest": f"sha256:{digest}", "size": len(data)})
    manifest = store / folder / name
    write(manifest.parent, {manifest.name: json.dumps({"schemaVersion": 2, "layers": entries}).encode()})
    return manifest


@pytest.mark.parametrize(
    ("reference", "stored"),
    [
        ("llama3.1:8b", "registry.ollama.ai/library/llama3.1/8b"),
        ("llama3.1", "registry.ollama.ai/library/llama3.1/latest"),
        ("ollama:llama3.1:8B", "registry.ollama.ai/library/llama3.1/8b"),
        ("user/model:tag", "registry.ollama.ai/user/model/tag"),
        ("hf.co/org/name:Q4_K_M", "hf.co/org/name/Q4_K_M"),
        ("hf.co/org/name:q4_k_m", "hf.co/org/name/Q4_K_M"),
        ("localhost:5000/team/model:1", "localhost:5000/team/model/1"),
    ],
)
def test_an_ollama_tag(home: Path, reference: str, stored: str) -> None:
    layers = {"model": Q4, "projector": Q8, "template": b"{{ .Prompt }}", "license": b"\nMIT License\nmore"}
    ollama(home / ".ollama/models", stored, layers)
    found = find(reference)
    assert (found.kind, found.header.tensors[0].dtype) == ("ollama", "Q4_K")
    assert [file.nbytes for file in found.companions] == [len(Q8)]
    assert (found.facts.chat_template, found.facts.licence) == ("{{ .Prompt }}", "mit")


def test_ollamas_second_layout(home: Path) -> None:
    ollama(home / ".ollama/models", "ollama.com/library/m/latest", {"model": Q4}, "manifests-v2")
    assert find("m").kind == "ollama"


def test_ollama_models_names_the_only_store(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ollama(home / ".ollama/models", "registry.ollama.ai/library/m/latest", {"model": Q4})
    monkeypatch.setenv("OLLAMA_MODELS", str(home / "store"))
    with pytest.raises(NotFound):
        find("m")
    ollama(home / "store", "registry.ollama.ai/library/m/latest", {"model": Q8, "license": b"Llama Licence\n"})
    assert find("m").header.tensors[0].dtype == "Q8_0"
    assert find("m").facts.licence == "Llama Licence"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data["layers"][0].update(digest="sha256:../../../etc/passwd"), "not a sha256 digest"),
        (lambda data: data["layers"][0].update(digest="sha256:" + "0" * 64), "is missing"),
        (lambda data: data["layers"][0].update(size=10**12), "bytes long"),
        (lambda data: data["layers"][0].update(size="5"), "without mediaType, digest or size"),
        (lambda data: data["layers"][0].update(mediaType=LAYER + "tensor"), "no GGUF model"),
        (lambda data: data["layers"].insert(0, 5), "without mediaType, digest or size"),
        (lambda data: data.update(layers=None), "no list of layers"),
    ],
)
def test_a_hostile_manifest(home: Path, change, words: str) -> None:
    manifest = ollama(home / ".ollama/models", "registry.ollama.ai/library/m/latest", {"model": Q4})
    data = json.loads(manifest.read_text())
    change(data)
    manifest.write_text(json.dumps(data))
    with pytest.raises(BadFile, match=words) as caught:
        find("m")
    assert caught.value.hint


def test_a_manifest_that_is_no_json(home: Path) -> None:
    ollama(home / ".ollama/models", "registry.ollama.ai/library/m/latest", {"model": Q4}).write_bytes(b"\xff")
    with pytest.raises(BadFile, match="not JSON"):
        find("m")


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("org/name", HubName("org/name")),
        ("org/name@v1.0", HubName("org/name", "v1.0")),
        ("org/name@refs/pr/3", HubName("org/name", "refs/pr/3")),
        ("org/name:Q4_K_M", HubName("org/name", tag="Q4_K_M")),
        ("org/name@v1:Q8_0", HubName("org/name", "v1", "Q8_0")),
        ("hf.co/org/name", HubName("org/name")),
        ("hf://org/name", HubName("org/name")),
        ("https://huggingface.co/org/name/", HubName("org/name")),
        ("https://huggingface.co/gpt2", HubName("gpt2")),
        ("https://huggingface.co/org/name/blob/v1/a/b.gguf", HubName("org/name", "v1", file="a/b.gguf")),
        ("https://huggingface.co/org/name/tree/main", HubName("org/name")),
        ("http://mirror.local:8/org/name", HubName("org/name")),
        ("llama3", None), ("a/b/c", None), ("../etc", None), ("org/../name", None), ("org/na me", None), ("/a/b", None),
    ],
)  # fmt: skip
def test_hub_names(reference: str, expected: HubName | None) -> None:
    assert hub_name(reference, "http://mirror.local:8") == expected


@pytest.mark.parametrize("reference", ["org/name@../../x", "org/name@a//b", "org/name@/x",
                                       "https://huggingface.co/org/name/blob/main/../../x.gguf"])  # fmt: skip
def test_references_that_lead_astray(reference: str) -> None:
    with pytest.raises(BadInput):
        hub_name(reference)


def test_ollama_names() -> None:
    assert ollama_name("llama3.1:8b") == OllamaName("registry.ollama.ai", "library", "llama3.1", "8b")
    assert ollama_name("https://ollama.com/library/m") == OllamaName("registry.ollama.ai", "library", "m", "latest")
    assert str(ollama_name("m")) == "registry.ollama.ai/library/m:latest"
    for reference in ("a/b/c/d", "..", "a/../b", "m:..", "m:a:b", "https://x.y/z"):
        assert ollama_name(reference) is None
