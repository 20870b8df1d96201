"""What the demo model learns from: the standard library's source as far as it teaches code, and snippets made by rule.

Left out of the source: tests, tables and generated code, files with the same text, comments, and docstrings but for
their first sentence. The files that `sizeup eval` takes its text from are held out.
"""

from __future__ import annotations

import ast
import hashlib
import io
import re
import sysconfig
import tokenize
from pathlib import Path
from typing import NamedTuple

from sizeup.workers.demo_snippets import snippets
from sizeup.workers.protocol import Refused

MAX_FILE_BYTES = 150_000
#: Letters of snippets for each letter of the standard library.
SNIPPET_SHARE = 0.8
#: More than this share of digits, quotes and commas is a table.
MAX_TABLE_SHARE = 0.18
SKIPPED = frozenset({"test", "tests", "idlelib", "encodings", "site-packages", "pydoc_data", "lib2to3", "turtledemo",
                     "ensurepip", "idle_test", "__pycache__", "__phello__"})  # fmt: skip
#: Files that hold the solution of a problem of `sizeup eval` (leap years).
SOLVING = frozenset({"calendar.py", "datetime.py", "_pydatetime.py"})
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Corpus(NamedTuple):
    """Documents to train on, those held out, and how many of the former are files."""

    trained: list[str]
    held_out: list[str]
    files: int

    @property
    def digest(self) -> str:
        """Of the documents that are trained on."""
        return hashlib.sha256("\0".join(self.trained).encode()).hexdigest()[:16]


def corpus(held_out: frozenset[str], seed: int) -> Corpus:
    """All of it. Raises Refused where Python has no sources."""
    root = Path(sysconfig.get_paths()["stdlib"])
    seen: set[str] = set()
    trained: list[str] = []
    kept: list[str] = []
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if (SKIPPED | SOLVING) & set(inside.parts) or path.stat().st_size > MAX_FILE_BYTES:
            continue
        text = code_of(path.read_text(encoding="utf-8", errors="replace"))
        if str(inside) in held_out:
            kept.append(text)
        elif text and text not in seen and not is_table(text):
            seen.add(text)
            trained.append(text)
    if not trained or not kept:
        raise Refused("missing", f"no source of the standard library in {root}")
    made = snippets(seed, int(SNIPPET_SHARE * sum(map(len, trained))))
    return Corpus(trained + made, kept, len(trained))


def is_table(text: str) -> bool:
    """Whether it is data rather than code."""
    return sum(letter in "0123456789,'\"" for letter in text) > MAX_TABLE_SHARE * len(text)


def code_of(text: str) -> str:
    """A source without comments, and of each docstring the first line; empty when it isn't Python."""
    try:
        tree = ast.parse(text)
        comments = [token for token in tokenize.generate_tokens(io.StringIO(text).readline)
                    if token.type == tokenize.COMMENT]  # fmt: skip
    except (SyntaxError, ValueError, tokenize.TokenError):
        return ""
    lines = text.splitlines(keepends=True)
    for token in comments:
        row, column = token.start
        lines[row - 1] = lines[row - 1][:column].rstrip() + "\n"
    for first, last, replacement in sorted(_docstrings(tree), reverse=True):
        indent = lines[first - 1][: len(lines[first - 1]) - len(lines[first - 1].lstrip())]
        lines[first - 1 : last] = [f"{indent}{replacement}\n"]
    return re.sub(r"\n{3,}", "\n\n\n", re.sub(r"[ \t]+\n", "\n", "".join(lines))).lstrip("\n")


def _docstrings(tree: ast.Module) -> list[tuple[int, int, str]]:
    """First and last line of each docstring of several lines, and what is put in its place."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, _DOCUMENTED) or ast.get_docstring(node) is None:
            continue
        expression = node.body[0]
        first, last = expression.lineno, expression.end_lineno or expression.lineno
        if last > first:
            sentence = (ast.get_docstring(node) or "").split("\n", 1)[0].replace("\\", "").replace('"', "'")
            found.append((first, last, f'"""{sentence}"""'))
    return found
