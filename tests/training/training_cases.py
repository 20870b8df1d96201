"""What the tests of training share: a small model, the estimate of a case, the script that made the kept ones."""

import importlib
import sys
from pathlib import Path

from sizeup.estimate.training.checks import check
from sizeup.estimate.training.estimate import training_footprint
from sizeup.estimate.training.models import subject_of
from sizeup.estimate.training.settings import TrainSetting

ROOT = Path(__file__).parents[2]


def script(name):
    """A module of scripts, which finds those beside it."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "scripts"))


def grid_script():
    """scripts/training_grid.py."""
    return script("training_grid")


def estimated(config, setting):
    """The footprint of a configuration with a setting as a mapping."""
    what = subject_of(config)
    tuples = {name: tuple(setting.get(name, ())) for name in ("lora_targets", "modules_to_save")}
    made = TrainSetting(**(setting | tuples))
    check(made, what.shape, what.context)
    return training_footprint(what.shape, made)


LLAMA = {
    "model_type": "llama", "vocab_size": 32000, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8,
    "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 4096, "tie_word_embeddings": False,
}  # fmt: skip
