"""eval of servers by their wire formats: what they answer is graded, and why there is no loss is said."""

import json
import sys
from pathlib import Path

import pytest

import sizeup
from sizeup.errors import BadInput, MissingPart, NetworkError
from sizeup.measure.ledger import Ledger
from sizeup.measure.quality.problems import problems
from sizeup.measure.quality.sandboxes import find_sandbox

sys.path.insert(0, str(Path(__file__).parents[1] / "engines"))
from fakes import CUT, Answer, Fake, answer_json, sse

MODELS = {"GET /v1/models": answer_json({"object": "list", "data": [{"id": "some-model", "object": "model"}]})}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SIZEUP_HOME", str(tmp_path))
    try:
        find_sandbox()
    except MissingPart as missing:
        pytest.skip(str(missing))


def chat_events(text):
    """A chat's answer in OpenAI's wire format, a few letters at a time."""
    pieces = [text[start : start + 7] for start in range(0, len(text), 7)]
    chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "some-model"}
    events = [
        chunk | {"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]} for piece in pieces
    ]
    end = chunk | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = chunk | {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": len(pieces), "total_tokens": 9}}
    return Answer(sse(*events, end, usage), kind="text/event-stream")


def knows_the_first(body):
    """Answers `mean_or_none` rightly, everything else with nonsense."""
    first, asked = problems()[0], json.dumps(body["messages"])
    return chat_events(f"Sure:\n```python\n{first.reference}```\n" if first.name in asked else "I don't know.")


def test_answers_of_a_chat_are_graded_and_kept():
    with Fake(MODELS | {"POST /v1/chat/completions": knows_the_first}) as fake:
        found = sizeup.eval(fake.url, problems=2)
        again = sizeup.eval(fake.url, problems=2)
        asked = [body for key, body, _ in fake.asked if key.startswith("POST")]
    with Ledger() as ledger:
        rows = ledger.rows()

    assert [(score.grade, score.passed, score.count) for score in found.coding.scores] == [
        ("completion", 1, 2), ("function", 0, 2), ("repair", 0, 2), ("all", 1, 6),
    ]  # fmt: skip
    assert found.coding == again.coding
    assert all(body["temperature"] == 0 and body["stream"] for body in asked)
    assert (rows[0].model, rows[0].components["passed.all"]) == ("some-model", pytest.approx(1 / 6))
    assert any("doesn't tell the probabilities of all tokens" in note for note in found.notes)


def test_a_loss_of_a_server_is_refused_with_the_reason():
    with Fake(MODELS) as fake, pytest.raises(BadInput, match="doesn't tell the probabilities"):
        sizeup.eval(fake.url, parts="loss,coding")


def test_half_an_answer_is_an_error_and_no_grade():
    half = Answer(
        [*sse({"choices": [{"index": 0, "delta": {"content": "def"}}]}, done=False), CUT], kind="text/event-stream"
    )
    with Fake(MODELS | {"POST /v1/chat/completions": half}) as fake, pytest.raises(NetworkError):
        sizeup.eval(fake.url, problems=1)
    with Ledger() as ledger:
        assert ledger.rows() == []
