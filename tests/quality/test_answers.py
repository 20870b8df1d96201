"""From what models say to code: chat with prose, thoughts and fences, or text that goes on from a beginning."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizeup.measure.quality.answers import ask_for, code_of, first_body
from sizeup.measure.quality.coding import Graded, grade, scores
from sizeup.measure.quality.problems import problems
from sizeup.measure.quality.sandbox import Outcome
from sizeup.measure.quality.statistics import mean_and_error, wilson

CLAMP = next(p for p in problems() if p.id == "clamp")
REPAIR = next(p for p in problems() if p.grade == "repair")
BODY = "    return max(low, min(high, value))"


@pytest.mark.parametrize(
    "said",
    [
        f"Sure!\n```python\ndef clamp(value, low, high):\n{BODY}\n```\nIt works.",
        f"<think>def clamp(x): pass ```python\nwrong\n```</think>```\ndef clamp(value, low, high):\n{BODY}\n```",
        f"def clamp(value, low, high):\n{BODY}",
        f"```python\nprint(1)\n```\nand\n```python\ndef clamp(value, low, high):\n{BODY}\n```",
        f"```python\n{BODY}\n```",
        f"```python\ndef clamp(value, low, high):\n{BODY}",
    ],
)
def test_code_is_found_in_a_chat(said):
    names = {}
    exec(code_of(CLAMP, said, chat=True), names)

    assert names["clamp"](30, 0, 10) == 10


def test_a_prompt_ends_before_the_line_break():
    for problem in problems():
        assert ask_for(problem, chat=False).prompt.endswith((":", '"""'))


@pytest.mark.parametrize("begins", ["", "\n"])
def test_a_continuation_ends_at_the_margin(begins):
    said = begins + f"{BODY}\n\n\nprint(clamp(input(), 1, 2))\n"

    assert code_of(CLAMP, said, chat=False) == CLAMP.start + BODY + "\n\n\n"


def test_helpers_behind_the_body_are_kept():
    assert (
        first_body("    return g()\n\ndef g():\n    return 1\nprint(1)\n")
        == "    return g()\n\ndef g():\n    return 1\n"
    )


@given(st.text())
def test_anything_a_model_says_becomes_text(said):
    for chat in (True, False):
        assert isinstance(code_of(CLAMP, said, chat=chat), str)


def test_a_chat_shows_the_task_and_the_code_to_repair():
    shown = ask_for(REPAIR, chat=True).messages[-1].content

    assert REPAIR.task in shown
    assert REPAIR.given in shown
    assert REPAIR.answer not in shown


def test_a_continuation_begins_where_the_answer_does():
    assert ask_for(CLAMP, chat=False).prompt == CLAMP.start.rstrip()
    assert ask_for(REPAIR, chat=False).prompt.endswith("# Corrected:\n" + REPAIR.start.rstrip())


class Always:
    """A sandbox's stand-in for `run`."""


def test_scores_are_by_grade_and_reproducible(monkeypatch):
    monkeypatch.setattr(
        "sizeup.measure.quality.coding.run",
        lambda sandbox, code, tests, limits: Outcome("passed" if "return 1" in code else "failed"),
    )
    chosen = problems()[:20]

    def answer(problem):
        return "    return 1\n" if len(problem.id) % 2 else "    return 2\n"

    first, second = (list(grade(chosen, answer, Always(), chat=False)) for _ in range(2))

    assert first == second
    assert scores(first)[-1].passed == sum(len(p.id) % 2 for p in chosen)


def test_empty_grades_have_no_score():
    assert [s.grade for s in scores([Graded("repair", "x", "passed", "", "")])] == ["repair", "all"]


@pytest.mark.parametrize(
    ("passed", "count", "low", "high"),
    # Wilson's interval at 95 %, from Brown, Cai and DasGupta 2001's definition computed by hand
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (1, 1, 0.2065, 1.0)],
)
def test_wilson_interval(passed, count, low, high):
    found = wilson(passed, count, z=1.959964)

    assert found.value == passed / count
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_its_share(case):
    found = wilson(*case)

    assert 0 <= found.low <= found.value <= found.high <= 1


def test_mean_and_error():
    assert mean_and_error([1.0, 2.0, 3.0]) == (2.0, pytest.approx(1 / 3**0.5))
    assert mean_and_error([4.0]) == (4.0, None)
