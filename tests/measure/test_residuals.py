"""Intervals and probabilities from residuals, and whether they keep their promise."""

import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from measure_helpers import comparison

from sizeup.estimate.footprint import device_footprint, footprint, item
from sizeup.measure.coverage import coverage
from sizeup.measure.residuals import (
    ASSUMED,
    Residuals,
    fit_probability,
    intervals,
    normal_quantile,
    probability_below,
    residuals_of,
    shipped_residuals,
    total_interval,
    widened,
)
from sizeup.quantity import Interval, leaf

GIB = 2**30


def plan(weights: int, overhead: int = 0, budget: int | None = None):
    items = [item("weights", leaf("weights", weights)), item("overhead", leaf("program", overhead))]
    return footprint([device_footprint("host", items, budget)])


def spread_of(values: dict[str, list[float]]):
    return residuals_of(comparison(known, 100, family=family) for family, knowns in values.items() for known in knowns)


def test_residuals_say_how_far_the_known_lies_from_the_estimate():
    (found,) = spread_of({"a": [100], "b": [110], "c": [90]})

    assert (found.rows, found.families) == (3, 3)
    assert found.middle == pytest.approx(0.0)
    assert found.low == pytest.approx(-0.09)
    assert found.high == pytest.approx(0.09)


def test_a_family_with_many_rows_counts_no_more_than_another():
    (found,) = spread_of({"many": [100] * 1000, "one": [150]})

    assert found.high == pytest.approx(0.5)


def test_published_measurements_of_other_versions_stay_out():
    assert residuals_of([comparison(100, 50, evidence="published")]) == ()


def test_what_was_never_measured_is_assumed():
    known = Residuals(())

    assert known.spread("vllm", "gpu", "compute") == (-ASSUMED["compute"], 0.0, ASSUMED["compute"])
    assert known.spread("vllm", "gpu", "something new")[2] == max(ASSUMED.values())


def test_weights_are_the_same_on_every_device():
    known = Residuals(residuals_of([comparison(100, 100, component="weights")]))

    assert known.spread("llama.cpp", "gpu", "weights") == (0.0, 0.0, 0.0)
    assert known.spread("llama.cpp", "gpu", "compute") == (-0.3, 0.0, 0.3)


@given(st.integers(1, 2**45), st.integers(0, 2**33))
def test_the_interval_holds_its_value(weights, overhead):
    found = total_interval(plan(weights, overhead))

    assert 0 <= found.low <= found.value <= found.high


@given(st.integers(2**20, 2**45), st.integers(2**20, 2**33), st.floats(0.5, 2), st.floats(0.5, 2))
def test_more_budget_never_fits_worse(weights, overhead, one, other):
    less, more = sorted((one, other))
    total = weights + overhead

    low = fit_probability(plan(weights, overhead), [int(total * less)])
    high = fit_probability(plan(weights, overhead), [int(total * more)])

    assert 0 <= low <= high <= 1


def test_far_from_the_limit_it_is_certain():
    assert fit_probability(plan(GIB, GIB, budget=100 * GIB)) == pytest.approx(1.0)
    assert fit_probability(plan(GIB, GIB, budget=GIB // 2)) == pytest.approx(0.0, abs=1e-6)
    assert fit_probability(plan(GIB, GIB)) is None


def test_the_least_probable_device_decides():
    items = [item("weights", leaf("weights", GIB)), item("overhead", leaf("program", GIB))]
    two = footprint([device_footprint("gpu", items, 100 * GIB), device_footprint("host", items, GIB)])

    assert fit_probability(two) == pytest.approx(0.0, abs=1e-6)
    assert len(intervals(two)) == 2


@given(st.floats(0.01, 0.99))
def test_probability_and_interval_agree(confidence):
    assume(abs(confidence - 0.5) > 0.01)
    interval = widened(Interval(100.0, 80.0, 130.0), confidence)

    assert probability_below(interval, interval.high) == pytest.approx((1 + confidence) / 2, abs=1e-6)
    assert probability_below(interval, interval.low) == pytest.approx((1 - confidence) / 2, abs=1e-6)


def test_a_value_without_width_is_a_step():
    exact = Interval(100.0, 100.0, 100.0)

    assert [probability_below(exact, limit) for limit in (99, 100, 101)] == [0.0, 1.0, 1.0]


def test_the_normal_quantile_is_the_known_one():
    assert normal_quantile(0.975) == pytest.approx(1.959964, abs=1e-5)
    assert normal_quantile(0.5) == pytest.approx(0.0, abs=1e-9)


def test_ninety_percent_intervals_cover_ninety_percent():
    """Families drawn from one distribution: each held-back family lies inside about nine times out of ten."""
    chance = random.Random(5)
    drawn = [comparison(100 * (1 + chance.gauss(0, 0.1)), 100, family=f"family {number}") for number in range(200)]

    (found,) = coverage(drawn)

    assert found.rows == 200
    assert 0.85 <= found.share <= 0.95


def test_held_back_families_of_the_ledger_are_covered(judged):
    held = coverage(judged.comparisons)

    assert sum(h.inside for h in held) / sum(h.rows for h in held) >= 0.9
    by = {h.component: h for h in held}
    assert by["total"].share >= 0.85
    assert by["compute"].share >= 0.9


def test_shipped_residuals_are_those_of_the_ledger(judged):
    fresh = Residuals(residuals_of(judged.comparisons))

    for component in ("weights", "cache", "compute"):
        ours = shipped_residuals().spread("llama.cpp", "cpu", component)
        assert ours == pytest.approx(fresh.spread("llama.cpp", "cpu", component), abs=0.005)
