"""A `config.json`, read without trust: typed getters that name the field, the value and the file when they refuse.

    cfg = read_config(path)
    width = cfg.int("hidden_size", "n_embd")            # first alias that is present and not null
    kv_heads = cfg.int("num_key_value_heads", default=heads)
    layers = cfg.int("num_hidden_layers", max=MAX_LAYERS)
    text = cfg.sub("text_config")                       # messages then say text_config.hidden_size

Null counts as absent. A number written as 4096.0 is the integer 4096; true, "4096", NaN, 0, -1 and 1e30 are not
dimensions. The bounds keep whatever loops over layers or experts from looping for ever.
"""

# The getters are named after the types they return, so the types need names of their own inside the class.
# ruff: noqa: A002

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import msgspec

from sizeup.errors import BadConfig, BadFile, NotFound

MAX_LAYERS = 10_000
MAX_EXPERTS = 1_000_000
MAX_DIMENSION = 2**31
MAX_CONFIG_BYTES = 16 * 2**20
MAX_DEPTH = 64

Integer = int
Real = float
Flag = bool
Text = str
Items = list[Any]


class Config(msgspec.Struct, frozen=True):
    """The fields of one configuration object, where they came from, and the path to it inside the file."""

    data: dict[Text, Any]
    origin: Text = "config"
    path: Text = ""

    def has(self, *names: Text) -> Flag:
        """Whether any of the names is present with a value other than null."""
        return self._find(names) is not None

    def get(self, *names: Text) -> Any:
        """The unchecked value of the first name that is present, else None."""
        found = self._find(names)
        return None if found is None else found[1]

    def int(
        self, *names: Text, min: Integer = 1, max: Integer = MAX_DIMENSION, default: Integer | None = None
    ) -> Integer:
        """The integer in [min, max] under the first name present; the default when absent, BadConfig without one."""
        value = self.optional_int(*names, min=min, max=max)
        if value is not None:
            return value
        return self._required(names) if default is None else default

    def optional_int(self, *names: Text, min: Integer = 1, max: Integer = MAX_DIMENSION) -> Integer | None:
        """As `int`, but None when absent."""
        found = self._find(names)
        return None if found is None else self._integer(found[0], found[1], min, max)

    def ints(self, *names: Text, min: Integer = 1, max: Integer = MAX_DIMENSION) -> tuple[Integer, ...] | None:
        """A list of integers, each in [min, max]; None when absent."""
        found = self._find(names)
        if found is None:
            return None
        return tuple(
            self._integer(f"{found[0]}[{place}]", item, min, max) for place, item in enumerate(self._items(found))
        )

    def float(self, *names: Text, min: Real = -math.inf, max: Real = math.inf, default: Real | None = None) -> Real:
        """The finite number in [min, max] under the first name present; the default when absent."""
        value = self.optional_float(*names, min=min, max=max)
        if value is not None:
            return value
        return self._required(names) if default is None else default

    def optional_float(self, *names: Text, min: Real = -math.inf, max: Real = math.inf) -> Real | None:
        """As `float`, but None when absent."""
        found = self._find(names)
        if found is None:
            return None
        name, value = found
        if isinstance(value, Flag) or not isinstance(value, Integer | Real) or not _is_finite(value):
            raise self.bad(name, value, "a finite number")
        if not min <= value <= max:
            raise self.bad(name, value, f"a number from {min:g} to {max:g}")
        return Real(value)

    def bool(self, *names: Text, default: Flag | None = None) -> Flag:
        """True or false under the first name present; the default when absent."""
        found = self._find(names)
        if found is None:
            return self._required(names) if default is None else default
        if not isinstance(found[1], Flag):
            raise self.bad(found[0], found[1], "true or false")
        return found[1]

    def str(self, *names: Text, default: Text | None = None) -> Text:
        """The string under the first name present; the default when absent."""
        value = self.optional_str(*names)
        if value is not None:
            return value
        return self._required(names) if default is None else default

    def optional_str(self, *names: Text) -> Text | None:
        """As `str`, but None when absent."""
        found = self._find(names)
        if found is None:
            return None
        if not isinstance(found[1], Text):
            raise self.bad(found[0], found[1], "a string")
        return found[1]

    def list(self, *names: Text) -> Items:
        """The list under the first name present, its items unchecked; empty when absent."""
        found = self._find(names)
        return [] if found is None else self._items(found)

    def strs(self, *names: Text) -> tuple[Text, ...] | None:
        """A list of strings; None when absent."""
        found = self._find(names)
        if found is None:
            return None
        for place, item in enumerate(self._items(found)):
            if not isinstance(item, Text):
                raise self.bad(f"{found[0]}[{place}]", item, "a string")
        return tuple(found[1])

    def sub(self, *names: Text) -> Config:
        """The nested object under the first name present; BadConfig when absent."""
        nested = self.optional_sub(*names)
        return self._required(names) if nested is None else nested

    def optional_sub(self, *names: Text) -> Config | None:
        """As `sub`, but None when absent."""
        found = self._find(names)
        if found is None:
            return None
        name, value = found
        if not isinstance(value, dict):
            raise self.bad(name, value, "an object")
        return Config(value, self.origin, self._full(name))

    def bad(self, name: Text, value: Any, wanted: Text) -> BadConfig:
        """The error for a field with an impossible value, to be raised by whoever finds it impossible."""
        return BadConfig(
            f"{self._full(name)} is {_shown(value)} in {self.origin}; it must be {wanted}",
            hint=f"correct {self._full(name)} in {self.origin}",
        )

    def _find(self, names: tuple[Text, ...]) -> tuple[Text, Any] | None:
        for name in names:
            value = self.data.get(name)
            if value is not None:
                return name, value
        return None

    def _integer(self, name: Text, value: Any, low: Integer, high: Integer) -> Integer:
        if isinstance(value, Real) and _is_finite(value) and value == Integer(value):
            value = Integer(value)
        if isinstance(value, Flag) or not isinstance(value, Integer) or not low <= value <= high:
            raise self.bad(name, value, f"a whole number from {low:,} to {high:,}")
        return value

    def _items(self, found: tuple[Text, Any]) -> Items:
        if not isinstance(found[1], list):
            raise self.bad(found[0], found[1], "a list")
        return found[1]

    def _full(self, name: Text) -> Text:
        return f"{self.path}.{name}" if self.path else name

    def _required(self, names: tuple[Text, ...]) -> Any:
        others = f" (nor {', '.join(names[1:])})" if len(names) > 1 else ""
        raise BadConfig(
            f"{self.origin} has no {self._full(names[0])}{others}",
            hint=f"add {self._full(names[0])} to {self.origin}, or check that this is a model's config.json",
        )


def read_config(path: Text | os.PathLike[Text]) -> Config:
    """A configuration file. Raises NotFound, BadFile (not a JSON object) or BadConfig (contradicts itself)."""
    name = os.fspath(path)
    try:
        with Path(name).open("rb") as file:
            raw = file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"no file {name}", hint="check the path") from None
    except (OSError, ValueError) as error:
        raise BadFile(f"cannot read {name}: {error}", hint="check the path and its rights") from None
    return Config(parse_config(raw, name), name)


def parse_config(raw: bytes, origin: Text, most: Integer = MAX_CONFIG_BYTES) -> dict[Text, Any]:
    """JSON bytes to a dict.

    NaN and Infinity pass here, since real configurations hold them in fields nobody sizes by (`time_step_limit`); the
    getters refuse them. A byte-order mark passes. A key twice with two values is BadConfig. Everything else that is
    not one JSON object of bounded size and depth is BadFile.
    """
    import json

    if len(raw) > most:
        raise BadFile(f"{origin} is larger than {most:,} bytes", hint="give a model's config.json")

    def merged(pairs: Items) -> dict[Text, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            for key, value in pairs:
                if repr(fields[key]) != repr(value):
                    raise BadConfig(
                        f"{origin} gives {key} twice: {_shown(value)} and {_shown(fields[key])}",
                        hint=f"remove one {key} from {origin}",
                    )
        return fields

    try:
        data = json.loads(raw, object_pairs_hook=merged)
    except RecursionError:
        raise _not_a_config(origin, "nested too deeply") from None
    except ValueError as error:
        raise _not_a_config(origin, f"not JSON ({_shown(str(error))})") from None
    if not isinstance(data, dict):
        raise _not_a_config(origin, f"JSON, but a {type(data).__name__} instead of an object")
    if _deeper_than(data, MAX_DEPTH):
        raise _not_a_config(origin, f"nested deeper than {MAX_DEPTH} levels")
    return data


def _not_a_config(origin: Text, why: Text) -> BadFile:
    return BadFile(f"{origin} is {why}", hint="download the file again, or give a model's config.json")


def _deeper_than(value: Any, limit: Integer) -> Flag:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _is_finite(value: Integer | Real) -> Flag:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _shown(value: Any) -> Text:
    if isinstance(value, Integer) and abs(value) >= 10**40:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
