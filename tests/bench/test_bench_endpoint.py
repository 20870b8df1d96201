"""Benching servers that are there already, well-behaved and otherwise: finished rows are always kept."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from fakes import CUT, Answer, Fake, answer_json
from wire_formats import LLAMACPP, OLLAMA, VLLM, llamacpp_events, vllm_events

from sizeup.errors import BadInput, NetworkError, NotFound, SizeupError
from sizeup.measure.ledger import Ledger
from sizeup.operations.bench import BenchRequest, bench

QUICK = {"prompt": "8,16", "generate": 4, "repetitions": 2}


def llama(body):
    return Answer(llamacpp_events(body["n_predict"]), pause=0.004)


def vllm(body):
    return Answer(vllm_events(body["max_tokens"]), pause=0.004)


@pytest.mark.parametrize(
    ("routes", "engine", "clock"),
    [
        (LLAMACPP | {"POST /completion": llama}, "llama.cpp", True),
        (VLLM | {"POST /v1/completions": vllm}, "vllm", False),
        (OLLAMA, "ollama", True),
    ],
)
def test_a_server_is_measured_and_kept(home, routes, engine, clock):
    with Fake(routes) as fake:
        report = bench(BenchRequest(model=fake.url, concurrency="1,2", **QUICK))

    assert (report.engine, report.weights, report.exit_code) == (engine, "served", 0)
    assert [r.cell.words for r in report.results] == ["8 + 4", "16 + 4", "8 + 4, 2 at once"]
    assert all(r.generated == 4 and r.prefill.value > 0 for r in report.results)
    assert (report.results[0].engine_decode is not None) is clock
    assert report.results[0].predicted.decode is None
    with Ledger() as ledger:
        kept = ledger.rows()
    assert len(kept) == report.kept > 0
    assert {row.engine for row in kept} == {engine}


def test_the_pace_is_what_the_server_keeps(home):
    with Fake(
        VLLM | {"POST /v1/completions": lambda body: Answer(vllm_events(body["max_tokens"]), pause=0.02)}
    ) as fake:
        report = bench(BenchRequest(model=fake.url, prompt="8", generate=20, repetitions=1))

    assert 35 < report.results[0].decode.value <= 51
    assert report.results[0].between.p50 == pytest.approx(0.02, rel=0.3)


def test_a_server_that_fails_in_the_middle_keeps_what_was_finished(home):
    asked = []

    def answer(body):
        asked.append(body)
        return llama(body) if len(asked) <= 3 else Answer([*llamacpp_events(4)[:2], CUT])

    with (
        Fake(LLAMACPP | {"POST /completion": answer}) as fake,
        pytest.raises(NetworkError, match="1 of 2 settings") as caught,
    ):
        bench(BenchRequest(model=fake.url, **QUICK))

    assert "rows kept in the ledger" in caught.value.message
    with Ledger() as ledger:
        assert {row.workload["prompt"] for row in ledger.rows()} == {8}


@pytest.mark.parametrize(
    "answer",
    [
        answer_json({"error": {"message": "boom"}}, 500),
        Answer([b"<html>"], kind="text/html"),
        Answer([b"data: 7\n\n"]),
        Answer([*llamacpp_events(3)[:2], CUT]),
        Answer([llamacpp_events(3)[-1]]),
    ],
)
def test_a_server_that_never_works_is_a_clear_error(home, answer):
    with Fake(LLAMACPP | {"POST /completion": answer}) as fake, pytest.raises(NetworkError) as caught:
        bench(BenchRequest(model=fake.url, **QUICK))
    assert caught.value.hint


def test_an_endpoint_that_is_pulled_away(home):
    with Fake(LLAMACPP | {"POST /completion": llama}) as fake:
        url = fake.url
    with pytest.raises(NetworkError, match="no answer"):
        bench(BenchRequest(model=url, **QUICK))


def test_a_full_ledger_costs_no_result(home, monkeypatch):
    def full(*_):
        raise SizeupError("the ledger can't be used: database or disk is full")

    monkeypatch.setattr(Ledger, "add", full)
    with Fake(LLAMACPP | {"POST /completion": llama}) as fake:
        report = bench(BenchRequest(model=fake.url, **QUICK))

    assert len(report.results) == 2
    assert report.kept == 0
    assert [note for note in report.notes if "disk is full" in note] == list(report.notes)


def test_a_page_that_cant_be_written_is_said_before_anything_is_measured(home, tmp_path):
    with pytest.raises(SizeupError, match="can't write"):
        bench(BenchRequest(model="http://127.0.0.1:9", html=str(tmp_path / "no" / "page.html")))


def test_a_full_disk_costs_no_result(home):
    with Fake(LLAMACPP | {"POST /completion": llama}) as fake:
        report = bench(BenchRequest(model=fake.url, html="/dev/full", **QUICK))

    assert len(report.results) == 2
    assert report.html is None
    assert "No space left" in report.notes[-1]


def test_requests_that_make_no_sense(home):
    with pytest.raises(BadInput, match="repetitions"):
        bench(BenchRequest(model="http://127.0.0.1:9", repetitions=0))
    with pytest.raises(BadInput, match="--memory"):
        bench(BenchRequest(model="http://127.0.0.1:9", memory=True))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_an_interrupted_bench_reports_and_keeps_what_was_finished(home, number, code):
    slow = []

    def answer(body):
        slow.append(body)
        return llama(body) if len(slow) <= 3 else Answer(llamacpp_events(4), pause=30)

    with Fake(LLAMACPP | {"POST /completion": answer}) as fake:
        command = [sys.executable, "-m", "sizeup", "bench", fake.url, "--prompt", "8,16", "--generate", "4",
                   "--repetitions", "2", "--json"]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
            end = time.monotonic() + 20
            while len(slow) < 4 and time.monotonic() < end:
                time.sleep(0.05)
            process.send_signal(number)
            out, _ = process.communicate(timeout=20)

    report = json.loads(out)
    assert process.returncode == code
    assert report["interrupted"] is True
    assert len(report["results"]) == 1
    with Ledger() as ledger:
        assert len(ledger.rows()) == report["kept"] > 0


def test_comparing_with_the_last_run(home):
    with Fake(LLAMACPP | {"POST /completion": llama}) as fake:
        first = bench(BenchRequest(model=fake.url, **QUICK))
        second = bench(BenchRequest(model=fake.url, compare="last", **QUICK))

    assert first.changes == ()
    assert {change.component for change in second.changes} == {"prefill", "decode", "throughput"}
    assert all(change.model == "tiny.gguf" for change in second.changes)


def test_an_attached_server_is_asked_for_the_tag_that_was_named(home):
    tags = answer_json({"models": [{"name": "llama3.2:latest"}, {"name": "qwen3:0.6b"}]})
    with Fake(OLLAMA | {"GET /api/tags": tags}) as fake:
        report = bench(BenchRequest(model=fake.url, name="qwen3:0.6b", **QUICK))
        asked = [body["model"] for key, body, _ in fake.asked if key == "POST /api/generate"]

    assert report.model == "qwen3:0.6b"
    assert set(asked) == {"qwen3:0.6b"}
    with Fake(OLLAMA | {"GET /api/tags": tags}) as fake, pytest.raises(NotFound, match="no model 'qwen3:8b'"):
        bench(BenchRequest(model=fake.url, name="qwen3:8b", **QUICK))
