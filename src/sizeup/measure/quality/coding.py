"""Coding problems put to a model, each answer run against hidden tests in a sandbox: pass@1 by grade."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from sizeup.engines.openai import OpenAI
from sizeup.engines.protocol import Endpoint
from sizeup.measure.quality.answers import ask_for, code_of
from sizeup.measure.quality.problems import GRADES, Problem
from sizeup.measure.quality.sandbox import Limits, Outcome, Sandbox, run
from sizeup.measure.quality.statistics import wilson
from sizeup.progress import tell
from sizeup.quantity import Interval

#: What a model says to a problem.
Answerer = Callable[[Problem], str]


class Graded(msgspec.Struct, frozen=True):
    """One problem's outcome. status: passed, failed, `out of time`, `out of memory`."""

    grade: str
    id: str
    status: str
    detail: str
    code: str

    @property
    def passed(self) -> bool:
        """Whether every hidden test held."""
        return self.status == "passed"


class GradeScore(msgspec.Struct, frozen=True):
    """pass@1 of one grade, or of all: the share that passed, with its 90 % Wilson interval."""

    grade: str
    passed: int
    count: int
    share: Interval


def answerer(engine: OpenAI, endpoint: Endpoint, *, chat: bool, tokens: int) -> Answerer:
    """Ask a server, one problem at a time, greedily."""

    def answer(problem: Problem) -> str:
        ask = ask_for(problem, chat=chat, tokens=tokens)
        return "".join(arrival.chunk.text for arrival in engine.stream(endpoint, [ask]))

    return answer


def grade(
    problems: Sequence[Problem], answer: Answerer, sandbox: Sandbox, *, chat: bool, limits: Limits | None = None
) -> Iterator[Graded]:
    """Put each problem to the model and run what it says; results come one by one."""
    for number, problem in enumerate(problems):
        tell(f"{problem.grade}: {problem.id}", number, len(problems))
        code = code_of(problem, answer(problem), chat=chat)
        outcome: Outcome = run(sandbox, code, problem.tests, limits)
        yield Graded(problem.grade, problem.id, outcome.status, outcome.detail, code)
    tell("graded", len(problems), len(problems))


def scores(graded: Sequence[Graded]) -> tuple[GradeScore, ...]:
    """pass@1 by grade, and of all of them as grade `all`."""
    groups = [(name, [g for g in graded if g.grade == name]) for name in GRADES]
    return tuple(_score(name, group) for name, group in [*groups, ("all", list(graded))] if group)


def _score(name: str, group: Sequence[Graded]) -> GradeScore:
    passed = sum(one.passed for one in group)
    return GradeScore(name, passed, len(group), wilson(passed, len(group)))
