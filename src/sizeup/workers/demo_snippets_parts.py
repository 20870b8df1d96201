"""What the families of snippets are made of: nouns, conditions and changes of one item, each in words and in code."""

from __future__ import annotations

from random import Random
from typing import NamedTuple


class Snippet(NamedTuple):
    """A function: what it does, in words; its head; the lines of its body. Without words the body is all of it."""

    sentence: str
    head: str
    body: tuple[str, ...]


NOUNS = (
    ("numbers", "number"), ("numbers", "number"), ("numbers", "number"), ("values", "value"), ("prices", "price"),
    ("sizes", "size"), ("scores", "score"), ("heights", "height"), ("weights", "weight"), ("lengths", "length"),
    ("amounts", "amount"), ("ages", "age"), ("costs", "cost"), ("counts", "count"), ("years", "year"),
    ("points", "point"), ("levels", "level"), ("seconds", "second"), ("data", "x"), ("xs", "x"),
)  # fmt: skip
THINGS = (("items", "item"), ("items", "item"), ("names", "name"), ("lines", "line"), ("keys", "key"),
          ("entries", "entry"), ("words", "word"), ("rows", "row"), ("parts", "part"), ("things", "thing"))  # fmt: skip


def mapped(chooser: Random, item: str) -> tuple[str, str]:
    """A change of an item: `the squares of `, `number * number`; often none."""
    amount = chooser.randint(2, 12)
    return chooser.choice(
        (
            ("", item), ("", item), ("", item),
            ("the squares of ", f"{item} * {item}"),
            (f"{amount} times ", f"{amount} * {item}"),
            ("the absolute values of ", f"abs({item})"),
            ("half of ", f"{item} / 2"),
            ("the negatives of ", f"-{item}"),
            (f"{amount} more than ", f"{item} + {amount}"),
            ("the remainders by 10 of ", f"{item} % 10"),
        )
    )  # fmt: skip


def condition(chooser: Random, items: str, item: str, *, always: bool = False) -> tuple[str, str]:
    """Which items are meant, and the test of one: `the even numbers`, `number % 2 == 0`."""
    amount = chooser.choice((2, 3, 4, 5, 7, 10, 20, 100))
    tests = (
        (f"the even {items}", f"{item} % 2 == 0"),
        (f"the odd {items}", f"{item} % 2 == 1"),
        (f"the positive {items}", f"{item} > 0"),
        (f"the negative {items}", f"{item} < 0"),
        (f"the {items} above {amount}", f"{item} > {amount}"),
        (f"the {items} below {amount}", f"{item} < {amount}"),
        (f"the {items} that are at least {amount}", f"{item} >= {amount}"),
        (f"the {items} that {amount} divides", f"{item} % {amount} == 0"),
        (f"the {items} that are not 0", f"{item} != 0"),
    )
    if not always and chooser.random() < 0.45:
        return chooser.choice((f"the {items}", f"a list of {items}", f"all {items}")), ""
    return chooser.choice(tests)
