"""The estimate against the ledger: comparisons, groups, the gate, the table and the picture."""

import xml.etree.ElementTree as ET

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measure_helpers import comparison

from sizeup.errors import BadFile
from sizeup.measure.accuracy import compare, judge, quantile, summarize
from sizeup.measure.gate import GATE_GROUPS, TOLERANCE, Limit, gated, limits_of, regressions, shipped_limits
from sizeup.measure.ledger import shipped
from sizeup.measure.picture import picture
from sizeup.measure.readme import BEGIN, END, between_markers, table
from sizeup.measure.rows import Row


def test_errors_are_shares_of_what_is_known():
    assert comparison(100, 90).error == pytest.approx(-0.1)
    assert comparison(0, 0).error == 0
    assert comparison(0, 5).error == 1


def test_close_is_a_tenth_or_sixteen_mebibytes():
    assert comparison(2**30, 2**30 * 1.09).close
    assert comparison(2**20, 17 * 2**20).close
    assert not comparison(2**30, 2**30 * 1.2).close


def test_only_components_that_both_have_are_compared():
    row = Row("simulate", "m", "llama.cpp", {"weights.CPU": 3, "weights.CPU_REPACK": 4, "output": 1}, "test")

    found = compare(row, {"weights": 7.0, "cache": 9.0})

    assert [(c.component, c.known, c.estimated) for c in found] == [("weights", 7, 7.0)]


def test_a_group_is_summed_up():
    (found,) = summarize([comparison(100, value) for value in (100, 101, 102, 90)])

    assert found.name == "llama.cpp · compute"
    assert (found.count, found.never_under) == (4, 0.75)
    assert (found.worst, found.lowest) == pytest.approx((-0.1, -0.1))
    assert found.median == pytest.approx(0.015)


def test_never_under_means_lowest_is_nothing():
    (found,) = summarize([comparison(100, 100), comparison(100, 130)])

    assert (found.lowest, found.never_under) == (0.0, 1.0)


@given(st.lists(st.floats(-5, 5), min_size=1), st.floats(0, 1))
def test_a_quantile_lies_among_its_values(values, share):
    ordered = sorted(values)

    assert ordered[0] <= quantile(ordered, share) <= ordered[-1]
    assert quantile(ordered, 1.0) == ordered[-1]


def test_no_values_have_no_quantile():
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_rows_without_an_estimate_are_named():
    rows, models = shipped()
    strange = msgspec.structs.replace(rows[0], engine="no such engine")
    unbuilt = msgspec.structs.replace(rows[0], shape="unknown")
    unset = msgspec.structs.replace(rows[0], setting={})
    broken = msgspec.structs.replace(rows[0], setting={"context": "many"})

    found = judge([strange, unbuilt, unset, broken], models)

    assert found.comparisons == ()
    assert [s.reason.split(" ")[0] for s in found.skipped] == ["no", "the", "a", "the"]


def test_every_shipped_row_has_an_estimate(judged):
    assert judged.skipped == ()


def test_the_ledger_covers_what_it_should():
    """Forty models of fifteen architectures, dense, mixtures, latent, windows, hybrids, recurrent, tied, encoders."""
    rows, _ = shipped()
    simulated = [row for row in rows if row.kind == "simulate"]

    assert len({row.model for row in simulated}) >= 40
    families = {row.family for row in simulated}
    assert len(families) >= 15
    assert {"llama", "mixtral", "deepseek_v2", "gemma2", "falcon_h1", "mamba", "bert", "qwen3_next"} <= families


def test_simulation_tells_what_real_loads_hold():
    """Within 1.5 % on twelve real loads or more, of three formats and of a tenth to seven billion parameters."""
    rows, models = shipped()
    loads = [row for row in rows if row.kind == "measure" and row.source == "sizeup"]

    assert len(loads) >= 12
    assert len({row.format for row in loads}) >= 3
    sizes = [models[row.shape].parameters for row in loads]
    assert min(sizes) < 0.2e9
    assert max(sizes) > 6e9
    for row in loads:
        assert row.components["simulated.grown"] == pytest.approx(row.components["grown"], rel=0.015), row.model
        assert row.components["simulated.mapped"] == pytest.approx(row.components["mapped"], rel=0.001), row.model


def test_published_rows_are_reproduced_or_explained(judged):
    rows, _ = shipped()
    notes = {row.key: row.note for row in rows}
    published = [c for c in judged.comparisons if c.evidence == "published" and c.engine == "llama.cpp"]

    assert len({c.row for c in published}) == 4
    assert all(c.error == 0 or notes[c.row] for c in published)


def test_errors_have_not_grown(judged):
    """The gate: scripts/build_ledger.py derive writes new limits when errors have fallen, or when a growth is meant."""
    assert regressions(gated(judged), shipped_limits()) == ()


def test_the_gate_closes():
    good = summarize([comparison(100, 100)] * 20, GATE_GROUPS)
    limits = limits_of(good)

    assert regressions(good, limits) == ()
    worse = summarize([comparison(100, 100 - 200 * TOLERANCE)] * 20, GATE_GROUPS)
    assert any("median" in told for told in regressions(worse, limits))
    fewer = summarize([comparison(100, 100)] * 10, GATE_GROUPS)
    assert "10 rows of 20" in regressions(fewer, limits)[0]
    assert "0 rows of 3" in regressions((), (Limit("gone", 3, 0, 0, 0, 0),))[0]


def test_estimates_meet_the_bars(judged):
    """Weights and cache to the byte; compute within 10 % or 16 MiB in 95 % of cells; total 1 % median, 3 % p95."""
    simulated = [c for c in judged.comparisons if c.evidence == "simulate" and c.engine == "llama.cpp"]
    by = {a.group["component"]: a for a in summarize(simulated, ("component",))}

    assert by["weights"].worst == 0
    assert by["cache"].p95 == 0
    assert by["compute"].close >= 0.95
    assert by["total"].median <= 0.01
    assert by["total"].p95 <= 0.03


def test_the_table_says_exact_only_for_zero():
    text = table(summarize([comparison(100, 100), comparison(100, 101, component="total")], ("component",)))

    assert "| compute | 1 | exact | exact | exact | 100% |" in text
    assert "| total | 1 | 1.00 % | 1.00 % | +1.00 % | 100% |" in text


def test_the_table_goes_between_its_markers():
    text = f"before\n{BEGIN}\nold\n{END}\nafter"

    assert between_markers(text, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter"


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_missing_markers_are_named(text):
    with pytest.raises(BadFile, match="markers"):
        between_markers(text, "new")


def test_the_picture_is_well_formed_and_shows_every_group():
    root = ET.fromstring(
        picture([comparison(100, 100), comparison(100, 900, family="a<b", component="total")], ("family", "component"))
    )

    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"llama · compute", "a<b · total"} <= set(texts)
    marks = [float(element.get("cx")) for element in root.iter("{http://www.w3.org/2000/svg}circle")]
    width = float(root.get("viewBox").split()[2])
    assert len(marks) == 2
    assert all(0 < mark < width for mark in marks)
