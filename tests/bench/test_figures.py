"""The arithmetic of a bench: cells, percentiles, speeds, rows, comparisons and charts."""

import statistics
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizeup.engines.protocol import Timings
from sizeup.errors import BadInput
from sizeup.measure.bench.cells import Cell, cells, context_for
from sizeup.measure.bench.charts import Bar, Line, bars, lines
from sizeup.measure.bench.client import Reply, Run
from sizeup.measure.bench.compare import changes, earlier
from sizeup.measure.bench.html import page
from sizeup.measure.bench.prompts import random_ids, random_words
from sizeup.measure.bench.resources import Usage, process_memory
from sizeup.measure.bench.results import Prediction, summarize
from sizeup.measure.bench.rows import Subject, cell_of, rows
from sizeup.measure.bench.statistics import drift, measured, percentile, percentiles
from sizeup.measure.rows import checked
from sizeup.quantity import Interval

CELL = Cell(prompt=100, generate=11)


def run(first=0.5, gap=0.01, requests=1, clock=None):
    """A run whose requests wait `first` seconds for the first of 11 tokens and `gap` for each of the others."""
    timings = None if clock is None else Timings(100, first, 10, 10 * clock, "engine")
    replies = tuple(Reply(100, 11, first, (gap,) * 10, timings) for _ in range(requests))
    return Run(replies, first + 10 * gap)


def test_speeds_of_a_request():
    reply = run().replies[0]

    assert reply.prefill == pytest.approx(200)
    assert reply.decode == pytest.approx(100)
    assert run(requests=4).throughput == pytest.approx(44 / 0.6)


def test_tokens_that_came_at_once_have_no_speed():
    assert Reply(5, 1, 0.1, ()).decode is None
    assert Reply(5, 3, 0.1, (0.0, 0.0)).decode is None


def test_a_result_is_the_median_of_its_runs():
    found = summarize(CELL, [run(gap=0.010), run(gap=0.011), run(gap=0.0105)], Usage(), Prediction())

    assert found.decode.value == pytest.approx(1 / 0.0105)
    assert (found.decode.low, found.decode.high) == (pytest.approx(1 / 0.011), pytest.approx(100))
    assert found.noisy == ""
    assert found.between.count == 30
    assert found.first.p50 == 0.5


def test_noise_is_said():
    shaky = summarize(CELL, [run(gap=0.010), run(gap=0.02), run(gap=0.01)], Usage(), Prediction())

    assert "differ" in shaky.noisy


def test_a_drift_is_said():
    assert drift([100.0, 95.0, 80.0]) == pytest.approx(-0.2)


def test_the_engines_clock_is_compared_request_by_request():
    found = summarize(CELL, [run(gap=0.0101, clock=0.01), run(gap=0.0202, clock=0.02)], Usage(), Prediction())

    assert found.disagreement == pytest.approx(1 - 1 / 1.01)
    assert found.engine_decode == pytest.approx(75)


def test_the_share_of_the_ceiling():
    found = summarize(CELL, [run()], Usage(), Prediction(Interval(120, 80, 160), None, 200.0))

    assert found.share_of_ceiling == pytest.approx(0.5)
    assert summarize(CELL, [run()], Usage(), Prediction()).share_of_ceiling is None


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
def test_percentiles_are_ordered_and_inside(values):
    found = percentiles(values)

    assert min(values) <= found.p50 <= found.p90 <= found.p95 <= found.p99 <= max(values)
    assert found.p50 == pytest.approx(statistics.median(values))


def test_percentiles_of_known_numbers():
    assert percentile([1, 2, 3, 4], 0.5) == 2.5
    assert percentile(range(101), 0.95) == 95
    assert percentiles([]) is None
    assert measured([]) is None


def test_cells_are_a_grid_and_a_sweep():
    found = cells((128, 512), (0, 4096), 32, (1, 4))

    assert [c.words for c in found] == [
        "128 + 32", "512 + 32", "128 + 32 at 4,096", "512 + 32 at 4,096", "128 + 32, 4 at once",
    ]  # fmt: skip
    assert context_for(found) == (4864, 4)


@pytest.mark.parametrize(
    ("prompts", "depths", "generate", "many", "said"),
    [
        ((0,), (0,), 8, (1,), "prompt is 0"),
        ((), (0,), 8, (1,), "prompt is empty"),
        ((8,), (-1,), 8, (1,), "depth"),
        ((8,), (0,), 1, (1,), "generate"),
        ((8,), (0,), 8, (0,), "concurrency"),
    ],
)
def test_workloads_without_tokens_are_refused(prompts, depths, generate, many, said):
    with pytest.raises(BadInput, match=said):
        cells(prompts, depths, generate, many)


@given(st.integers(1, 500), st.integers(0, 1000), st.integers(8, 200_000))
def test_prompts_are_new_repeatable_and_within_the_vocabulary(count, seed, vocabulary):
    found = random_ids(count, seed, vocabulary)

    assert len(found) == count
    assert all(0 <= token < vocabulary for token in found)
    assert found == random_ids(count, seed, vocabulary)
    assert random_ids(count + 5, seed, vocabulary)[:count] == found


def test_words_differ_by_seed():
    assert random_words(30, 1) != random_words(30, 2)
    assert random_words(30, 1).startswith(random_words(20, 1))


SUBJECT = Subject("m", "llama.cpp", "0.3.36", "vm", "cpu", format="Q8_0")


def result(gap=0.01, cell=CELL):
    return summarize(
        cell, [run(gap=gap, clock=gap)], Usage(resident=10**9, anonymous=10**8, mapped=9 * 10**8), Prediction()
    )


def test_rows_carry_speeds_seconds_and_bytes():
    speeds, seconds, memory = (checked(row) for row in rows(SUBJECT, result(), "2026-11-21"))

    assert speeds.unit == "tokens/s"
    assert speeds.components["decode"] == pytest.approx(100)
    assert speeds.components["engine_decode"] == pytest.approx(100)
    assert seconds.unit == "seconds"
    assert seconds.components["first.p50"] == 0.5
    assert memory.unit == "bytes"
    assert memory.components == {"resident": 10**9, "anonymous": 10**8, "files": 9 * 10**8}
    assert {cell_of(row) for row in (speeds, seconds, memory)} == {CELL}


def test_comparisons_take_the_newest_run_of_the_same_cell():
    old, new = rows(SUBJECT, result(0.02), "2026-11-19")[0], rows(SUBJECT, result(0.0125), "2026-11-20")[0]
    found = changes([result()], earlier([old, new], "m"))

    decode = next(change for change in found if change.component == "decode")
    assert (decode.then, decode.date) == (pytest.approx(80), "2026-11-20")
    assert decode.words == "25% faster"
    assert changes([result(cell=Cell(7, 11))], earlier([old, new], "m")) == ()
    assert earlier([old], "another") == {}


def test_the_page_stands_alone():
    many = result(cell=Cell(100, 11, concurrency=4))
    before = earlier(rows(SUBJECT, result(0.02), "2026-11-19"), "m")
    html = page(("m <script>", "llama.cpp"), [result(), many], changes([result()], before))

    assert "<script>" not in html.replace("&lt;script&gt;", "")
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")
    assert html.count("<svg") == 3
    assert "50% faster" not in html
    assert "100% faster" in html
    assert "No setting was finished" in page(("m", ""), [], ())


def test_charts_are_well_formed():
    for svg in (
        bars([Bar("a & b", 3.0, "3", 2.0, 4.0, 5.0), Bar("<c>", 0.0, "0")], mark="predicted"),
        lines([Line("a", ((1.0, 2.0), (4.0, 8.0))), Line("b", ())], across="x", up="y"),
        bars([]),
    ):
        ET.fromstring(svg)


def test_this_process_holds_memory():
    import os

    held = process_memory(os.getpid())
    assert held["resident"] >= held["anonymous"] > 0
