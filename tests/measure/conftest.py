"""The shipped ledger, judged once."""

import pytest

from sizeup.measure.accuracy import Judgement, judge
from sizeup.measure.ledger import shipped


@pytest.fixture(scope="session")
def judged() -> Judgement:
    """Every estimate of the shipped rows, computed again."""
    return judge(*shipped())
