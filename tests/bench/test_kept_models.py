"""Models that other programs keep on this machine are run and measured by their names there."""

import hashlib
import json

import pytest

from sizeup.operations.bench import BenchRequest, bench
from sizeup.operations.chat import ChatRequest, chat
from sizeup.operations.serving import Wish, local_gguf, planned

TAG = "hello:0.1b"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A home of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    for name in ("HF_HOME", "HF_HUB_CACHE", "LLAMA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def tagged(folders, tiny):
    """The small model as `ollama create` keeps it: a manifest by tag, a blob by digest."""
    data = tiny.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    blob = folders / "ollama" / "blobs" / f"sha256-{digest}"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(data)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}", "size": len(data)}
    manifest = folders / "ollama" / "manifests" / "registry.ollama.ai" / "library" / "hello" / "0.1b"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": [layer]}))
    return blob


def lm_studio(folder, tiny):
    """The small model as LM Studio keeps it."""
    path = folder / "user" / ".lmstudio" / "models" / "somebody" / "hello-GGUF" / "hello-Q8_0.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(tiny.read_bytes())
    return path


def test_a_tag_of_ollama_is_its_blob(tagged):
    assert local_gguf(TAG) == local_gguf(f"ollama:{TAG}") == tagged

    served = planned(Wish(model=TAG, contexts=(512,), offline=True))
    assert (served.file, served.model.layers) == (tagged, 4)


def test_a_name_of_lm_studio_is_its_file(folders, tiny):
    kept = lm_studio(folders, tiny)
    assert local_gguf("somebody/hello-GGUF") == local_gguf("somebody/hello-GGUF:Q8_0") == kept


def test_a_damaged_blob_is_no_file(tagged):
    tagged.write_bytes(tagged.read_bytes()[:1000])
    assert local_gguf(TAG) is None


def test_names_that_nobody_keeps(folders):
    for name in (
        "hello:7b",
        "somebody/else",
        "layers=4,embedding=256,heads=4,vocabulary=512,context=4096",
        "qwen3-0.6b",
    ):
        assert local_gguf(name) is None


@pytest.mark.llamacpp
def test_a_tag_is_measured_and_talked_to(home, llamacpp, tagged):
    report = bench(BenchRequest(model=TAG, prompt="16", generate=4, repetitions=1, offline=True))
    assert report.weights == "file"
    assert report.results[0].generated == 4
    assert chat(ChatRequest(model=TAG, prompt="hello", tokens=4, temperature=0.0, context=512)).tokens > 0
