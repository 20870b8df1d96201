"""The coding problems that come with sizeup, in three grades, and what a model is shown of them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import msgspec

from sizeup.errors import BadInput

_FOLDER = Path(__file__).with_name("problems")
GRADES = ("completion", "function", "repair")


class Problem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One problem. Code always begins with `start`; the rest is a body that continues it.

    task: in words; completions have it in their docstring. given: the body that is to be repaired.
    answer: a body that passes. wrong: one that looks right and fails; of repairs it is `given`.
    tests: run after the code in its name space; hidden from the model.
    """

    id: str
    start: str
    answer: str
    tests: str
    grade: str = ""
    task: str = ""
    given: str = ""
    wrong: str = ""

    @property
    def reference(self) -> str:
        """The code of a solution that passes."""
        return self.start + self.answer

    @property
    def mistake(self) -> str:
        """The code of a solution that fails."""
        return self.start + (self.wrong or self.given)

    @property
    def name(self) -> str:
        """The function or class that is asked for."""
        return self.start.split()[1].partition("(")[0].rstrip(":")


class _File(msgspec.Struct):
    problem: tuple[Problem, ...]


@lru_cache(maxsize=1)
def problems() -> tuple[Problem, ...]:
    """All of them, by grade."""
    found: list[Problem] = []
    for grade in GRADES:
        content = msgspec.toml.decode((_FOLDER / f"{grade}.toml").read_bytes(), type=_File)
        found += [msgspec.structs.replace(problem, grade=grade) for problem in content.problem]
    return tuple(found)


def chosen(grades: str = "", most: int | None = None) -> tuple[Problem, ...]:
    """The problems of some grades (names with commas), at most so many of each. Raises BadInput."""
    wanted = [grade.strip() for grade in grades.split(",") if grade.strip()] or list(GRADES)
    unknown = [grade for grade in wanted if grade not in GRADES]
    if unknown:
        raise BadInput(f"no grade {unknown[0][:40]!r}", hint=f"one of {', '.join(GRADES)}")
    found = []
    for grade in wanted:
        found += [problem for problem in problems() if problem.grade == grade][:most]
    return tuple(found)
