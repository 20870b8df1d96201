"""Real llama.cpp, in an environment of its own: sizeup's server around it, its figures, its memory."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from sizeup.engines.http import get_json, post_json
from sizeup.engines.launch import Launch
from sizeup.engines.llamacpp.server import LlamaCpp
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.protocol import Ask, Message
from sizeup.engines.registry import attach
from sizeup.errors import NetworkError, SizeupError
from sizeup.measure.accuracy import judge
from sizeup.measure.bench.resources import process_memory
from sizeup.measure.ledger import Ledger
from sizeup.operations.bench import BenchRequest, bench
from sizeup.operations.chat import ChatRequest, chat
from sizeup.operations.engine_list import EngineListRequest, engine_list
from sizeup.operations.fit import FitRequest, fit

pytestmark = pytest.mark.llamacpp
SETTING = LlamaSetting(context=1024, parallel=2, unified=False)


@pytest.fixture(autouse=True)
def _no_native_server(monkeypatch, tmp_path):
    """The package's llama.cpp is meant here, not a program that happens to be on the path."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")


@pytest.fixture(scope="module")
def server(llamacpp, tiny):
    before, os.environ["PATH"] = os.environ["PATH"], "/usr/bin:/bin"
    try:
        with LlamaCpp().launch(Launch(str(tiny), SETTING, python=llamacpp, threads=1)) as started:
            yield started
    finally:
        os.environ["PATH"] = before


def texts(server, *asks):
    """What comes of each ask, and its last chunk."""
    found = [["", None] for _ in asks]
    for arrival in LlamaCpp().stream(server.endpoint, asks):
        found[arrival.stream][0] += arrival.chunk.text
        found[arrival.stream][1] = arrival.chunk
    return found


def test_it_is_told_from_other_servers(server):
    kind, endpoint = attach(server.endpoint.url)
    assert (kind.name, endpoint.model) == ("llama.cpp", "tiny.gguf")
    assert get_json(endpoint.url, "/props")["vocabulary"] == 512


def test_the_same_prompt_gives_the_same_text_alone_and_beside_another(server):
    one, other = Ask((1, 300, 400), tokens=12, exact=True), Ask((1, 200, 210, 220), tokens=20, exact=True)
    ((alone, _),) = texts(server, one)
    (together, last), (_, second) = texts(server, one, other)

    assert alone == together != ""
    assert (last.generated, second.generated) == (12, 20)
    assert (last.prompt_tokens, last.finish) == (3, "limit")


def test_a_cached_beginning_is_not_read_again(server):
    head = tuple(range(140, 240))
    texts(server, Ask(head, tokens=1, exact=True, cached=True))
    ((_, warm),) = texts(server, Ask((*head, 300, 301), tokens=4, exact=True, cached=True))
    ((_, cold),) = texts(server, Ask((*head, 300, 301), tokens=4, exact=True))

    assert warm.timings.prompt_tokens == 2
    assert cold.timings.prompt_tokens == 102


def test_a_cached_beginning_changes_no_token(server):
    head = tuple(range(150, 200))
    texts(server, Ask(head, tokens=1, exact=True, cached=True))
    ((warm, _),) = texts(server, Ask((*head, 301), tokens=8, exact=True, cached=True))
    ((cold, _),) = texts(server, Ask((*head, 301), tokens=8, exact=True))
    assert warm == cold


def test_text_and_openai_routes(server):
    url = server.endpoint.url
    plain = post_json(url, "/completion", {"prompt": "a b", "n_predict": 5, "ignore_eos": True, "temperature": 0})
    openai = post_json(url, "/v1/completions", {"prompt": "a b", "max_tokens": 5, "ignore_eos": True, "temperature": 0})
    chatted = post_json(url, "/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "max_tokens": 3})

    assert openai["choices"][0]["text"] == plain["content"]
    assert openai["usage"]["completion_tokens"] == 5
    assert chatted["choices"][0]["message"]["role"] == "assistant"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/completion", {"prompt": [1] * 2000}, 400),
        ("/completion", {"prompt": []}, 400),
        ("/completion", {"prompt": [99999]}, 400),
        ("/completion", {"prompt": {"a": 1}}, 400),
        ("/completion", {}, 400),
        ("/v1/chat/completions", {"messages": 5}, 400),
        ("/nowhere", {"prompt": [1]}, 404),
        ("/completion", b"not json", 400),
        ("/completion", b"[1]", 400),
    ],
)
def test_bad_requests_are_refused_and_the_server_goes_on(server, path, body, status):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(server.endpoint.url + path, raw, timeout=5)
    assert caught.value.code == status
    assert texts(server, Ask((1, 2, 3), tokens=2, exact=True))[0][1].generated == 2


def test_a_client_that_hangs_up_frees_its_slot(server):
    engine = LlamaCpp()
    for _ in range(4):
        stream = engine.stream(server.endpoint, [Ask((1, 2, 3), tokens=900, exact=True)])
        next(stream)
        stream.close()
    assert texts(server, Ask((1, 2, 3), tokens=2, exact=True))[0][1].generated == 2
    assert engine.stats(server.endpoint).generated > 0


def test_more_requests_than_slots_wait_their_turn(server):
    found = texts(server, *[Ask((1, 2, n + 100), tokens=10, exact=True) for n in range(7)])
    assert [last.generated for _, last in found] == [10] * 7


def test_a_chat_has_the_models_template(server):
    ((text, last),) = texts(server, Ask(messages=(Message("user", "hello"),), tokens=5, exact=True))
    assert last.prompt_tokens is None or last.prompt_tokens > 5
    assert isinstance(text, str)


def test_a_damaged_file_is_a_clear_error(llamacpp, tiny, tmp_path):
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(tiny.read_bytes()[:40_000])
    with pytest.raises(SizeupError, match="can't load damaged"):
        LlamaCpp().launch(Launch(str(damaged), SETTING, python=llamacpp))


def test_its_memory_is_seen(server):
    assert process_memory(server.pid)["resident"] > 20_000_000


def test_our_figures_agree_with_its_own(home, llamacpp):
    """Decode by our clock and by llama.cpp's, request by request, within 2 %; random weights, no download."""
    report = bench(
        BenchRequest(
            model="layers=4,embedding=1024,heads=16,vocabulary=32000,context=2048",
            format="Q8_0", prompt="32,64", generate=64, repetitions=3, threads=1, offline=True,
        )
    )  # fmt: skip

    assert report.weights == "random"
    assert report.how == "llama-cpp-python"
    assert all(r.disagreement <= 0.02 for r in report.results), [r.disagreement for r in report.results]
    assert all(r.predicted.decode is not None for r in report.results)
    with Ledger() as ledger:
        assert len(ledger.rows()) == report.kept == 6


def test_depth_is_in_the_cache_not_in_the_prompt(home, llamacpp, tiny):
    report = bench(BenchRequest(model=str(tiny), prompt="32", depth="256", generate=8, repetitions=1, offline=True))
    assert report.results[0].prompt == 32


def test_memory_three_ways(home, llamacpp, tiny):
    report = bench(BenchRequest(model=str(tiny), memory=True, offline=True))

    parts = {part.part: part for part in report.memory.buffers}
    for name in ("weights", "cache", "compute"):
        assert parts[name].estimated == parts[name].simulated == parts[name].measured > 0
    mapped = report.memory.process[0]
    assert abs(mapped.measured - mapped.simulated) < 1 << 20
    with Ledger() as ledger:
        assert {row.kind for row in ledger.rows()} == {"simulate", "measure"}


def test_fit_simulates_and_keeps_the_row(home, llamacpp):
    report = fit(FitRequest(model="Qwen/Qwen3-0.6B", format="Q8_0", context=2048, simulate=True, offline=True))

    parts = {part.part: part for part in report.simulation.buffers}
    assert parts["weights"].estimated == parts["weights"].simulated
    assert parts["cache"].estimated == parts["cache"].simulated
    with Ledger() as ledger:
        assert [row.kind for row in ledger.rows()] == ["simulate"]
        judged = judge(ledger.rows(), ledger.models())
    assert judged.skipped == ()
    assert {c.component for c in judged.comparisons} >= {"weights", "cache", "compute", "total"}


def test_chat_answers_once_and_ends_its_server(home, llamacpp, tiny):
    report = chat(ChatRequest(model=str(tiny), prompt="hello", tokens=6, temperature=0.0, context=512))
    with pytest.raises(NetworkError):
        get_json(report.url, "/health")


def test_it_is_listed(home, llamacpp):
    found = engine_list(EngineListRequest()).found
    assert any(f.how == "llama-cpp-python" and f.version for f in found)


def test_the_command_line_ends_in_a_table(home, llamacpp, tiny, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sizeup", "bench", str(tiny), "--prompt", "16", "--generate", "8", "--html",
         str(tmp_path / "page.html")],
        capture_output=True, text=True, env=os.environ, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "predicted" in done.stdout
    assert "16 + 8" in done.stdout
    assert (tmp_path / "page.html").read_text().count("<svg") == 2
