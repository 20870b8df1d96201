"""The ledger: kept, found again, shared by processes, killed in the middle of writes, older and newer than this one."""

import io
import os
import signal
import sqlite3
import subprocess
import sys
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizeup.errors import BadFile, SizeupError
from sizeup.measure.ledger import Ledger, Selection, default_path, shipped
from sizeup.measure.ledger_schema import MIGRATIONS, VERSION, migrate, schema_version
from sizeup.measure.rows import KINDS, UNITS, ModelRecord, Row, checked, decode_lines, encode_line

GEMMA = ModelRecord("5ac3", "google/gemma-2-2b-it", "gemma2", 2_614_341_888, {"model_type": "gemma2"})


def row(number: int = 0, **fields) -> Row:
    values = {
        "kind": "simulate",
        "model": "google/gemma-2-2b-it",
        "engine": "llama.cpp",
        "components": {"weights.CPU": 736_404_480, "weights.CPU_REPACK": 966_131_712, "cache": 218_103_808 + number},
        "source": "sizeup",
        "shape": "5ac3",
        "family": "gemma2",
        "date": "2026-11-21",
    }
    return Row(**values | fields)


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


def test_rows_are_found_again(ledger):
    assert ledger.add([row(), row(1), GEMMA]) == 2
    assert sorted(r.components["cache"] for r in ledger.rows()) == [218_103_808, 218_103_809]
    assert ledger.models() == {"5ac3": GEMMA}


def test_the_same_row_twice_is_one_row(ledger):
    ledger.add([row()])

    assert ledger.add([row(), row(1)]) == 1
    assert len(ledger.rows()) == 2


def test_a_selection_narrows(ledger):
    ledger.add([row(), row(engine="torch"), row(kind="measure"), row(family="llama", shape="77")])

    assert len(ledger.rows(Selection(engine="llama.cpp"))) == 3
    assert len(ledger.rows(Selection(engine="llama.cpp", kind="simulate", family="gemma2"))) == 1
    assert [r.shape for r in ledger.rows(Selection(shape="77"))] == ["77"]
    assert all(Selection(kind="measure").admits(r) for r in ledger.rows(Selection(kind="measure")))


def test_removed_rows_are_gone(ledger):
    ledger.add([row(), row(1)])

    assert ledger.remove([row().key, "no such key"]) == 1
    assert ledger.rows() == [row(1)]


def test_dotted_components_add_up():
    assert row().amount("weights") == 736_404_480 + 966_131_712
    assert row().amount("cache") == 218_103_808
    assert row().amount("compute") is None


def test_export_and_import_carry_everything(ledger, tmp_path):
    ledger.add([row(), row(1, kind="measure", note="warm"), GEMMA])
    lines = io.BytesIO()

    assert ledger.export(lines) == 2
    with Ledger(tmp_path / "other.db") as other:
        assert other.import_lines(io.BytesIO(lines.getvalue())) == 2
        assert other.rows() == ledger.rows()
        assert other.models() == ledger.models()
        assert other.import_lines(io.BytesIO(lines.getvalue())) == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"not json", "line 2"),
        (b'{"row": {"kind": "guess", "model": "m", "engine": "e", "components": {}, "source": "s"}}', "guess"),
        (b'{"row": {"kind": "measure", "model": "m", "engine": "e", "components": {}, "source": ""}}', "source"),
        (
            b'{"row": {"kind": "measure", "model": "m", "engine": "e", "components": {"a": -1}, "source": "s"}}',
            "a = -1",
        ),
        (
            b'{"row": {"kind": "measure", "model": "m", "engine": "e", "components": {}, "source": "s", "unit": "GB"}}',
            "GB",
        ),
        (b"{}", "neither"),
        (b'{"surprise": 1}', "surprise"),
        (b'{"row": null, "model": 3}', "line 2"),
        (b"\xff\xfe", "line 2"),
    ],
)
def test_a_bad_line_keeps_the_whole_file_out(ledger, line, said):
    with pytest.raises(BadFile, match=said):
        ledger.import_lines(io.BytesIO(encode_line(row()) + line))
    assert ledger.rows() == []


@given(
    st.builds(
        Row,
        kind=st.sampled_from(KINDS),
        model=st.text(max_size=20),
        engine=st.text(max_size=10),
        components=st.dictionaries(st.text(max_size=8), st.integers(0, 2**60) | st.floats(0, 1e18), max_size=4),
        source=st.text(min_size=1, max_size=10),
        unit=st.sampled_from(UNITS),
        setting=st.dictionaries(st.text(max_size=8), st.integers(-5, 5) | st.text(max_size=5) | st.none(), max_size=3),
    )
)
def test_any_row_survives_its_line(any_row):
    assert list(decode_lines(encode_line(checked(any_row)), "test")) == [any_row]
    assert next(iter(decode_lines(encode_line(any_row), "test"))).key == any_row.key


def test_keys_differ_when_anything_does():
    keys = {row().key, row(1).key, row(note="x").key, row(version="0.3.36").key, row(setting={"ubatch": 128}).key}

    assert len(keys) == 5


def test_the_home_folder_is_obeyed(monkeypatch, tmp_path):
    monkeypatch.setenv("SIZEUP_HOME", str(tmp_path / "home"))
    with Ledger() as ledger:
        ledger.add([row()])

    assert default_path() == tmp_path / "home" / "ledger.db"
    assert default_path().is_file()


def test_without_a_home_it_lies_in_the_data_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("SIZEUP_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))

    assert default_path().name == "ledger.db"
    assert default_path().parent.name == "sizeup"


WRITER = """
import sys
from pathlib import Path
from sizeup.measure.ledger import Ledger
from sizeup.measure.rows import Row
path, name, count = sys.argv[1:]
for number in range(int(count)):
    with Ledger(Path(path)) as ledger:
        ledger.add([Row("measure", name, "llama.cpp", {"total": number}, "test")])
print("written", flush=True)
"""


def test_two_writers_lose_nothing(tmp_path):
    path = str(tmp_path / "ledger.db")
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, name, "40"]) for name in "ab"]

    assert [writer.wait(60) for writer in writers] == [0, 0]
    with Ledger(tmp_path / "ledger.db") as ledger:
        assert {(r.model, r.components["total"]) for r in ledger.rows()} == {(n, i) for n in "ab" for i in range(40)}


ENDLESS = """
import sys
from pathlib import Path
from sizeup.measure.ledger import Ledger
from sizeup.measure.rows import Row
with Ledger(Path(sys.argv[1])) as ledger:
    number = 0
    while True:
        ledger.add([Row("measure", str(number), "llama.cpp", {"part": part}, "test") for part in range(50)])
        print(number, flush=True)
        number += 1
"""


@pytest.mark.parametrize("seconds", [0.0, 0.013, 0.037, 0.1])
def test_killed_in_the_middle_of_writes(tmp_path, seconds):
    """What was reported as written is there, and nothing is there by half."""
    path = tmp_path / "ledger.db"
    writer = subprocess.Popen([sys.executable, "-c", ENDLESS, str(path)], stdout=subprocess.PIPE, text=True)
    writer.stdout.readline()
    time.sleep(seconds)
    os.kill(writer.pid, signal.SIGKILL)
    reported = ["0", *writer.stdout.read().split()]
    writer.wait()

    with Ledger(path) as ledger:
        kept: dict[str, int] = {}
        for r in ledger.rows():
            kept[r.model] = kept.get(r.model, 0) + 1
        assert set(kept.values()) == {50}
        assert set(reported) <= set(kept)
        assert ledger.add([row()]) == 1
    check = sqlite3.connect(path)
    assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    check.close()


def test_every_older_ledger_becomes_a_new_one(tmp_path):
    for older in range(VERSION):
        path = tmp_path / f"version{older}.db"
        connection = sqlite3.connect(path, isolation_level=None)
        migrate(connection, target=older)
        if older:
            body = msgspec.json.encode(row())
            connection.execute(
                "INSERT INTO rows (key, kind, model, shape, engine, version, machine, date, body)"
                " VALUES (?, 'simulate', 'google/gemma-2-2b-it', '5ac3', 'llama.cpp', '', '', '2026-11-21', ?)",
                (row().key, body),
            )
        connection.close()
        with Ledger(path) as ledger:
            assert ledger.rows(Selection(family="gemma2")) == ([row()] if older else [])
            assert ledger.add([row(), row(1)]) == (1 if older else 2)


def test_a_step_that_fails_is_undone(tmp_path, monkeypatch):
    path = tmp_path / "ledger.db"
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, target=1)
    broken = (MIGRATIONS[0], ("ALTER TABLE rows ADD COLUMN family TEXT", "no such statement"))
    monkeypatch.setattr("sizeup.measure.ledger_schema.MIGRATIONS", broken)

    with pytest.raises(sqlite3.OperationalError):
        migrate(connection)
    assert schema_version(connection) == 1
    assert "family" not in {column[1] for column in connection.execute("PRAGMA table_info(rows)")}


def test_a_newer_ledger_is_left_alone(tmp_path):
    path = tmp_path / "ledger.db"
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()

    with pytest.raises(BadFile, match=f"schema {VERSION + 1}"):
        Ledger(path)


def test_what_is_not_a_ledger_is_named(tmp_path):
    path = tmp_path / "ledger.db"
    path.write_bytes(b"GGUF" * 2000)

    with pytest.raises(BadFile, match="not a ledger"):
        Ledger(path)
    assert path.read_bytes() == b"GGUF" * 2000


def test_a_folder_that_can_not_be_made(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(SizeupError, match="can't be opened"):
        Ledger(tmp_path / "file" / "ledger.db")


def test_a_full_disk_keeps_what_was_there(tmp_path):
    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.add([row()])
        pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
        ledger._connection.execute(f"PRAGMA max_page_count = {pages + 1}")

        with pytest.raises(SizeupError, match="full"):
            ledger.add([row(number, note="x" * 500) for number in range(1, 200)])
        assert ledger.rows() == [row()]


def test_a_damaged_row_is_named(ledger):
    ledger.add([row()])
    ledger._connection.execute("UPDATE rows SET body = '{'")

    with pytest.raises(BadFile, match="unreadable row"):
        ledger.rows()


def test_shipped_rows_refer_to_shipped_models():
    rows, models = shipped()

    assert {r.shape for r in rows if r.shape} <= set(models)
    assert all(checked(r) == r for r in rows)
