"""From a problem to what a model is asked, and from what it says to code that can be run.

A model is asked in chat when it has a template for that, else to go on from the beginning of the code.
"""

from __future__ import annotations

import re
import textwrap

from sizeup.engines.protocol import Ask, Message
from sizeup.measure.quality.problems import Problem

MOST_TOKENS = 768
_SYSTEM = "You write Python. Answer with one block of code that holds the whole solution, and nothing else."
_FENCE = re.compile(r"```[\w+-]*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_DEFINES = ("def ", "class ")
#: A line that begins with one of these belongs to what is above it.
_GOES_ON = (" ", "\t", ")", "]", "}", "#", '"""', "'''", "@")


def ask_for(problem: Problem, *, chat: bool, tokens: int = MOST_TOKENS) -> Ask:
    """What a model is asked, greedily and with a fixed seed."""
    if chat:
        messages = (Message("system", _SYSTEM), Message("user", _request(problem)))
        return Ask(messages=messages, tokens=tokens)
    return Ask(prompt=_beginning(problem), tokens=tokens)


def code_of(problem: Problem, said: str, *, chat: bool) -> str:
    """The code in an answer; never empty, so that a missing answer fails its tests."""
    if chat:
        return _from_chat(problem, said)
    # some servers leave out the line break that an answer begins with
    return problem.start.rstrip() + first_body(f"\n{said}" if said.startswith("    ") else said)


def first_body(text: str) -> str:
    """The lines that continue a function or class, up to the first statement at the margin.

    Further definitions stay, as they may be helpers; models often go on with examples, which would run.
    """
    kept: list[str] = []
    for line in text.split("\n"):
        at_margin = bool(line.strip()) and not line.startswith(_GOES_ON)
        if at_margin and not line.startswith(_DEFINES) and any(other.strip() for other in kept):
            break
        kept.append(line)
    return "\n".join(kept) + "\n"


def _request(problem: Problem) -> str:
    code = f"```python\n{problem.start}{problem.given}```"
    if problem.grade == "completion":
        return f"Complete this function. Answer with the whole of it.\n\n{code}"
    if problem.grade == "repair":
        return f"This code is wrong or unsuitable:\n\n{code}\n\n{problem.task}\n\nAnswer with the corrected code."
    return f"{problem.task}\n\nIt begins like this:\n\n{code}"


def _beginning(problem: Problem) -> str:
    """The code up to where the answer begins, with the task as a comment.

    It ends before the line break: tokenizers join that with the blanks behind it, so that a prompt ending in it is one
    that no model has seen.
    """
    start = problem.start.rstrip()
    comment = "".join(f"# {line}\n" for line in textwrap.wrap(problem.task, 100))
    if not problem.given:
        return comment + start
    return f"{comment}\n# Before:\n{problem.start}{problem.given}\n\n# Corrected:\n{start}"


def _from_chat(problem: Problem, said: str) -> str:
    """The block that defines what was asked for, else the longest; a bare body is put behind its head."""
    text = _THOUGHT.sub("", said)
    blocks: list[str] = [block for block in _FENCE.findall(text) if block.strip()] or [text]
    head = re.compile(rf"^(?:def|class)\s+{problem.name}\b", re.MULTILINE)
    defining = [block for block in blocks if head.search(block)]
    if defining:
        return max(defining, key=len) + "\n"
    body = textwrap.dedent(max(blocks, key=len)).strip("\n")
    return problem.start + textwrap.indent(body, "    ") + "\n"
