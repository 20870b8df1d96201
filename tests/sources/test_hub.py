"""The Hub: what is asked, what is kept, who gets the token, and every way a server can fail."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from gguf_files import large_vocabulary, raw, tensor
from hub_server import COMMIT, FakeHub
from safetensors_files import CONFIG, model, sharded

from sizeup.errors import BadConfig, BadFile, BadInput, NetworkError, NotFound, SizeupError
from sizeup.models.sources.environment import HubSettings
from sizeup.models.sources.found import Found
from sizeup.models.sources.http import Client
from sizeup.models.sources.resolve import resolve


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def ask(hub: FakeHub, settings: HubSettings, pauses: list[float]):
    """Resolve against the fake Hub, without really sleeping."""

    def resolve_there(reference: str, *, network: bool = True, timeout: float = 5.0, **options: object) -> Found:
        client = Client(timeout_seconds=timeout, deadline_seconds=1.0, sleep=pauses.append)
        current = HubSettings.from_environment()
        return resolve(reference, network=network, settings=current, client=client, **options)

    return resolve_there


def test_a_sharded_repository(hub: FakeHub, ask) -> None:
    hub.repositories["org/name"] = sharded()
    hub.facts["org/name"] = {
        "tags": ["text-generation", "license:apache-2.0"], "cardData": {"language": ["en"], "base_model": "org/base"},
        "config": {"tokenizer_config": {"chat_template": "{{ x }}"}}, "gated": False, "createdAt": "2026-01-02T00:00:00Z",
    }  # fmt: skip
    seen: list[tuple[int, int, str]] = []
    found = ask("org/name", progress=lambda *step: seen.append(step))

    assert (found.kind, found.name, found.revision, found.config) == ("safetensors", "org/name", COMMIT, CONFIG)
    assert found.header.data_bytes == 640
    assert (found.facts.licence, found.facts.languages, found.facts.base_models) == (
        "apache-2.0",
        ("en",),
        ("org/base",),
    )
    assert found.facts.chat_template == "{{ x }}"
    assert found.facts.created == "2026-01-02T00:00:00Z"
    assert [step[:2] for step in seen] == [(1, 2), (2, 2)]
    assert found.steps[-1].outcome == "found"


def test_the_second_time_costs_one_request_and_offline_none(hub: FakeHub, ask) -> None:
    hub.repositories["org/name"] = sharded()
    first = ask("org/name")
    hub.requests.clear()
    assert ask("org/name").header == first.header
    assert hub.paths() == ["/api/models/org/name/revision/main"]
    hub.requests.clear()
    again = ask("org/name", network=False)
    assert (again.header, again.config, again.facts) == (first.header, first.config, first.facts)
    assert ask(f"org/name@{COMMIT}", network=True).header == first.header
    assert hub.requests == []


def test_the_cache_answers_when_the_hub_fails(hub: FakeHub, ask) -> None:
    hub.repositories["org/name"] = sharded()
    ask("org/name")
    hub.faults["/main"] = [503]
    assert ask("org/name").header.data_bytes == 640


def test_a_damaged_cache_is_asked_anew(hub: FakeHub, ask, home: Path) -> None:
    hub.repositories["org/name"] = sharded()
    first = ask("org/name")
    files = [path for path in (home / "sizeup" / "cache").rglob("*") if path.is_file()]
    assert any(path.name.endswith(".header") for path in files)
    assert not any(path.name.startswith(".new-") for path in files)
    for path in files:
        path.write_bytes(b"\xc1garbage")
    assert ask("org/name").header == first.header


def test_headers_are_read_and_weights_are_not(hub: FakeHub, ask) -> None:
    hub.repositories["org/name"] = {"model.safetensors": model({"a": 5_000_000}), "config.json": b"{}"}
    found = ask("org/name")
    assert found.header.file_bytes > 20_000_000
    assert hub.sent < 300_000


def test_headers_longer_than_the_first_request(hub: FakeHub, ask) -> None:
    hub.repositories["org/name"] = {"model.safetensors": model({f"layers.{n}.weight": 1 for n in range(5000)})}
    assert len(ask("org/name").header.tensors) == 5000
    assert len([path for path in hub.paths() if path.endswith("model.safetensors")]) == 2


def test_a_configuration_alone_when_headers_are_not_wanted(hub: FakeHub, ask) -> None:
    hub.repositories["org/name"] = sharded()
    found = ask("org/name", headers=False)
    assert (found.kind, found.header) == ("config", None)
    assert not [path for path in hub.paths() if path.endswith(".safetensors")]


GGUF_FILES = {
    "name-Q8_0.gguf": raw(tensors=[tensor("a", (32,), 8)], data=64),
    "name-Q4_K_M.gguf": raw(tensors=[tensor("a", (256,), 12)], data=160),
    "name-UD-Q4_K_XL.gguf": raw(tensors=[tensor("b", (256,), 12)], data=160),
    "name-IQ4_XS.gguf": raw(tensors=[tensor("a", (256,), 23)], data=160),
    "mmproj-F16.gguf": raw(tensors=[tensor("v", (32,), 1)], data=64),
}


@pytest.mark.parametrize(
    ("reference", "dtype"),
    [("org/g", "Q4_K"), ("org/g:Q8_0", "Q8_0"), ("org/g:q8_0", "Q8_0"), ("hf.co/org/g:IQ4_XS", "IQ4_XS"),
     ("org/g@main:Q8_0", "Q8_0"), ("org/g@v1:Q4_K_M", "Q4_K"), ("org/g:latest", "Q4_K")],
)  # fmt: skip
def test_a_gguf_repository(hub: FakeHub, ask, reference: str, dtype: str) -> None:
    hub.repositories["org/g"] = GGUF_FILES
    found = ask(reference)
    assert (found.kind, found.header.tensors[0].dtype) == ("gguf", dtype)
    assert [file.name for file in found.companions] == ["mmproj-F16.gguf"]


def test_a_header_counts_more_than_a_configuration(hub: FakeHub, ask) -> None:
    hub.repositories["org/g"] = {**GGUF_FILES, "config.json": b"{}"}
    assert ask("org/g").kind == "gguf"
    assert ask("org/g", headers=False).kind == "config"


def test_an_unknown_tag_names_the_known_ones(hub: FakeHub, ask) -> None:
    hub.repositories["org/g"] = GGUF_FILES
    with pytest.raises(NotFound, match="no GGUF file Q5_K_M") as caught:
        ask("org/g:Q5_K_M")
    assert caught.value.hint == "it has IQ4_XS, Q4_K_M, Q8_0, UD-Q4_K_XL"


def test_a_gguf_header_of_eight_megabytes_by_growing_ranges(hub: FakeHub, ask) -> None:
    whole = large_vocabulary() + bytes(30_000_000)
    hub.repositories["org/g"] = {"g-Q4_K_M.gguf": whole}
    found = ask("org/g")
    assert found.header.length("tokenizer.ggml.tokens") == 128_256
    assert found.header.file_bytes == len(whole)
    assert len(hub.paths()) <= 6
    assert hub.sent < 17_000_000


def test_urls(hub: FakeHub, ask) -> None:
    hub.repositories["org/g"] = GGUF_FILES
    hub.repositories["org/name"] = sharded()
    assert ask(f"{hub.url}/org/g/resolve/main/name-Q8_0.gguf").header.tensors[0].dtype == "Q8_0"
    assert ask(f"{hub.url}/org/g/blob/{COMMIT}/name-Q8_0.gguf?download=true").kind == "gguf"
    assert ask(f"{hub.url}/org/name").kind == "safetensors"
    assert ask(f"{hub.url}/org/name/tree/main").kind == "safetensors"
    with pytest.raises(BadInput, match="names no model"):
        ask(f"{hub.url}/org/name/settings/x")


def test_a_file_behind_a_url_of_another_host(hub: FakeHub, ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.repositories["any/where"] = {**GGUF_FILES, "m.safetensors": model({"a": 3}), "config.json": b'{"a": 1}'}
    base = f"{hub.cdn_url}/any/where/resolve/x"
    assert ask(f"{base}/name-Q8_0.gguf?a=b").header.tensors[0].dtype == "Q8_0"
    assert ask(f"{base}/m.safetensors").header.data_bytes == 12
    assert ask(f"{base}/config.json").config == {"a": 1}
    with pytest.raises(NotFound, match="404"):
        ask(f"{base}/absent.gguf")
    with pytest.raises(BadInput, match="not the address of a model"):
        ask(f"{hub.cdn_url}/page")
    with pytest.raises(NetworkError, match="not to be asked"):
        ask(f"{base}/m.safetensors", network=False)
    assert not any("Authorization" in headers for _, headers, _ in hub.requests)


def test_the_token_goes_to_the_hub_and_nowhere_else(hub: FakeHub, ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.repositories["org/name"] = sharded()
    hub.cdn = True
    assert ask("org/name").header.data_bytes == 640
    assert {headers.get("Authorization") for _, headers, role in hub.requests if role == "hub"} == {"Bearer hf_secret"}
    served = [headers for _, headers, role in hub.requests if role == "cdn"]
    assert served
    assert not any("Authorization" in headers for headers in served)
    assert all("Range" in headers for headers in served[-1:])


@pytest.mark.parametrize("where", ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HOME", "default"])
def test_where_the_token_comes_from(home: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    folder = {"HF_HOME": home / "elsewhere", "default": home / ".cache" / "huggingface"}.get(where, home)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token").write_text(" hf_secret\n")
    values = {"HF_TOKEN": "hf_secret\n", "HF_TOKEN_PATH": str(folder / "token"), "HF_HOME": str(folder)}
    if where in values:
        monkeypatch.setenv(where, values[where])
    assert HubSettings.from_environment().token == "hf_secret"
    if where != "HF_TOKEN":
        monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
        assert HubSettings.from_environment().token == ""


def test_a_token_that_cannot_be_sent_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_sec\nret: x")
    with pytest.raises(BadInput, match="HF_TOKEN") as caught:
        HubSettings.from_environment()
    assert "sec" not in str(caught.value)


def test_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    assert HubSettings.from_environment().user_agent.startswith("sizeup/")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    assert HubSettings.from_environment().user_agent == "sizeup"


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_has_the_last_word(hub: FakeHub, ask, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    hub.repositories["org/name"] = sharded()
    monkeypatch.setenv(name, "1")
    with pytest.raises(NetworkError, match="offline") as caught:
        ask("org/name")
    assert "unset" in caught.value.hint
    assert hub.requests == []


def test_no_network_unless_asked(hub: FakeHub, ask) -> None:
    hub.repositories["org/name"] = sharded()
    with pytest.raises(NetworkError, match="not to be asked") as caught:
        ask("org/name", network=False)
    assert caught.value.hint
    assert caught.value.exit_code == 5
    assert hub.requests == []


FILE = "model-00001-of-00002.safetensors"
GATED = (403, {"X-Error-Code": "GatedRepo"})
FAILURES = {
    "missing repository": ("org/absent", {}, NotFound, "no model org/absent"),
    "missing revision": ("org/name@nope", {}, NotFound, "no such revision"),
    "404": ("org/name", {"/main": [404]}, NotFound, "no model"),
    "gated": ("org/name", {"config.json": [GATED]}, NotFound, "gated; the Hub counts 123,456 parameters"),
    "gated weights": ("org/name", {FILE: [(401, {"X-Error-Code": "GatedRepo"})]}, NotFound, "is gated"),
    "a refused token": ("org/name", {"/main": [(401, {"X-Error-Message": "Invalid credentials"})]}, NotFound,
                        "access refused .401: Invalid credentials"),
    "500 for ever": ("org/name", {"/main": [500]}, NetworkError, "answered 500 .4 attempts"),
    "418": ("org/name", {"/main": [418]}, NetworkError, "answered 418"),
    "429 for an hour": ("org/name", {"/main": [(429, {"Retry-After": "3600"})]}, NetworkError, "answered 429$"),
    "reset for ever": ("org/name", {"/main": ["reset"]}, NetworkError, "broke the connection"),
    "a page instead of facts": ("org/name", {"/main": ["html"]}, NetworkError, "sent text/html"),
    "a page instead of a config": ("org/name", {"config.json": ["html"]}, NetworkError, "a web page"),
    "a page instead of weights": ("org/name", {FILE: ["html"]}, NetworkError, "a web page"),
    "a list instead of facts": ("org/name", {"/main": [(200, {"Content-Type": "application/json"})]}, NetworkError,
                                "sent application/json instead"),
    "dripping": ("org/name", {"config.json": ["drip"]}, NetworkError, "too slowly"),
    "half a download": ("org/name", {FILE: ["short"]}, NetworkError, r"sent \d+ of \d+ bytes"),
    "half a config": ("org/name", {"config.json": ["short"]}, NetworkError, r"sent \d+ of \d+ bytes"),
    "another range": ("org/name", {FILE: ["evil-range"]}, NetworkError, "when asked for byte 0"),
    "a redirect loop": ("org/name", {"config.json": ["loop"]}, NetworkError, "redirects more than 8 times"),
    "a redirect to a file": ("org/name", {"config.json": [(302, {"Location": "file:///etc/passwd"})]}, NetworkError,
                             "redirects to 'file:"),
    "a redirect to nowhere": ("org/name", {"config.json": [(302, {"Location": "http://[::bad/"})]}, NetworkError,
                              "redirects to"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILURES)
def test_failures_are_said_with_a_hint(hub: FakeHub, ask, case: str) -> None:
    reference, faults, kind, words = FAILURES[case]
    hub.repositories["org/name"] = sharded()
    hub.facts["org/name"] = {"safetensors": {"total": 123_456}}
    hub.faults = dict(faults)
    with pytest.raises(kind, match=words) as caught:
        ask(reference)
    assert caught.value.hint
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_the_gated_hint_names_the_page_and_the_token(hub: FakeHub, ask) -> None:
    hub.repositories["org/name"] = sharded()
    hub.faults["config.json"] = [GATED]
    with pytest.raises(NotFound) as caught:
        ask("org/name")
    assert caught.value.hint == f"accept its licence at {hub.url}/org/name, and set HF_TOKEN"
    assert caught.value.exit_code == 4


def test_a_silent_server(hub: FakeHub, ask, pauses: list[float]) -> None:
    hub.repositories["org/name"] = sharded()
    hub.faults["/main"] = ["silent"]
    with pytest.raises(NetworkError, match=r"did not answer within 0.1 s .4 attempts"):
        ask("org/name", timeout=0.1)
    assert len(pauses) == 3


def test_passing_failures_are_ridden_out(hub: FakeHub, ask, pauses: list[float]) -> None:
    hub.repositories["org/name"] = sharded()
    hub.faults = {
        "/main": [503, "reset", (429, {"Retry-After": "3"}), "fine"],
        FILE: ["short", "fine"],
    }
    assert ask("org/name").header.data_bytes == 640
    assert 3 <= max(pauses) < 4
    assert len(pauses) == 4


def test_a_server_that_ignores_ranges_costs_no_more_than_the_header(hub: FakeHub, ask) -> None:
    hub.repositories["org/name"] = {"model.safetensors": model({"a": 20_000_000})}
    hub.faults["model.safetensors"] = ["no-range"]
    assert ask("org/name").header.data_bytes == 80_000_000
    assert hub.sent < 10_000_000


def test_a_server_that_ignores_later_ranges_is_refused(hub: FakeHub, ask) -> None:
    hub.repositories["org/name"] = {"model.safetensors": model({f"layers.{n}.weight": 1 for n in range(5000)})}
    hub.faults["model.safetensors"] = ["fine", "no-range"]
    with pytest.raises(NetworkError, match="ignores Range"):
        ask("org/name")


def test_an_unreachable_host(ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(NetworkError, match=r"127.0.0.1:9"):
        ask("org/name")


@pytest.mark.parametrize("endpoint", ["file:///etc", "ftp://x", "huggingface.co", "http://", "http://a b"])
def test_an_endpoint_that_is_no_address(ask, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(BadInput, match="not an http address"):
        ask("org/name")


def test_pickled_weights_are_never_opened(hub: FakeHub, ask) -> None:
    hub.repositories["org/name"] = {"pytorch_model.bin": b"\x80\x04pickle", "config.json": json.dumps(CONFIG).encode()}
    found = ask("org/name")
    assert (found.kind, found.header, found.facts.pickled_bytes) == ("config", None, 8)
    assert not [path for path in hub.paths() if path.endswith(".bin")]
    del hub.repositories["org/name"]["config.json"]
    with pytest.raises(NotFound, match="pickled weights only"):
        ask("org/name@v1")


def test_a_repository_of_something_else(hub: FakeHub, ask) -> None:
    hub.repositories["org/name"] = {"README.md": b"hello"}
    with pytest.raises(NotFound, match=r"no config\.json, safetensors or GGUF"):
        ask("org/name")


def test_damaged_files(hub: FakeHub, ask) -> None:
    hub.repositories["org/a"] = {"config.json": b"[1]"}
    hub.repositories["org/b"] = {"config.json": b'{"a": 1, "a": 2}'}
    hub.repositories["org/c"] = {"model.safetensors": b"\xff" * 100}
    hub.repositories["org/d"] = {"d.gguf": b"GGUF" + b"\xff" * 100}
    for name, kind in (("a", BadFile), ("b", BadConfig), ("c", BadFile), ("d", BadFile)):
        with pytest.raises(kind):
            ask(f"org/{name}")


def test_an_incomplete_upload(hub: FakeHub, ask) -> None:
    files = sharded()
    del files[FILE]
    hub.repositories["org/name"] = files
    with pytest.raises(BadFile, match="lacks model-00001-of-00002"):
        ask("org/name")
    hub.repositories["org/g"] = {"g-Q4_K_M-00001-of-00002.gguf": raw()}
    with pytest.raises(NotFound, match="g-Q4_K_M-00002-of-00002"):
        ask("org/g")


@pytest.mark.parametrize(
    "siblings", [None, 5, [1, {"rfilename": 5}, {"x": 1}], [{"rfilename": "config.json", "size": "x"}]]
)
def test_odd_facts(hub: FakeHub, ask, siblings: object) -> None:
    hub.repositories["org/name"] = {"config.json": b"{}"}
    hub.facts["org/name"] = {
        "siblings": siblings, "gated": {"a": []}, "cardData": [], "config": 7, "tags": {"a": 1}, "sha": 9, "id": None
    }  # fmt: skip
    with contextlib.suppress(SizeupError):
        ask("org/name")


@pytest.mark.parametrize("claimed", ["..", "../..", "/etc", "a/../b", "", "new/name"])
def test_a_name_that_leads_out_of_the_cache(hub: FakeHub, ask, home: Path, claimed: str) -> None:
    for name in ("org/name", "new/name"):
        hub.repositories[name] = {"config.json": b"{}"}
    hub.facts["org/name"] = {"id": claimed}
    assert ask("org/name").name == ("new/name" if claimed == "new/name" else "org/name")
    (host,) = (home / "sizeup" / "cache" / "hub").iterdir()
    assert {path.name for path in host.iterdir()} <= {"org--name", "new--name"}


def test_a_read_only_cache_is_done_without(hub: FakeHub, ask, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("SIZEUP_HOME", str(home / "file"))
    hub.repositories["org/name"] = sharded()
    assert ask("org/name").header.data_bytes == 640
    assert ask("org/name").header.data_bytes == 640
