"""The bundled problems are fair: each has a solution that passes and a mistake that doesn't."""

import pytest

from sizeup.errors import BadInput, MissingPart
from sizeup.measure.quality.problems import GRADES, chosen, problems
from sizeup.measure.quality.sandbox import Limits, run
from sizeup.measure.quality.sandboxes import find_sandbox


@pytest.fixture(scope="module")
def sandbox():
    try:
        return find_sandbox()
    except MissingPart as missing:
        pytest.skip(str(missing))


def test_there_are_enough_in_every_grade():
    counts = {grade: len(chosen(grade)) for grade in GRADES}

    assert len(problems()) >= 60
    assert min(counts.values()) >= 15
    assert len({problem.id for problem in problems()}) == len(problems())


@pytest.mark.parametrize("problem", problems(), ids=lambda p: f"{p.grade}-{p.id}")
def test_the_reference_passes_and_the_mistake_fails(problem, sandbox):
    assert run(sandbox, problem.reference, problem.tests).status == "passed"
    assert run(sandbox, problem.mistake, problem.tests, Limits(seconds=3, cpu=1)).status in {"failed", "out of time"}


@pytest.mark.parametrize("problem", problems(), ids=lambda p: f"{p.grade}-{p.id}")
def test_a_model_is_not_shown_the_tests(problem):
    shown = problem.start + problem.task + problem.given
    asserted = [line.strip() for line in problem.tests.splitlines() if line.strip().startswith("assert")]

    assert asserted
    assert not any(line in shown for line in asserted)


def test_an_unknown_grade_is_refused():
    with pytest.raises(BadInput, match="no grade 'hard'"):
        chosen("hard")
