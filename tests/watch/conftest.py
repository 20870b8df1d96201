"""Fakes of servers, and a small model that talks, are those of the engines' and the bench's tests."""

import sys
from pathlib import Path

_TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(_TESTS / "engines"), str(_TESTS / "bench")]
