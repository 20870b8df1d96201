"""What the demo model learns from: code without its comments, snippets that run, nothing of the evaluation problems."""

import ast
import builtins
import re
import signal
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizeup.measure.quality.problems import problems
from sizeup.measure.quality.texts import HELD_OUT_MODULES
from sizeup.workers.demo_corpus import code_of, corpus, is_table
from sizeup.workers.demo_snippets import FAMILIES, snippet, snippets


@pytest.fixture(scope="module")
def texts():
    return corpus(frozenset(HELD_OUT_MODULES), seed=1)


def plain(text):
    return " ".join(text.split())


class Renamed(ast.NodeTransformer):
    """The same code with its names numbered in the order in which they come."""

    def __init__(self):
        self.names = {}

    def _number(self, name):
        return name if hasattr(builtins, name) else self.names.setdefault(name, f"n{len(self.names)}")

    def visit_Name(self, node):
        return ast.Name(self._number(node.id), node.ctx)

    def visit_arg(self, node):
        return ast.arg(self._number(node.arg), None)


def shapes(code):
    """The body of each function with numbered names and without its docstring."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            renamed = Renamed()
            arguments = [renamed._number(one.arg) for one in node.args.args]
            yield str(arguments) + "\n".join(ast.dump(renamed.visit(statement)) for statement in body)


def test_no_problem_is_in_the_training_text(texts):
    """Neither a problem's sentence, nor its solution, not even under other names."""
    whole = plain("\n".join(texts.trained))
    seen = {shape for text in texts.trained for shape in shapes(text)}
    for problem in problems():
        for sentence in [*re.findall(r'"""(.*?)"""', problem.start, re.DOTALL), problem.task]:
            assert not sentence or plain(sentence) not in whole, problem.id
        assert plain(problem.answer) not in whole, problem.id
        assert not set(shapes(problem.reference)) & seen, problem.id


def test_the_search_for_solutions_sees_one_under_other_names():
    first = next(p for p in problems() if p.id == "running_total")
    other = first.reference.replace("totals", "a").replace("numbers", "b").replace("total", "c")

    assert list(shapes(first.reference)) == list(shapes(other))


class Late(Exception):
    """A snippet that takes too long for what it was given."""


def late(*_):
    raise Late


def solves(text, name, problem):
    """Whether a snippet's function passes a problem's hidden tests."""
    names = {}
    exec(text, names)
    names[problem.name] = names[name]
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        exec(problem.tests, names)
    except BaseException:
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return True


def parameters(code):
    """How many the first definition takes; None for a class."""
    node = ast.parse(code).body[0]
    return len(node.args.args) if isinstance(node, ast.FunctionDef) else None


def functions(seed, letters):
    """Snippets that are one function, once for each body."""
    found = {}
    for text in snippets(seed, letters):
        node = ast.parse(text).body[0]
        if isinstance(node, ast.FunctionDef):
            found.setdefault(tuple(shapes(text)), (text, node.name, parameters(text)))
    return found.values()


def solved(letters):
    before = signal.signal(signal.SIGALRM, late)
    try:
        for text, name, count in functions(1, letters):
            for problem in problems():
                if parameters(problem.reference) == count:
                    assert not solves(text, name, problem), (problem.id, text)
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(sys.platform == "win32", reason="needs setitimer")
def test_no_snippet_solves_a_problem():
    solved(200_000)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs setitimer")
def test_no_snippet_of_a_whole_training_solves_a_problem():
    solved(4_600_000)


@pytest.mark.skipif(sys.platform == "win32", reason="needs setitimer")
def test_a_solution_would_be_seen():
    problem = problems()[0]
    signal.signal(signal.SIGALRM, late)

    assert solves(problem.reference, problem.name, problem)


@given(st.integers())
def test_every_snippet_is_python(seed):
    chooser = Random(seed)
    compile(snippet(chooser), "snippet", "exec")
    for family in FAMILIES:
        made = family(chooser)
        assert made.body
        assert "  " not in made.sentence


def test_snippets_are_the_same_for_the_same_seed():
    assert snippets(3, 20_000) == snippets(3, 20_000) != snippets(4, 20_000)


def test_held_out_files_are_not_trained_on(texts):
    assert len(texts.held_out) == len(HELD_OUT_MODULES)
    assert not set(texts.held_out) & set(texts.trained)
    assert len(set(texts.trained[: texts.files])) == texts.files > 200
    assert texts.digest == corpus(frozenset(HELD_OUT_MODULES), seed=1).digest


def test_comments_and_all_but_the_first_line_of_a_docstring_are_left_out():
    code = '# licence\nimport os  # why\n\ndef f():\n    """Does it.\n\n    At length.\n    """\n    return "# no comment"\n'

    assert code_of(code) == 'import os\n\ndef f():\n    """Does it."""\n    return "# no comment"\n'


def test_what_is_not_python_is_nothing():
    assert code_of("def f(:") == ""
    assert code_of("x = 1\0") == ""


def test_tables_are_not_code():
    assert is_table("DATA = [" + "1, 2, 3, " * 100 + "]")
    assert not is_table(code_of(Path(ast.__file__).read_text()))
