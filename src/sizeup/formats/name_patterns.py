"""The lists in a quantization config that say which modules it leaves alone.

Three dialects: transformers (a prefix up to a dot, a suffix, or a regular expression), compressed-tensors (an exact
name or `re:…`), modelopt (globs). A config is a foreign file: expressions that could take for ever are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import msgspec

from sizeup.errors import BadConfig

_SPECIAL = frozenset("*+?|()[]{}^$\\")
_LONGEST = 400
_MOST_REPEATS = 6


class NamePatterns(msgspec.Struct, frozen=True):
    """Names to match, sorted by how they are matched.

    exact: the whole module name. prefixes: up to a dot. suffixes: its end. expressions: regular, from its start.
    """

    exact: frozenset[str] = frozenset()
    prefixes: frozenset[str] = frozenset()
    suffixes: tuple[str, ...] = ()
    expressions: tuple[str, ...] = ()

    def match(self, module: str) -> bool:
        """Whether any pattern matches this module name."""
        if module in self.exact or (self.suffixes and module.endswith(self.suffixes)):
            return True
        if self.prefixes and any(module[:end] in self.prefixes for end in _boundaries(module)):
            return True
        return bool(self.expressions) and any(match(module) for match in _matchers(self.expressions))


@lru_cache(maxsize=64)
def _matchers(expressions: tuple[str, ...]) -> tuple[Callable[[str], object], ...]:
    import re

    return tuple(re.compile(expression).match for expression in expressions)


def _boundaries(module: str) -> list[int]:
    return [i for i, char in enumerate(module) if char == "."] + [len(module)]


def transformers_patterns(names: object) -> NamePatterns:
    """`modules_to_not_convert` and its like, as should_convert_module of transformers 5.23 reads them."""
    plain, special = _split(names)
    ends = r"(?:(?<=\.)|(?=\.|$))"
    expressions = tuple(_safe(f"(?:{text})", text) + ends for text in special)
    return NamePatterns(prefixes=frozenset(plain), suffixes=tuple(plain), expressions=expressions)


def compressed_tensors_patterns(names: object) -> NamePatterns:
    """`ignore` and `targets` of compressed-tensors: an exact module name, or an expression after `re:`."""
    texts = _strings(names)
    exact = frozenset(text for text in texts if not text.startswith("re:"))
    expressions = tuple(_safe(text[3:], text) for text in texts if text.startswith("re:"))
    return NamePatterns(exact=exact, expressions=expressions)


def glob_patterns(names: object) -> NamePatterns:
    """Modelopt's `ignore` and `exclude_modules`: names with `*` for anything."""
    texts = _strings(names)
    exact = frozenset(text for text in texts if "*" not in text)
    expressions = tuple(_safe(_glob(text), text) + "$" for text in texts if "*" in text)
    return NamePatterns(exact=exact, prefixes=exact, expressions=expressions)


def expression_pattern(text: str) -> NamePatterns:
    """A single regular expression, matched from the start of the name."""
    return NamePatterns(expressions=(_safe(text, text),))


def _split(names: object) -> tuple[list[str], list[str]]:
    texts = _strings(names)
    return [t for t in texts if not _SPECIAL & set(t)], [t for t in texts if _SPECIAL & set(t)]


def _strings(names: object) -> list[str]:
    if names is None:
        return []
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise BadConfig(f"a list of module names was expected, not {str(names)[:80]!r}", hint="see quantization_config")
    return [name for name in names if name]


def _glob(text: str) -> str:
    while "**" in text:
        text = text.replace("**", "*")
    escaped = "".join("\\" + char if char in _SPECIAL - {"*"} or char == "." else char for char in text)
    return escaped.replace("*", ".*")


def _safe(expression: str, shown: str) -> str:
    """The expression, when it compiles and can't backtrack for ever. Raises BadConfig otherwise."""
    import re

    repeats = sum(expression.count(char) for char in "*+{")
    nested = any(f"){char}" in expression for char in "*+{")
    if len(expression) > _LONGEST or repeats > _MOST_REPEATS or nested:
        raise BadConfig(f"refused a costly pattern in quantization_config: {shown[:80]!r}", hint="simplify the pattern")
    try:
        re.compile(expression)
    except re.error as error:
        raise BadConfig(f"bad pattern in quantization_config: {shown[:80]!r}: {error}", hint="correct it") from error
    return expression
