"""Watching: shares and guards, servers by their metrics, JSON lines, Prometheus, and a run that is stopped in time."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import psutil
import pytest
from fakes import Fake, answer_json
from hypothesis import given
from hypothesis import strategies as st
from wire_formats import LLAMACPP, OLLAMA, VLLM

import sizeup
from sizeup.cli.render_watch import view
from sizeup.cli.text import visible
from sizeup.engines.launch import Launch
from sizeup.engines.llamacpp.server import LlamaCpp, slots_in
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.protocol import Ask, Endpoint
from sizeup.errors import BadInput, MissingPart, NotFound, SizeupError
from sizeup.machines.probes.files import Files
from sizeup.measure.simulation import worker_python
from sizeup.measure.watch.exposition import Exposed, exposition
from sizeup.measure.watch.guard import check, parse_share, stop, targets
from sizeup.measure.watch.sample import Gpu, Holder, Sample, ServerLoad
from sizeup.measure.watch.sampler import Sampler
from sizeup.measure.watch.servers import Servers, rate

SAMPLE = Sample(
    at="2026-11-21T03:00:00.000+00:00",
    cpu=0.5,
    memory_used_bytes=90,
    memory_total_bytes=100,
    swap_used_bytes=0,
    gpus=(Gpu('RTX "4090"', 20, 24, 0.7, 300.0, 60.0),),
    servers=(ServerLoad("http://127.0.0.1:8080", "llama.cpp", "tiny", running=1, tokens_per_s=12.5),),
    holders=(Holder(7, "trainer", 60), Holder(8, "vllm", 5, 20)),
)


@pytest.mark.parametrize(("text", "share"), [("95%", 0.95), ("95", 0.95), ("0.9", 0.9), ("100%", 1.0), ("1", 1.0)])
def test_a_share_is_read_as_people_write_it(text, share):
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "much", "0", "-5%", "101%", "nan", "1e9"])
def test_other_shares_are_refused(text):
    with pytest.raises(BadInput, match="no share"):
        parse_share(text)


def test_the_guard_names_the_fullest_memory_and_who_holds_it():
    full = check(SAMPLE, 0.85)
    gpu = check(Sample("", 0, 10, 100, 0, gpus=SAMPLE.gpus, holders=SAMPLE.holders), 0.8)

    assert (full.where, full.share, full.holder) == ("memory", 0.9, "trainer (7)")
    assert (gpu.where, gpu.holder) == ('RTX "4090"', "vllm (8)")
    assert check(SAMPLE, 0.95) is None


@given(st.integers(0, 1000), st.integers(1, 1000), st.floats(0.01, 1))
def test_the_guard_wakes_exactly_at_its_limit(used, total, limit):
    sample = Sample("", 0, used, total, 0)

    assert (check(sample, limit) is not None) == (used / total >= limit)


def test_a_rate_needs_two_counts():
    assert rate(None, 5, 1.0) is None
    assert rate(5, 25, 2.0) == 10
    assert rate(25, 5, 2.0) == 0
    assert rate(5, 25, 0.0) is None


def test_a_run_is_ended_with_all_below_it():
    code = "import subprocess, sys, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])\nprint('ready', flush=True)\ntime.sleep(99)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as run:
        run.stdout.readline()
        below = psutil.Process(run.pid).children()
        ended = stop(targets(str(run.pid)))
        run.wait(5)

    assert ended == (run.pid,)
    assert not psutil.pid_exists(run.pid)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in below)


def test_a_watch_never_stops_itself():
    with pytest.raises(NotFound, match="no process"):
        targets(str(os.getpid()))
    with pytest.raises(NotFound, match="no process 'no-such-program'"):
        targets("no-such-program")


def test_the_guard_stops_a_run_through_the_command():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"]) as run:
        found = sizeup.watch(once=True, guard="0.01%", stop=str(run.pid))
        run.wait(5)

    assert found.alarm.stopped == (run.pid,)
    assert found.exit_code == 3


def test_stop_needs_a_guard():
    with pytest.raises(BadInput, match="needs a guard"):
        sizeup.watch(once=True, stop="1")


def test_a_sample_of_this_machine_is_plausible():
    with Sampler(search=False) as sampler:
        sample = sampler.sample()

    assert 0 < sample.memory_used_bytes < sample.memory_total_bytes
    assert sample.memory_total_bytes <= psutil.virtual_memory().total
    assert 0 <= sample.cpu <= 1
    assert sample.holders[0].bytes >= sample.holders[-1].bytes > 0


def test_a_container_limit_counts(tmp_path):
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (group / "memory.max").write_text("1000000\n")
    (group / "memory.current").write_text("900000\n")
    (group / "memory.stat").write_text("inactive_file 100000\n")
    with Sampler(search=False, files=Files(str(tmp_path))) as sampler:
        sample = sampler.sample()

    assert (sample.memory_used_bytes, sample.memory_total_bytes) == (800_000, 1_000_000)
    assert check(sample, 0.8).share == 0.8


def test_headroom_is_what_is_left_at_the_peak():
    with Sampler(search=False, predicted_bytes=1 << 50) as sampler:
        assert sampler.sample().headroom_bytes < 0
    with Sampler(search=False, predicted_bytes=0) as sampler:
        sample = sampler.sample()
        assert sample.headroom_bytes == sample.memory_total_bytes - sample.memory_used_bytes


@pytest.mark.parametrize(
    ("routes", "engine", "expected"),
    [
        (LLAMACPP, "llama.cpp", {"running": 2, "waiting": 1}),
        (VLLM, "vllm", {"running": 3, "waiting": 2, "cache_used": 0.25}),
        (OLLAMA, "ollama", {"gpu_bytes": 5333539264}),
    ],
)
def test_servers_tell_their_load_in_their_own_words(routes, engine, expected):
    with Fake(routes) as fake:
        servers = Servers([fake.url], search=False)
        (load,) = servers.now()
        (second,) = servers.now()

    assert load.engine == engine
    assert {name: getattr(load, name) for name in expected} == expected
    assert load.tokens_per_s is None
    assert second.tokens_per_s in {0, None}


def busy_slots(decoded):
    """llama-server's own answers while one of two slots writes: what is written is counted at its end only."""
    writing = {"id": 0, "n_ctx": 1000, "is_processing": True, "n_prompt_tokens": 100 + decoded, "speculative": False}
    idle = {"id": 1, "n_ctx": 1000, "is_processing": False, "n_prompt_tokens": 900}
    return [{**writing, "next_token": [{"n_decoded": decoded, "n_remain": 5}]}, idle]


def test_tokens_of_a_request_that_runs_are_counted():
    decoded = iter((10, 110))
    with Fake({**LLAMACPP, "GET /slots": lambda _: answer_json(busy_slots(next(decoded)))}) as fake:
        endpoint = Endpoint(fake.url, "llama.cpp")
        first, second = LlamaCpp().stats(endpoint), LlamaCpp().stats(endpoint)

    assert second.generated - first.generated == 100
    assert (first.slots, first.cache_used, second.cache_used) == (2, 0.055, 0.105)


@pytest.mark.parametrize("answer", [None, {}, [1], [{"n_ctx": "many"}], [{"next_token": [5]}], []])
def test_slots_that_say_something_else(answer):
    assert sum(slot.decoded for slot in slots_in(answer)) == 0


def test_the_table_fits_in_80_columns(monkeypatch):
    monkeypatch.setattr("sizeup.cli.text.width", lambda: 80)
    long = ServerLoad(
        "http://127.0.0.1:43210", "transformers", "/home/somebody/models/Qwen3-Coder-30B-A3B-Q4_K_M.gguf",
        running=12, waiting=10, cache_used=1.0, tokens_per_s=1234.5, prompt_tokens_per_s=12345.6,
    )  # fmt: skip
    named = Sample(
        "", 0.5, 90 << 30, 100 << 30, 1 << 30, servers=(long,), holders=(Holder(1234567, "x" * 60, 1 << 36),)
    )
    assert max(visible(shown) for shown in view(named, None, None)) <= 80


def test_a_server_that_is_gone_is_forgotten():
    with Fake(LLAMACPP) as fake:
        servers = Servers([fake.url], search=False)
        assert len(servers.now()) == 1

    assert servers.now() == ()


def test_exposition_is_prometheus_text():
    text = exposition(SAMPLE)

    assert "# TYPE sizeup_memory_used_bytes gauge\nsizeup_memory_used_bytes 90\n" in text
    assert 'sizeup_gpu_watts{gpu="0",name="RTX \\"4090\\""} 300\n' in text
    assert 'sizeup_server_tokens_per_s{url="http://127.0.0.1:8080",engine="llama.cpp",model="tiny"} 12.5\n' in text
    assert "headroom" not in text
    assert "waiting" not in text


def test_metrics_are_served_on_this_machine():
    exposed = Exposed(0)
    try:
        exposed.sample = SAMPLE
        with urllib.request.urlopen(f"http://127.0.0.1:{exposed.port}/metrics") as answer:
            assert answer.read().decode() == exposition(SAMPLE)
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{exposed.port}/other")
        with pytest.raises(SizeupError, match="can't listen"):
            Exposed(exposed.port)
    finally:
        exposed.close()


def test_json_is_a_line_for_each_sample():
    command = [sys.executable, "-m", "sizeup", "watch", "--json", "--samples", "3", "--interval", "0.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]

    assert [line["schema"] for line in lines] == ["sizeup.watch/1"] * 3
    assert lines[0]["sample"]["at"] < lines[2]["sample"]["at"]


def test_ctrl_c_ends_it_quietly():
    command = [sys.executable, "-m", "sizeup", "watch", "--interval", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        lines = [run.stdout.readline() for _ in range(2)]
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=10)

    assert run.returncode == 0
    assert said == ""
    assert "memory" in lines[1]


@pytest.mark.llamacpp
def test_a_real_server_is_found_and_its_speed_is_shown(tmp_path):
    try:
        python = worker_python()
    except MissingPart as missing:
        pytest.skip(str(missing))
    from talking import write_talking

    path = write_talking(tmp_path / "tiny.gguf")
    engine = LlamaCpp()
    with engine.launch(Launch(str(path), LlamaSetting(context=512), python=python, threads=1)) as server:
        servers = Servers()
        before = next(load for load in servers.now() if load.url == server.endpoint.url)
        list(engine.stream(server.endpoint, [Ask(prompt=(1, 2, 3), tokens=64, exact=True)]))
        time.sleep(0.05)
        after = next(load for load in servers.now() if load.url == server.endpoint.url)

    assert before.engine == "llama.cpp"
    assert before.pid == server.pid
    assert after.tokens_per_s > 0
    assert after.running == 0
