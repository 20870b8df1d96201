"""What the speed model predicted for devices it had not seen, as it ships."""

from sizeup.measure.accuracy import summarize
from sizeup.measure.speed_accuracy import BY_DEVICE, BY_MODEL, held_back, parameters_digest, speed_comparisons


def test_the_held_back_rows_belong_to_the_shipped_parameters():
    """scripts/fit_speed.py TRUTH --held-back makes them again."""
    assert held_back().parameters == parameters_digest()


def test_speeds_of_devices_that_the_fit_had_not_seen():
    by = {a.name: a for a in summarize(speed_comparisons(), ("evidence", "component"))}

    assert by[f"{BY_DEVICE} · decode"].count >= 700
    assert by[f"{BY_DEVICE} · decode"].median <= 0.15
    assert by[f"{BY_MODEL} · decode"].median <= 0.15
    assert by[f"{BY_DEVICE} · prompt"].median <= 0.25


def test_a_small_difference_of_speed_is_not_a_small_amount():
    """16 tokens/s are not 16 bytes: only a tenth counts as close."""
    far = next(c for c in speed_comparisons() if abs(c.error) > 0.5)

    assert not far.close


def test_many_devices_were_held_back():
    assert len({row[0] for row in held_back().rows}) >= 40
