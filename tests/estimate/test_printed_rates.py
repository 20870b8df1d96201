"""Rates as people read them."""

import pytest

from sizeup.quantity.units import format_rate


@pytest.mark.parametrize(
    ("value", "shown"), [(0.2718, "0.272"), (14.26, "14.3"), (99.97, "100"), (129.4, "129"), (20_665.2, "20,665")]
)
def test_a_rate_shows_three_figures_and_never_an_exponent(value, shown):
    assert format_rate(value) == shown
