"""Plain text for people: tables, trees, bars. No dependency but click's styles, so that answers come fast."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence

import click

_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def width() -> int:
    """Columns of the terminal, at most 120; 100 when piped."""
    return min(shutil.get_terminal_size((100, 24)).columns, 120)


def visible(text: str) -> int:
    """Columns a text takes, without its colour codes."""
    return len(_ESCAPES.sub("", text))


def bold(text: str) -> str:
    """Emphasis for names and totals."""
    return click.style(text, bold=True)


def dim(text: str) -> str:
    """For what explains and may be skipped."""
    return click.style(text, dim=True)


def good(text: str) -> str:
    """For yes; never the only sign of it."""
    return click.style(text, fg="green")


def warn(text: str) -> str:
    """For almost; never the only sign of it."""
    return click.style(text, fg="yellow")


def bad(text: str) -> str:
    """For no; never the only sign of it."""
    return click.style(text, fg="red")


def heading(text: str, remark: str = "") -> str:
    """A heading line with a remark beside it."""
    return bold(text) + (f"  {dim(remark)}" if remark else "")


def bar(share: float, cells: int = 20) -> str:
    """A share from 0 to 1 as a bar of that many cells, to an eighth of a cell."""
    eighths = round(max(0.0, min(1.0, share)) * cells * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(cells)


def table(rows: Iterable[Sequence[str]], *, header: Sequence[str] = (), align: str = "", gap: int = 2) -> list[str]:
    """Lines of a table. align: one letter for each column, `<` left (default), `>` right.

    The last left-aligned column isn't padded, so that lines carry no trailing blanks.
    """
    lines = [list(row) for row in rows]
    if header:
        lines.insert(0, [dim(cell) for cell in header])
    if not lines:
        return []
    columns = max(len(line) for line in lines)
    widths = [max((visible(line[i]) for line in lines if i < len(line)), default=0) for i in range(columns)]
    align = align.ljust(columns, "<")
    return [(" " * gap).join(_cell(c, widths[i], align[i]) for i, c in enumerate(line)).rstrip() for line in lines]


def _cell(text: str, size: int, align: str) -> str:
    blanks = " " * (size - visible(text))
    return blanks + text if align == ">" else text + blanks


def branches(depths: Sequence[int]) -> list[str]:
    """The `├─` prefixes of a tree given the depth of each line, parents first; the root (depth 0) has none."""
    prefixes = []
    for place, depth in enumerate(depths):
        prefix = ""
        for level in range(1, depth + 1):
            more = _continues(depths, place, level)
            prefix += ("├─ " if more else "└─ ") if level == depth else ("│  " if more else "   ")
        prefixes.append(prefix)
    return prefixes


def _continues(depths: Sequence[int], place: int, level: int) -> bool:
    for later in depths[place + 1 :]:
        if later < level:
            return False
        if later == level:
            return True
    return False


def wrap(text: str, indent: str = "") -> list[str]:
    """A paragraph broken at the terminal's width."""
    import textwrap

    return textwrap.wrap(text, width(), initial_indent=indent, subsequent_indent=indent) or [""]
