"""What the tests of training share: a small model, the estimate of a case, the script that made the kept ones."""

import importlib.util
from pathlib import Path

from sizeup.estimate.training.checks import check
from sizeup.estimate.training.estimate import training_footprint
from sizeup.estimate.training.models import subject_of
from sizeup.estimate.training.settings import TrainSetting

ROOT = Path(__file__).parents[2]


def grid_script():
    """scripts/training_grid.py."""
    spec = importlib.util.spec_from_file_location("training_grid", ROOT / "scripts" / "training_grid.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
