"""Names, shapes, ties and totals of every described model type, held to what transformers 5.23 builds and saves.

The golden file holds a hash for each class with its default configuration; scripts/compare_anatomy.py --golden writes
it, and shows a difference tensor by tensor. The defaults come from the package here, so they are tested as well.
"""

import hashlib
import json
from pathlib import Path

import pytest

from sizeup.models.anatomy.defaults import filled
from sizeup.models.anatomy.registry import anatomy_of, known_types
from sizeup.models.config import Config

GOLDEN = Path(__file__).parents[1] / "data" / "transformers.tsv"
ROWS = [line.split("\t") for line in GOLDEN.read_text().splitlines() if not line.startswith("#")]


def described(model_type, class_name, settings):
    """The blocks of a class with its default configuration, without layers that the class doesn't build."""
    given = {"model_type": model_type, "architectures": [class_name]} | settings
    cfg = filled(Config(given), model_type, nested=True)
    return [block for block in anatomy_of(model_type)(cfg).blocks if block.stack != "mtp"]


def digest(blocks):
    """As in scripts/compare_anatomy.py: a hash of the sorted names and shapes, tied names included."""
    lines = [
        f"{name} = {tensor.tied_to}" if tensor.tied_to else f"{name} {list(tensor.stored_shape)}"
        for block in blocks
        for name, tensor in block.expand()
        if tensor.part != "unused"
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_default_configuration(row):
    """Every name, shape and tie, and the total."""
    key, class_name, tensors, parameters, expected, settings = row

    blocks = described(key.split("/")[1], class_name, json.loads(settings))

    stored = [
        name for block in blocks for name, tensor in block.expand() if not tensor.tied_to and tensor.part != "unused"
    ]
    assert sum(block.parameters for block in blocks) == int(parameters)
    assert len(stored) == int(tensors)
    assert digest(blocks) == expected


def test_enough_types_are_exact():
    """The bar is 130 model types exact by anatomy; what has been reached isn't given up again."""
    assert len({row[0].split("/")[1] for row in ROWS}) >= 290


def test_every_golden_type_is_known():
    assert {row[0].split("/")[1] for row in ROWS} <= set(known_types())
