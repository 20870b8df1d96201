"""What was measured here counts in advice, and costs nothing where there is no ledger."""

import pytest

from sizeup.advice.quality import quality
from sizeup.measure.ledger import Ledger
from sizeup.measure.quality.coding import Graded, scores
from sizeup.measure.quality.measured import _all, coding_measured
from sizeup.measure.quality.rows import Subject, coding_row
from sizeup.models.catalogue.entry import entries


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SIZEUP_HOME", str(tmp_path))
    _all.cache_clear()
    yield tmp_path
    _all.cache_clear()


def keep(name, passed, count):
    graded = [Graded("function", str(n), "passed" if n < passed else "failed", "", "") for n in range(count)]
    subject = Subject(name, "llama.cpp", "1", "here", "Q4_K_M")
    with Ledger() as ledger:
        ledger.add([coding_row(subject, scores(graded), chat=True, tokens=768, date="2026-11-21T03:00:00+00:00")])
    _all.cache_clear()


ENTRY = next(entry for entry in entries() if entry.id == "Qwen/Qwen3-8B")


def test_nothing_is_opened_without_a_ledger(home):
    assert coding_measured("Qwen/Qwen3-8B") is None
    assert list(home.iterdir()) == []


def test_a_measurement_moves_the_quality_for_coding_only(home):
    before = {task: quality(ENTRY, 8 * 10**9, 8 * 10**9, task) for task in ("coding", "chat")}
    keep("Qwen3 8B", 1, 64)
    low = quality(ENTRY, 8 * 10**9, 8 * 10**9, "coding")
    keep("Qwen3 8B", 64, 64)

    assert low.index < before["coding"].index
    assert low.evidence == "measured"
    assert "2% of 64 coding problems passed here in Q4_K_M (2026-11-21)" in low.because
    assert quality(ENTRY, 8 * 10**9, 8 * 10**9, "chat") == before["chat"]


def test_a_few_problems_say_nothing(home):
    keep("Qwen3 8B", 3, 3)

    assert coding_measured("Qwen/Qwen3-8B") is None


def test_other_models_are_not_meant(home):
    keep("Qwen3 8B", 30, 60)

    assert coding_measured("Qwen/Qwen3-8B").share == 0.5
    assert coding_measured("Qwen/Qwen3-8B-Base") is None


def test_a_broken_ledger_is_no_evidence(home):
    (home / "ledger.db").write_bytes(b"not a database" * 100)

    assert coding_measured("Qwen/Qwen3-8B") is None
