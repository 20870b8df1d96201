"""More families of snippets: text and words, lists and dicts, loops and decisions, classes and everyday lines."""

from __future__ import annotations

from random import Random

from sizeup.workers.demo_snippets_parts import THINGS, Snippet

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_VOWELS = set("aeiou")


def letters(chooser: Random) -> Snippet:
    """How many letters are such, or those letters alone."""
    wanted = sorted(chooser.sample(_LETTERS, chooser.randint(2, 5)))
    if set(wanted) == _VOWELS:
        wanted = ["x", "y"]
    listed = ", ".join(wanted)
    letter = chooser.choice(("letter", "letter", "character"))
    both = chooser.random() < 0.4
    source = "text.lower()" if both else "text"
    end = ", in upper or lower case" if both else ""
    which, test = chooser.choice(
        (
            (f"are one of {listed}{end}", f'{letter} in "{"".join(wanted)}"'),
            (f"are one of {listed}{end}", f'{letter} in "{"".join(wanted)}"'),
            (f"are {wanted[0]}{end}", f'{letter} == "{wanted[0]}"'),
            (f"are not {wanted[0]}{end}", f'{letter} != "{wanted[0]}"'),
        )
    )
    if chooser.random() < 0.3:
        source = "text"
        which, test = chooser.choice(
            (("are digits", f"{letter}.isdigit()"), ("are in upper case", f"{letter}.isupper()"),
             ("are blanks", f"{letter}.isspace()"), ("are letters or digits", f"{letter}.isalnum()"))
        )  # fmt: skip
    if chooser.random() < 0.6:
        words = f"how many {letter}s of the text {which}"
        return Snippet(words, f"def count_{letter}s(text):", (f"return sum({test} for {letter} in {source})",))
    words = f"the {letter}s of the text that {which}"
    return Snippet(words, "def keep(text):", (f'return "".join({letter} for {letter} in {source} if {test})',))


def words(chooser: Random) -> Snippet:
    """Something of each word, put together again."""
    part, piece = chooser.choice(
        (("the first letter", "word[0]"), ("the last letter", "word[-1]"), ("the first two letters", "word[:2]"),
         ("each word", "word"), ("the letters from the back", "word[::-1]"), ("the last letter", "word[-1]"))
    )  # fmt: skip
    of = "" if part == "each word" else " of each word"
    case, call = chooser.choice((("", ""), (" in upper case", ".upper()"), (" in lower case", ".lower()")))
    mark = chooser.choice("-/_.;:+|")
    name = {"-": "dash", "/": "slash", "_": "underscore", ".": "dot", ";": "semicolon", ":": "colon", "+": "plus"}
    kind = chooser.choice(("joined", "followed", "list"))
    source = chooser.choice(("text", "name", "sentence"))
    head = f"def {chooser.choice(('short', 'letters', 'parts', 'label'))}({source}):"
    if part == "the first letter" and mark == ".":
        mark = ";"
    each = f"{piece}{call}"
    if kind == "joined":
        sentence = f"{part}{of}{case}, joined by {name.get(mark, 'a bar')}"
        return Snippet(sentence, head, (f'return "{mark}".join({each} for word in {source}.split())',))
    if kind == "followed":
        sentence = f"{part}{of}{case}, each followed by a {name.get(mark, 'bar')}"
        return Snippet(sentence, head, (f'return "".join({each} + "{mark}" for word in {source}.split())',))
    return Snippet(f"a list of {part}{of}{case}", head, (f"return [{each} for word in {source}.split()]",))


def texts(chooser: Random) -> Snippet:
    """One call or two on a text."""
    mark = chooser.choice((":", "=", ",", ";", "/", "-", "#"))
    sentence, head, body = chooser.choice(
        (
            (f'what stands before the first "{mark}"', "def before(text):", f'return text.partition("{mark}")[0]'),
            (f'what stands behind the first "{mark}"', "def behind(text):", f'return text.partition("{mark}")[2]'),
            (f'the parts between "{mark}", without blanks around them', "def parts(text):",
             f'return [part.strip() for part in text.split("{mark}")]'),
            ("the words in the opposite order", "def turn(text):", 'return " ".join(reversed(text.split()))'),
            ('the last word of a sentence in alphabetical order; "" without any', "def last_word(sentence):",
             'return max(sentence.split(), default="")'),
            ("how many words there are", "def count_words(text):", "return len(text.split())"),
            ("the lines that are not empty", "def filled(text):",
             "return [line for line in text.splitlines() if line.strip()]"),
            (f'whether the text begins with "{mark}"', "def begins(text):", f'return text.startswith("{mark}")'),
            (f'the text without any "{mark}"', "def without(text):", f'return text.replace("{mark}", "")'),
            ("the words with a capital letter", "def names(text):",
             "return [word for word in text.split() if word[0].isupper()]"),
            ("the text in quotes", "def quoted(text):", "return '\"' + text + '\"'"),
            ("the length of the longest line; 0 without any", "def width(lines):",
             "return max((len(line) for line in lines), default=0)"),
            ("the name and the value as one line", "def line(name, value):", 'return f"{name}: {value}"'),
        )
    )  # fmt: skip
    return Snippet(sentence, head, (body,))


def extremes(chooser: Random) -> Snippet:
    """The longest or shortest of some texts."""
    which, call = chooser.choice((("longest", "max"), ("shortest", "min")))
    thing, source, given = chooser.choice(
        (("word of a sentence", "sentence.split()", "sentence"), ("word of a text", "text.split()", "text"),
         ("line of a text", "text.splitlines()", "text"), ("of a list of words", "words", "words"),
         ("of some names", "names", "names"), ("part between commas", 'text.split(",")', "text"))
    )  # fmt: skip
    if "split()" in source:
        which, call = "shortest", "min"
    default = chooser.choice(('""', '"-"', "None"))
    tie = chooser.choice(("", "; the first of those that tie"))
    sentence = f"the {which} {thing}{tie}; {default} without any"
    return Snippet(sentence, f"def {which}({given}):", (f"return {call}({source}, key=len, default={default})",))


def digits(chooser: Random) -> Snippet:
    """The digits of a whole number."""
    sentence, body = chooser.choice(
        (
            ("the sum of the decimal digits of a whole number", "sum(int(digit) for digit in str(abs(number)))"),
            ("the largest decimal digit of a whole number", "max(int(digit) for digit in str(abs(number)))"),
            ("how many decimal digits a whole number has; the sign is left out", "len(str(abs(number)))"),
            ("twice each decimal digit of a whole number, as a list", "[2 * int(digit) for digit in str(abs(number))]"),
            ("the decimal digits of a whole number, as a list of texts", "[digit for digit in str(abs(number))]"),
            ("the even digits of a whole number, as a list of ints",
             "[int(digit) for digit in str(abs(number)) if int(digit) % 2 == 0]"),
            ("the squares of the decimal digits of a whole number, as a list of ints; the sign is left out",
             "[int(digit) ** 2 for digit in str(abs(number))]"),
            ("the decimal digits of a whole number from left to right, each one more, as a list of ints",
             "[int(digit) + 1 for digit in str(abs(number))]"),
            ("the digits of a whole number from right to left, as a list of ints",
             "[int(digit) for digit in reversed(str(abs(number)))]"),
        )
    )  # fmt: skip
    return Snippet(sentence, f"def {chooser.choice(('digits', 'digit_list', 'figures'))}(number):", (f"return {body}",))


def lists(chooser: Random) -> Snippet:
    """A part or a new order of a list; the given list stays."""
    items, item = chooser.choice(THINGS)
    n = chooser.randint(2, 5)
    left = chooser.choice(("; the given list is left as it is", ""))
    sentence, head, body = chooser.choice(
        (
            (f"the first {n} {items}", f"def head({items}):", (f"return {items}[:{n}]",)),
            (f"the last {n} {items}", f"def tail({items}):", (f"return {items}[-{n}:]",)),
            (f"every {n}. of the {items}", f"def some({items}):", (f"return {items}[::{n}]",)),
            (f"the {items} without the first and the last", f"def middle({items}):", (f"return {items}[1:-1]",)),
            (f"the {items} in the opposite order", f"def turned({items}):", (f"return {items}[::-1]",)),
            (f"the last of the {items}; None for an empty list", f"def last({items}):",
             (f"return {items}[-1] if {items} else None",)),
            (f"a new list with the first {item} once more at the end{left}", f"def closed({items}):",
             (f"closed = list({items})", "if closed:", "    closed.append(closed[0])", "return closed")),
            (f"a new list with the last {item} replaced by None{left}", f"def hidden({items}):",
             (f"hidden = list({items})", "if hidden:", "    hidden[-1] = None", "return hidden")),
            (f"a new list with the first and the second {item} exchanged{left}", f"def changed({items}):",
             (f"changed = list({items})", "if len(changed) > 1:",
              "    changed[0], changed[1] = changed[1], changed[0]", "return changed")),
            (f"a new list with the last two {items} exchanged{left}", f"def changed({items}):",
             (f"changed = list({items})", "if len(changed) > 1:",
              "    changed[-1], changed[-2] = changed[-2], changed[-1]", "return changed")),
            (f"the {items} without repetitions, in order", f"def unique({items}):",
             ("seen = []", f"for {item} in {items}:", f"    if {item} not in seen:", f"        seen.append({item})",
              "return seen")),
            (f"the different {items} from the largest down", f"def ranking({items}):",
             (f"return sorted(set({items}), reverse=True)",)),
            (f"how many different {items} there are", f"def variety({items}):", (f"return len(set({items}))",)),
            (f"whether the {items} are in rising order", f"def rising({items}):",
             (f"return {items} == sorted({items})",)),
            (f"each of the {items} with its number, from 1", f"def numbered({items}):",
             (f"return [(number, {item}) for number, {item} in enumerate({items}, 1)]",)),
            (f"the {items} of both lists by turns", f"def zipped({items}, others):",
             (f"return [one for pair in zip({items}, others) for one in pair]",)),
        )
    )  # fmt: skip
    return Snippet(sentence, head, body)


def ranked(chooser: Random) -> Snippet:
    """The third largest, the second smallest, and so on: any but the second largest."""
    items = chooser.choice(("numbers", "values", "scores", "prices", "items"))
    rank, name = chooser.choice(((1, "second"), (2, "third"), (3, "fourth")))
    which = "smallest" if rank == 1 else chooser.choice(("largest", "smallest"))
    place = rank if which == "smallest" else -rank - 1
    fewer = {1: "two", 2: "three", 3: "four"}[rank]
    body = (f"different = sorted(set({items}))", f"return different[{place}] if len(different) > {rank} else None")
    sentence = f"the {name} {which} of the different {items} in a list; None when there are fewer than {fewer}"
    return Snippet(sentence, f"def {name}_{which}({items}):", body)


def slices(chooser: Random) -> Snippet:
    """Something of each so many items; the last ones may be fewer."""
    size = chooser.choice(("size", "width", "count", "n"))
    items = chooser.choice(("items", "numbers", "values", "lines"))
    what, call = chooser.choice(
        (("the sums", "sum({})"), ("the largest", "max({})"), ("the smallest", "min({})"), ("the lengths", "len({})"),
         ("tuples", "tuple({})"), ("sets", "set({})"))
    )  # fmt: skip
    stretch = call.format(f"{items}[start : start + {size}]")
    body = (f"return [{stretch} for start in range(0, len({items}), {size})]",)
    return Snippet(
        f"{what} of each {size} {items}, in order; the last may be of fewer", f"def parts({items}, {size}):", body
    )


def windows(chooser: Random) -> Snippet:
    """Stretches of a list that overlap."""
    size = chooser.choice(("size", "width", "count"))
    what, call = chooser.choice(
        (("the stretches", "{}"), ("the sums", "sum({})"), ("the largest", "max({})"), ("the smallest", "min({})"))
    )
    items = chooser.choice(("items", "numbers", "values"))
    sentence = f"{what} of each {size} neighbouring {items}"
    stretch = f"{items}[start : start + {size}]"
    return Snippet(
        sentence,
        f"def stretches({items}, {size}):",
        (f"return [{call.format(stretch)} for start in range(len({items}) - {size} + 1)]",),
    )


def groups(chooser: Random) -> Snippet:
    """A dict made from a list."""
    items, item = chooser.choice((("words", "word"), ("names", "name"), ("lines", "line")))
    by, key = chooser.choice(
        (("length", f"len({item})"), ("first letter", f"{item}[0]"), ("last letter", f"{item}[-1]"))
    )
    kind = chooser.choice(("group", "group", "sorted", "count", "plain"))
    if kind == "plain":
        return Snippet(
            f"a dict from each of the {items} to its {by}", f"def table({items}):",
            (f"return {{{item}: {key} for {item} in {items}}}",),
        )  # fmt: skip
    if kind == "count":
        add = ("    counts[key] = counts.get(key, 0) + 1", "return counts")
        counting = ("counts = {}", f"for {item} in {items}:", f"    key = {key}", *add)
        return Snippet(f"a dict from each {by} to how many {items} have it", f"def counts({items}):", counting)
    name = chooser.choice(("groups", "found", "table"))
    end = f"return {name}"
    which = "list"
    if kind == "sorted":
        which, end = "sorted list", f"return {{key: sorted(group) for key, group in {name}.items()}}"
    body = (f"{name} = {{}}", f"for {item} in {items}:", f"    {name}.setdefault({key}, []).append({item})", end)
    return Snippet(f"a dict from each {by} to the {which} of the {items} that had it", f"def grouped({items}):", body)


def mappings(chooser: Random) -> Snippet:
    """Something of a dict."""
    mapping = chooser.choice(("mapping", "table", "prices", "settings"))
    n = chooser.randint(1, 100)
    sentence, body = chooser.choice(
        (
            (f"the sorted keys whose value is above {n}",
             f"sorted(key for key, value in {mapping}.items() if value > {n})"),
            ("a dict from each value to its key", f"{{value: key for key, value in {mapping}.items()}}"),
            ("the sum of all values", f"sum({mapping}.values())"),
            ("the key with the largest value", f"max({mapping}, key={mapping}.get)"),
            (f"a dict in which every value is {n} times as large",
             f"{{key: {n} * value for key, value in {mapping}.items()}}"),
            ("the lines key=value, sorted", f'[f"{{key}}={{value}}" for key, value in sorted({mapping}.items())]'),
            ("a dict without the empty values", f"{{key: value for key, value in {mapping}.items() if value}}"),
        )
    )  # fmt: skip
    return Snippet(sentence, f"def {chooser.choice(('pick', 'view', 'change'))}({mapping}):", (f"return {body}",))


def decisions(chooser: Random) -> Snippet:
    """A comparison or two of numbers."""
    a, b = chooser.sample((2, 3, 5, 6, 7, 9, 10, 11, 12), 2)
    x = chooser.choice(("number", "value", "count", "size"))
    sentence, head, body = chooser.choice(
        (
            (f"whether {a} divides a {x}, but {b} doesn't", f"def fits({x}):",
             f"return {x} % {a} == 0 and {x} % {b} != 0"),
            (f"whether {a} or {b} divides a {x}", f"def divides({x}):", f"return {x} % {a} == 0 or {x} % {b} == 0"),
            (f"the {x}, but at least low", f"def at_least({x}, low):", f"return max({x}, low)"),
            (f"the {x}, but at most high", f"def at_most({x}, high):", f"return min({x}, high)"),
            (f"whether a {x} lies between low and high", f"def within({x}, low, high):", f"return low <= {x} <= high"),
            ("the larger of two numbers", "def larger(a, b):", "return max(a, b)"),
            ("the distance between two numbers", "def distance(a, b):", "return abs(a - b)"),
            (f"a {x} rounded down to a multiple of {a}", f"def rounded({x}):", f"return {x} // {a} * {a}"),
            (f"the {x} in percent of the whole; 0 when there is none", f"def percent({x}, whole):",
             f"return 100 * {x} / whole if whole else 0"),
        )
    )  # fmt: skip
    return Snippet(sentence, head, (body,))


def whiles(chooser: Random) -> Snippet:
    """Loops that end when something is small or large enough."""
    n, limit = chooser.randint(2, 9), chooser.choice((1, 10, 100))
    x = chooser.choice(("number", "value", "amount"))
    sentence, head, body = chooser.choice(
        (
            (f"how many times to divide a {x} by {n}, rounded down, until it is below {limit}",
             f"def divisions({x}):",
             ("steps = 0", f"while {x} >= {limit}:", f"    {x} = {x} // {n}", "    steps += 1", "return steps")),
            (f"how many times to add {n} to a {x} until it is {limit * 10} or more", f"def additions({x}):",
             ("count = 0", f"while {x} < {limit * 10}:", f"    {x} += {n}", "    count += 1", "return count")),
            (f"the smallest power of {n} that is not below a {x}", f"def next_power({x}):",
             ("power = 1", f"while power < {x}:", f"    power *= {n}", "return power")),
            (f"the numbers from a {x} down to 0", f"def countdown({x}):",
             ("steps = []", f"while {x} >= 0:", f"    steps.append({x})", f"    {x} -= 1", "return steps")),
            (f"the first {n} multiples of a {x}", f"def multiples({x}):",
             (f"return [{x} * factor for factor in range(1, {n + 1})]",)),
            (f"the squares below a {x}", f"def squares({x}):",
             ("found, root = [], 0", f"while root * root < {x}:", "    found.append(root * root)", "    root += 1",
              "return found")),
        )
    )  # fmt: skip
    return Snippet(sentence, head, body)


_FIELDS = ("name", "size", "value", "path", "width", "height", "title", "parent", "index", "x", "y", "z", "a", "b",
           "left", "right", "start", "end", "key", "text", "color", "items", "options", "level", "file",
           "data")  # fmt: skip


def sums(chooser: Random) -> Snippet:
    """Arithmetic on two or three names."""
    a, b = chooser.sample(_FIELDS, 2)
    sign, word = chooser.choice((("+", "add"), ("-", "subtract"), ("*", "multiply"), ("/", "divide")))
    return Snippet("", "", (f"def {word}({a}, {b}):", f"    return {a} {sign} {b}"))


def classes(chooser: Random) -> Snippet:
    """A class that keeps what it is given, with a method or two."""
    names = chooser.sample(_FIELDS, chooser.randint(2, 4))
    first, second = names[0], names[-1]
    kind = chooser.choice(("Item", "Node", "Box", "Entry", "Option", "Record", "Shape", "Task", "Point", "Line"))
    body = [f"class {kind}:", f"    def __init__(self, {', '.join(names)}{chooser.choice(('', '=None'))}):"]
    body += [f"        self.{one} = {one}" for one in names]
    body += ["", "    def __repr__(self):", f'        return f"{kind}({{self.{first}!r}}, {{self.{second}!r}})"']
    if chooser.random() < 0.5:
        body += ["", f"    def set_{second}(self, {second}):", f"        self.{second} = {second}"]
    return Snippet("", "", tuple(body))


def collections(chooser: Random) -> Snippet:
    """A class around a list or a dict."""
    kind = chooser.choice(("Stack", "Store", "Queue", "Bag", "Log"))
    held, item = chooser.choice((("items", "item"), ("entries", "entry"), ("lines", "line"), ("values", "value")))
    body = (f"class {kind}:", "    def __init__(self):", f"        self.{held} = []", "",
            f"    def add(self, {item}):", f"        self.{held}.append({item})", "",
            "    def __len__(self):", f"        return len(self.{held})", "",
            f"    def {chooser.choice(('first', 'last', 'latest'))}(self):",
            f"        return self.{held}[-1] if self.{held} else None")  # fmt: skip
    return Snippet("", "", body)


def everyday(chooser: Random) -> Snippet:
    """Lines that every program has: a loop over a range, a file read, a check that raises."""
    n = chooser.randint(3, 20)
    x = chooser.choice(("count", "total", "value", "size"))
    return Snippet("", "", chooser.choice((
        (f"{x} = 0", f"for i in range({n}):", f"    {x} += i", f"print({x})"),
        ("result = []", f"for i in range({n}):", f"    if i % {n % 5 + 2} == 0:", "        result.append(i)"),
        ("def read(path):", '    with open(path, encoding="utf-8") as file:', "        return file.read()"),
        (f"def check({x}):", f"    if {x} < 0:", f'        raise ValueError(f"{x} is below 0: {{{x}}}")',
         f"    return {x}"),
        ("def main():", "    args = parse()", "    for name in args.names:", "        print(name)", "", "",
         'if __name__ == "__main__":', "    main()"),
    )))  # fmt: skip


TEXTS = (letters, letters, letters, words, words, texts, extremes, digits)
BAGS = (lists, lists, ranked, slices, windows, groups, mappings)
LOOPS = (decisions, whiles)
CLASSES = (classes, sums, collections, everyday)
