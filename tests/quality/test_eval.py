"""eval from end to end: against a real llama.cpp server, a fake harness, and what it refuses before it loads anything."""

import json
import sys
from pathlib import Path

import msgspec
import pytest

import sizeup
from sizeup.cli.render_eval import render
from sizeup.engines.protocol import Endpoint
from sizeup.errors import BadInput, MissingPart, NotFound, SizeupError
from sizeup.measure.ledger import Ledger
from sizeup.measure.quality import sandboxes
from sizeup.measure.quality.sandboxes import find_sandbox
from sizeup.measure.quality.standard import TaskScore, command, harness, run_tasks
from sizeup.measure.simulation import worker_python

ENDPOINT = Endpoint("http://127.0.0.1:9", "llama.cpp", "tiny.gguf")
RESULTS = {
    "results": {
        "gsm8k": {"alias": "gsm8k", "exact_match,strict-match": 0.25, "exact_match_stderr,strict-match": 0.05},
        "ifeval": {"prompt_level_strict_acc,none": 0.5, "prompt_level_strict_acc_stderr,none": "N/A"},
    }
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SIZEUP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SIZEUP_LM_EVAL", raising=False)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def talking(tmp_path_factory):
    sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
    from talking import write_talking

    return write_talking(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.mark.llamacpp
def test_problems_are_graded_the_same_twice_against_a_real_server(talking, tmp_path, monkeypatch):
    try:
        python = worker_python()
        find_sandbox()
    except MissingPart as missing:
        pytest.skip(str(missing))
    monkeypatch.setenv("SIZEUP_LLAMACPP_PYTHON", python)
    monkeypatch.setenv("SIZEUP_HOME", str(tmp_path))
    first, second = (sizeup.eval(str(talking), parts="coding", problems=2, tokens=16, threads=1) for _ in range(2))
    with Ledger() as ledger:
        rows = ledger.rows()

    assert first.coding == second.coding
    assert [score.count for score in first.coding.scores] == [2, 2, 2, 6]
    assert not first.coding.chat
    assert rows[0].unit == "share"
    assert rows[0].workload["problems.all"] == 6
    assert any("0 of 6" in line for line in render(first, explain=True))


def test_without_a_sandbox_nothing_is_loaded(home, monkeypatch):
    monkeypatch.setattr(sandboxes, "_candidates", lambda: iter(()))
    find_sandbox.cache_clear()
    try:
        with pytest.raises(MissingPart, match="no sandbox"):
            sizeup.eval("/nowhere.gguf", parts="coding")
    finally:
        find_sandbox.cache_clear()


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"parts": "speed"}, "no part 'speed'"),
        ({"parts": "tasks"}, "no standard tasks"),
        ({"parts": "loss", "length": 1}, "length"),
        ({"grades": "hard", "parts": "coding"}, "no grade"),
    ],
)
def test_wrong_requests_are_refused(home, request_, said):
    with pytest.raises(BadInput, match=said):
        sizeup.eval("/nowhere.gguf", **request_)


def test_a_file_that_is_not_there(home):
    with pytest.raises(NotFound, match="no GGUF file"):
        sizeup.eval("/nowhere.gguf", parts="loss")


def test_the_harness_is_told_where_the_server_is():
    line = command("lm_eval", ENDPOINT, ["gsm8k", "ifeval"], chat=True, limit=5, output="out")

    assert line[line.index("--model") + 1] == "local-chat-completions"
    assert "base_url=http://127.0.0.1:9/v1/chat/completions,model=tiny.gguf" in line[line.index("--model_args") + 1]
    assert "tokenizer_backend=none" in line[line.index("--model_args") + 1]  # else it looks for one on a hub
    assert line[line.index("--tasks") + 1] == "gsm8k,ifeval"
    assert "--apply_chat_template" in line
    assert line[-2:] == ["--limit", "5"]


def test_without_the_harness_the_way_to_it_is_told(home, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingPart, match="lm-evaluation-harness") as missing:
        harness()
    assert "pip install 'lm_eval[api]'" in missing.value.hint
    monkeypatch.setenv("SIZEUP_LM_EVAL", "/nowhere/lm_eval")
    with pytest.raises(MissingPart, match="which isn't there"):
        harness()


def fake_harness(tmp_path, monkeypatch, script):
    program = tmp_path / "lm_eval"
    program.write_text(f"#!{sys.executable}\nimport sys, pathlib\n{script}")
    program.chmod(0o755)
    monkeypatch.setenv("SIZEUP_LM_EVAL", str(program))


def test_the_harness_is_run_and_read(home, tmp_path, monkeypatch):
    fake_harness(
        tmp_path,
        monkeypatch,
        "out = pathlib.Path(sys.argv[sys.argv.index('--output_path') + 1], 'tiny')\nout.mkdir()\n"
        f"(out / 'results_2026.json').write_text({json.dumps(json.dumps(RESULTS))})",
    )
    scores, line = run_tasks(ENDPOINT, ["gsm8k", "ifeval"], chat=False, limit=None)

    assert scores == (
        TaskScore("gsm8k", "exact_match,strict-match", 0.25, 0.05),
        TaskScore("ifeval", "prompt_level_strict_acc,none", 0.5, None),
    )
    assert "local-completions" in line


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("sys.exit('no such task: x')", "status 1: no such task: x"),
        ("pass", "left no results"),
        ("sys.exit('AssertionError: Tokenizer is required for loglikelihood tasks')", "compares likelihoods"),
    ],
)
def test_a_harness_that_fails_says_why(home, tmp_path, monkeypatch, script, said):
    fake_harness(tmp_path, monkeypatch, script)
    with pytest.raises(SizeupError, match=said):
        run_tasks(ENDPOINT, ["x"], chat=False, limit=None)


TASK = """
task: local_gen
dataset_path: json
dataset_kwargs: {data_files: DATA}
test_split: train
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 8}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


@pytest.mark.slow
@pytest.mark.llamacpp
@pytest.mark.parametrize("chat", ["on", "off"])
def test_the_real_harness_asks_a_real_server(talking, tmp_path, monkeypatch, chat):
    try:
        harness()
        monkeypatch.setenv("SIZEUP_LLAMACPP_PYTHON", worker_python())
    except MissingPart as missing:
        pytest.skip(str(missing))
    (tmp_path / "data.jsonl").write_text('{"question": "1 + 1 =", "answer": "2"}\n' * 3)
    (tmp_path / "task.yaml").write_text(TASK.replace("DATA", str(tmp_path / "data.jsonl")))
    monkeypatch.setenv("SIZEUP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = sizeup.eval(str(talking), tasks=str(tmp_path / "task.yaml"), chat=chat, limit=2, threads=1)

    assert [(score.task, score.metric) for score in found.standard.scores] == [("local_gen", "exact_match,none")]
    assert found.kept == 1


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.llamacpp
def test_a_demo_model_is_trained_and_kept(tmp_path):
    try:
        found = sizeup.demo(minutes=0.2, folder=str(tmp_path / "demo"), threads=1)
    except MissingPart as missing:
        pytest.skip(str(missing))
    again = sizeup.demo(folder=str(tmp_path / "demo"))

    assert found.trained.parameters == 5_770_496
    assert found.trained.loss < 8.3  # ln 4096: knowing nothing
    assert again == msgspec.structs.replace(found, trained=None)
    assert sorted(again.files) == ["F16", "Q2_K", "Q4_K_M", "Q8_0"]
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
