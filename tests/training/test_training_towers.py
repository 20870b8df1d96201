"""Models with towers against simulated steps: of text alone, with images, with a frozen tower; and what can't be."""

import json
import statistics
from pathlib import Path

import pytest
from training_cases import ROOT, estimated, grid_script

from sizeup.errors import BadInput
from sizeup.estimate.training.models import subject_of
from sizeup.models.config import Config
from sizeup.models.from_config import model_from_config

IMAGES = {"images": 2, "image_size": 168}
FOLDER = ROOT / "tests" / "data" / "training_towers"


def cases(path: Path):
    """(label, setting, peak) of a file."""
    script, found = grid_script(), json.loads(path.read_text())
    for label, peak in found["peaks"].items():
        first, _, rest = label.partition(" ")
        seen = found.get("seen", IMAGES)
        changes = {"images": seen, "frozen": seen | {"train_vision": False}}.get(first, {})
        yield label, script.DEFAULT | script.SETTINGS[rest if changes else label] | changes, peak


@pytest.fixture(scope="module")
def errors():
    """Relative error by model and label."""
    found = {}
    for path in sorted(FOLDER.glob("*.json")):
        config = json.loads(path.read_text())["config"]
        for label, setting, peak in cases(path):
            found[path.stem, label] = estimated(config, setting).peak_bytes / peak - 1
    return found


def test_steps_of_text_agree_with_simulations(errors):
    """The text decoder trains to the byte, with its tower's weights beside it."""
    sizes = [abs(error) for (_, label), error in errors.items() if not label.startswith(("images", "frozen"))]
    assert len(sizes) >= 140
    assert statistics.median(sizes) <= 0.0001
    assert max(sizes) <= 0.02


def test_steps_with_images_agree_with_simulations(errors):
    """Towers trained and frozen, features among the embeddings."""
    sizes = [abs(error) for (_, label), error in errors.items() if label.startswith(("images", "frozen"))]
    assert len(sizes) >= 100
    assert statistics.median(sizes) <= 0.0001
    assert max(sizes) <= 0.005


def small(name):
    return json.loads((FOLDER / f"{name}.json").read_text())["config"]


def setting(**changes):
    script = grid_script()
    return script.DEFAULT | changes


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_a_tower_has_the_weights_of_its_description(path):
    """Program and description of the model count the same weights, with images and without."""
    found = json.loads(path.read_text())
    config = found["config"]
    wanted = 2 * model_from_config(Config(config, "a test")).parameters
    shape = subject_of(config).shape
    for images in (False, True) if shape.tower is not None else (False,):
        made = estimated(config, setting(**(found.get("seen", IMAGES) if images else {})))
        weights = sum(item.bytes for item in made.devices[0].items if item.component == "weights")
        assert weights == pytest.approx(wanted, rel=0.002)


def test_items_with_images_sum_to_the_peak():
    """To the byte."""
    rank = estimated(small("qwen3_vl"), setting(**IMAGES)).devices[0]
    assert sum(item.bytes for item in rank.items) == rank.peak_bytes


def test_more_images_and_a_trained_tower_take_more():
    """Monotone in the images, and freezing saves states."""
    config = small("llava")
    one, two = (estimated(config, setting(images=n)).peak_bytes for n in (1, 2))
    frozen = estimated(config, setting(images=2, train_vision=False)).peak_bytes
    assert one < two
    assert frozen < two


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("llava", {"image_size": 168}, ("image_size", "images")),
        ("llava", {"images": 2, "image_size": 336}, ("image_size", "168")),
        ("llava", {"images": 9}, ("images", "sequence")),
        ("llava", {"images": -1}, ("images",)),
        ("llava", {"images": 1, "pipeline_parallel": 2}, ("images", "pipeline_parallel")),
        ("qwen2_vl", {"images": 1}, ("images", "image_size")),
        ("qwen2_vl", {"images": 1, "image_size": 170}, ("image_size", "28")),
        ("mllama", {"images": 1}, ("images", "tower")),
    ],
)
def test_images_that_contradict_are_named(name, changes, words):
    """Both settings, or the setting and the model, and a way out."""
    with pytest.raises(BadInput) as error:
        estimated(small(name), setting(**changes))
    assert all(word in str(error.value) for word in words)
    assert error.value.hint


def test_a_model_without_eyes_takes_no_images():
    """Nor a frozen tower."""
    config = {
        "model_type": "llama", "vocab_size": 4096, "hidden_size": 512, "intermediate_size": 1376,
        "num_hidden_layers": 4, "num_attention_heads": 8,
    }  # fmt: skip
    for changes in ({"images": 1}, {"train_vision": False}):
        with pytest.raises(BadInput):
            estimated(config, setting(**changes))
