"""Small functions made by rule: each says in words what it does, then does it.

They teach the demo model to go from a docstring to a body, which the standard library's source shows too rarely for
so small a model.

A family combines words and code that mean the same: *what* is done to *which* items, and what comes of *none*. No
combination solves a problem of `sizeup eval`, nor shares its sentence: tests/quality/test_demo_corpus.py runs what is
made here against every problem's hidden tests. Some are relatives of a problem (the product so far, of a sum so far),
so the demo model's pass@1 is no measure of anything but the demo model's own quantization.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

from sizeup.workers.demo_snippets_more import BAGS, CLASSES, LOOPS, TEXTS
from sizeup.workers.demo_snippets_parts import NOUNS, Snippet, condition, mapped

MOST_COPIES = 6


def snippets(seed: int, letters: int) -> list[str]:
    """Snippets, so many letters of them in all; small families don't come up again and again."""
    chooser = Random(f"snippets {seed}")  # noqa: S311  words, not secrets
    times: Counter[str] = Counter()
    made: list[str] = []
    left = letters
    while left > 0:
        text = snippet(chooser)
        times[text] += 1
        if times[text] <= MOST_COPIES:
            made.append(text)
        left -= len(text)
    return made


def snippet(chooser: Random) -> str:
    """One of them."""
    return _written(chooser.choice(FAMILIES)(chooser), chooser)


def _written(made: Snippet, chooser: Random) -> str:
    """A function with its sentence: in a docstring, or before it as a comment."""
    if not made.sentence:
        return "\n".join(made.body) + "\n"
    sentence = made.sentence[0].upper() + made.sentence[1:]
    if chooser.random() < 0.15:
        sentence = f"Return {made.sentence}"
    body = "".join(f"    {line}\n" for line in made.body)
    if chooser.random() < 0.1:
        return f"# {sentence}.\n{made.head}\n{body}"
    return f'{made.head}\n    """{sentence}."""\n{body}'


def _named(chooser: Random, *options: str) -> str:
    return chooser.choice(options)


def reduced(chooser: Random) -> Snippet:
    """One value of a list of numbers: `the sum of the squares of the even numbers`."""
    items, item = chooser.choice(NOUNS)
    map_words, value = mapped(chooser, item)
    which, test = condition(chooser, items, item)
    some = f" if {test}" if test else ""
    what, name, form = chooser.choice(_REDUCERS)
    sentence = f"{what} {map_words}{which}"
    inner = f"{value} for {item} in {items}{some}"
    whole = items if not test and value == item else inner
    if name in {"largest", "smallest"}:
        return _extreme(chooser, name, sentence, items, whole)
    head = f"def {name}_{_named(chooser, 'of', 'in', items, 'those')}({items}):"
    if chooser.random() < 0.4 and name == "sum":
        add = [f"total += {value}"]
        return Snippet(sentence, head, _loop(item, items, test, "total = 0", add, "return total"))
    if name == "product":
        add = [f"product *= {value}"]
        return Snippet(sentence, head, _loop(item, items, test, "product = 1", add, "return product"))
    if whole == items and name == "list":
        form = "list({})"
    return Snippet(sentence, head, (f"return {form.format(whole)}",))


_REDUCERS = (
    ("the sum of", "sum", "sum({})"),
    ("the product of", "product", ""),
    ("the largest of", "largest", "max({})"),
    ("the smallest of", "smallest", "min({})"),
    ("a list of", "list", "[{}]"),
    ("a sorted list of", "sorted", "sorted({})"),
    ("the different values of", "different", "set({})"),
)


def _extreme(chooser: Random, name: str, sentence: str, items: str, whole: str) -> Snippet:
    """The largest or smallest, and what it is when there is none."""
    function = {"largest": "max", "smallest": "min"}[name]
    head = f"def {name}_{_named(chooser, 'or_none', 'of', items)}({items}):"
    default = _named(chooser, "None", "None", "0", "1", "-1")
    end = f"; {default} {_named(chooser, 'for an empty list', 'without any')}"
    if whole == items and chooser.random() < 0.6:
        return Snippet(sentence + end, head, (f"return {function}({items}) if {items} else {default}",))
    inner = whole if whole == items else f"({whole})"
    return Snippet(sentence + end, head, (f"return {function}({inner}, default={default})",))


def averaged(chooser: Random) -> Snippet:
    """A mean, a share, a spread: two sums at once."""
    items, item = chooser.choice(NOUNS)
    kind = chooser.choice(("mean", "mean", "share", "span"))
    if kind == "span":
        end, default = chooser.choice((("; 0 for an empty list", "0"), ("; None for an empty list", "None")))
        words = f"the difference between the largest and the smallest of a list of {items}{end}"
        return Snippet(words, f"def span({items}):", (f"return max({items}) - min({items}) if {items} else {default}",))
    if kind == "share":
        which, test = condition(chooser, items, item, always=True)
        words = f"the share of {which}; 0 for an empty list"
        return Snippet(
            words,
            f"def share_of({items}):",
            (f"return sum({test} for {item} in {items}) / len({items}) if {items} else 0",),
        )
    mean = _named(chooser, "the mean", "the average", "the arithmetic mean")
    map_words, value = mapped(chooser, item)
    inner = items if value == item else f"{value} for {item} in {items}"
    default = _named(chooser, "0", "1", "-1", "0.0") if value == item else _named(chooser, "None", "None", "0", "-1")
    end = f"; {default} {_named(chooser, 'for an empty list', 'without any')}"
    body = (f"return sum({inner}) / len({items}) if {items} else {default}",)
    of = f"a list of {items}" if value == item else f"{map_words}the {items}"
    return Snippet(f"{mean} of {of}{end}", f"def average({items}):", body)


def counted(chooser: Random) -> Snippet:
    """How many items are such and such; whether any or all are."""
    items, item = chooser.choice(NOUNS)
    which, test = condition(chooser, items, item, always=True)
    kind = chooser.choice(("count", "any", "all", "first"))
    if kind == "count":
        if chooser.random() < 0.3:
            body = _loop(item, items, test, "count = 0", ["count += 1"], "return count")
        else:
            body = (f"return sum({test} for {item} in {items})",)
        return Snippet(f"how many of {which} there are", f"def count_{_named(chooser, 'of', items)}({items}):", body)
    if kind == "first":
        words = f"the first of {which}; None without any"
        body = (f"for {item} in {items}:", f"    if {test}:", f"        return {item}", "return None")
        return Snippet(words, f"def first_{item}({items}):", body)
    verb = {"any": "is any", "all": "are only"}[kind]
    words = f"whether there {verb} of {which}" if kind == "any" else f"whether {items} holds only {which}"
    return Snippet(words, f"def {kind}_{item}({items}):", (f"return {kind}({test} for {item} in {items})",))


def _loop(item: str, items: str, test: str, begin: str, inside: Sequence[str], end: str) -> tuple[str, ...]:
    deep = [f"    if {test}:", *(f"        {line}" for line in inside)] if test else [f"    {line}" for line in inside]
    return (begin, f"for {item} in {items}:", *deep, end)


def so_far(chooser: Random) -> Snippet:
    """A list that follows another: the largest so far, the product so far, the steps between neighbours."""
    items, item = chooser.choice(NOUNS)
    count = f"the first i + 1 {items}"
    kind = chooser.choice(("product", "largest", "smallest", "negative", "steps", "total", "total"))
    if kind == "total":
        return _total_so_far(chooser, items, item)
    head = f"def {_named(chooser, 'running', 'cumulative', 'each')}_{kind}({items}):"
    if kind == "steps":
        words = f"the differences between neighbouring {items}"
        return Snippet(words, head, (f"return [after - before for before, after in zip({items}, {items}[1:])]",))
    result = _named(chooser, "found", "results", f"{kind}s" if kind == "product" else "values")
    begin, step = {
        "product": ("1", [f"product *= {item}"]),
        "negative": ("0", [f"if {item} < 0:", "    negative += 1"]),
        "largest": ("None", [f"if largest is None or {item} > largest:", f"    largest = {item}"]),
        "smallest": ("None", [f"if smallest is None or {item} < smallest:", f"    smallest = {item}"]),
    }[kind]
    what = "how many were negative" if kind == "negative" else f"the {kind}"
    body = [f"{result}, {kind} = [], {begin}", f"for {item} in {items}:"]
    body += [f"    {line}" for line in (*step, f"{result}.append({kind})")]
    return Snippet(f"a list whose item i is {what} of {count}", head, (*body, f"return {result}"))


def _total_so_far(chooser: Random, items: str, item: str) -> Snippet:
    """Sums so far of something of each item."""
    map_words, value = "", item
    while value == item:
        map_words, value = mapped(chooser, item)
    totals, words = _named(chooser, "totals", "found", "results"), f"{map_words}the first i + 1 {items}"
    body = (f"{totals}, total = [], 0", f"for {item} in {items}:", f"    total += {value}",
            f"    {totals}.append(total)", f"return {totals}")  # fmt: skip
    return Snippet(f"a list whose item i is the sum of {words}", f"def sums({items}):", body)


def tables(chooser: Random) -> Snippet:
    """Of rows, of columns, of all the items of all rows."""
    kind = chooser.choice(("rows", "columns", "items", "copy"))
    word, call = chooser.choice(
        (("sum", "sum({})"), ("largest", "max({})"), ("smallest", "min({})"), ("length", "len({})"),
         ("sorted", "sorted({})"), ("first item", "{}[0]"), ("set", "set({})"))
    )  # fmt: skip
    if kind == "columns" and word == "sorted":
        word, call = "set", "set({})"
    if kind == "copy":
        words = _named(chooser, "a copy of a table: every row is a new list", "the rows of a table as new lists")
        return Snippet(words, "def copy_table(rows):", ("return [list(row) for row in rows]",))
    if kind == "items":
        map_words, value = mapped(chooser, "item")
        which, test = "", "item != 0"
        while test == "item != 0":
            which, test = condition(chooser, "items", "item", always=value == "item")
        some = f" if {test}" if test else ""
        words = f"{map_words}{which.removeprefix('the ')} of all rows in one list"
        return Snippet(words, "def all_items(rows):", (f"return [{value} for row in rows for item in row{some}]",))
    one = {"rows": "row", "columns": "column"}[kind]
    source = {"rows": "rows", "columns": "zip(*rows)"}[kind]
    words = (
        f"a list of the {word} of each {one} of a table" if word != "sorted" else f"the {kind} of a table, each sorted"
    )
    if kind == "columns":
        words += _named(chooser, "", "; all rows have the same length", "; an empty table has none")
    return Snippet(words, f"def {one}_values(rows):", (f"return [{call.format(one)} for {one} in {source}]",))


Family = Callable[[Random], Snippet]
FAMILIES: tuple[Family, ...] = (
    reduced, reduced, averaged, counted, so_far, tables, *TEXTS, *BAGS, *LOOPS, *CLASSES,
)  # fmt: skip
