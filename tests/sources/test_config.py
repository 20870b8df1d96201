"""Configurations: what is refused, with the field, the value and the file in the message."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizeup.errors import BadConfig, BadFile, NotFound, SizeupError
from sizeup.models.config import MAX_LAYERS, Config, parse_config, read_config

CFG = Config(
    {
        "n_embd": 512, "hidden_size": None, "whole": 4096.0, "theta": 1e6, "tied": True, "name": "x", "types": ["a", "b"],
        "text_config": {"hidden_size": -1}, "counts": [1, 0], "mixed": ["a", 1], "inf": math.inf,
    },
    "config.json",
)  # fmt: skip


def test_the_first_alias_that_is_not_null_wins() -> None:
    assert CFG.int("hidden_size", "n_embd") == 512
    assert CFG.has("hidden_size") is False
    assert CFG.get("nothing", "n_embd") == 512


def test_values_of_the_right_type() -> None:
    assert CFG.int("whole") == 4096
    assert CFG.float("theta") == 1e6
    assert CFG.float("n_embd") == 512.0
    assert CFG.bool("tied") is True
    assert CFG.str("name") == "x"
    assert CFG.strs("types") == ("a", "b")
    assert CFG.list("types") == ["a", "b"]
    assert CFG.ints("counts", min=0) == (1, 0)


def test_absence() -> None:
    assert CFG.int("no", default=3) == 3
    assert CFG.optional_int("no") is None
    assert CFG.float("no", default=0.5) == 0.5
    assert CFG.optional_float("no") is None
    assert CFG.bool("no", default=False) is False
    assert CFG.str("no", default="") == ""
    assert CFG.list("no") == []
    assert CFG.ints("no") is None
    assert CFG.strs("no") is None
    assert CFG.optional_sub("no") is None
    for read in (CFG.int, CFG.float, CFG.bool, CFG.str, CFG.sub):
        with pytest.raises(BadConfig, match=r"config\.json has no no \(nor neither\)"):
            read("no", "neither")


def test_a_nested_field_is_named_with_its_path() -> None:
    with pytest.raises(BadConfig, match=r"text_config\.hidden_size is -1 in config\.json"):
        CFG.sub("text_config").int("hidden_size")
    with pytest.raises(BadConfig, match=r"has no text_config\.layers"):
        CFG.sub("text_config").int("layers")


@pytest.mark.parametrize(
    "value", ["4096", "x", True, False, -1, 0, 1e30, 0.5, math.nan, math.inf, -math.inf, [1], {}, 10**400]
)
def test_what_is_no_dimension(value: object) -> None:
    with pytest.raises(BadConfig, match=r"hidden_size is .* in f\.json") as caught:
        Config({"hidden_size": value}, "f.json").int("hidden_size")
    assert "hidden_size" in caught.value.hint
    assert len(caught.value.message) < 250


@pytest.mark.parametrize("value", ["1", True, math.nan, math.inf, [1.0], 10**400])
def test_what_is_no_number(value: object) -> None:
    with pytest.raises(BadConfig):
        Config({"x": value}).float("x")


def test_bounds() -> None:
    with pytest.raises(BadConfig, match="from 1 to 10,000"):
        Config({"layers": 10_001}).int("layers", max=MAX_LAYERS)
    with pytest.raises(BadConfig, match="from 0 to 1"):
        Config({"x": 1.5}).float("x", min=0, max=1)


def test_lists_of_the_wrong_type() -> None:
    with pytest.raises(BadConfig, match=r"counts\[1\] is 0"):
        CFG.ints("counts")
    with pytest.raises(BadConfig, match=r"mixed\[1\] is 1"):
        CFG.strs("mixed")
    for read in (CFG.list, CFG.ints, CFG.strs):
        with pytest.raises(BadConfig, match="must be a list"):
            read("name")
    with pytest.raises(BadConfig, match="must be an object"):
        CFG.sub("name")
    with pytest.raises(BadConfig, match="true or false"):
        CFG.bool("n_embd")
    with pytest.raises(BadConfig, match="a string"):
        CFG.str("n_embd")


@pytest.mark.parametrize(
    ("raw", "kind", "words"),
    [
        (b"", BadFile, "not JSON"),
        (b"\x80\x00\xff\xfe", BadFile, "not JSON"),
        (b"<html>", BadFile, "not JSON"),
        (b"[1]", BadFile, "a list instead of an object"),
        (b"5", BadFile, "an int instead|a int instead"),
        (b'{"a":' * 100_000, BadFile, "nested"),
        (b'{"a":' + b"[" * 70 + b"]" * 70 + b"}", BadFile, "deeper than 64"),
        (b'{"a":' + b"9" * 5000 + b"}", BadFile, "not JSON"),
        (b'{"a": 1, "a": 2}', BadConfig, "gives a twice: 1 and 2"),
        (b'{"t": {"a": 1, "a": true}}', BadConfig, "gives a twice"),
        (b" " * (16 * 2**20 + 1), BadFile, "larger than"),
    ],
)
def test_what_is_no_configuration(raw: bytes, kind: type[SizeupError], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        parse_config(raw, "config.json")
    assert caught.value.hint


def test_what_real_configurations_hold() -> None:
    assert parse_config(b'\xef\xbb\xbf{"a": 1}', "f") == {"a": 1}
    assert parse_config(b'{"a": 1, "a": 1}', "f") == {"a": 1}
    assert parse_config(b'{"time_step_limit": [0.0, Infinity]}', "f") == {"time_step_limit": [0.0, math.inf]}


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"a": 5}')
    assert read_config(path).int("a") == 5
    with pytest.raises(NotFound):
        read_config(tmp_path / "no.json")
    with pytest.raises(BadFile, match="cannot read"):
        read_config(tmp_path)


def test_every_known_configuration_is_read(truth_dir: Path) -> None:
    paths = sorted((truth_dir / "configs").glob("*.json"))
    assert len(paths) > 100
    for path in paths:
        assert read_config(path).data == json.loads(path.read_bytes())


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_random_bytes(data: bytes) -> None:
    for raw in (data, b'{"hidden_size": ' + data + b"}"):
        try:
            assert Config(parse_config(raw, "f")).int("hidden_size") >= 1
        except SizeupError:
            continue
