"""Shared fixtures."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples on every machine, however slow: a run of the tests answers for the code, not for the weather.
# SIZEUP_EXPLORE=1 draws new examples instead.
settings.register_profile(
    "steady",
    deadline=None,
    derandomize="SIZEUP_EXPLORE" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("steady")

# A run in the background ignores Ctrl-C and hands that down to its children, which some tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def truth_dir() -> Path:
    """The folder of published facts that estimates are judged against; absent on most machines."""
    folder = Path(os.environ.get("SIZEUP_TRUTH") or Path(__file__).parents[2] / "shared" / "truth")
    if not folder.is_dir():
        pytest.skip(f"no truth data at {folder}; set SIZEUP_TRUTH to its folder")
    return folder
