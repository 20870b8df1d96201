"""An explanation names the tensors that are alive at the peak, and they add up to it."""

import pytest
from training_cases import LLAMA

import sizeup
from sizeup.estimate.training.estimate import training_footprint
from sizeup.estimate.training.models import subject_of
from sizeup.estimate.training.settings import TrainSetting

NAMED = {"weights", "activations", "temporaries", "logits_and_loss", "weight_copies", "recomputation"}


@pytest.mark.parametrize(
    "setting",
    [{}, {"checkpointing": "full", "batch": 4}, {"method": "qlora"}, {"precision": "bf16-autocast-fp32-weights"},
     {"sharding": "fsdp", "data_parallel": 8}, {"tensor_parallel": 2}],
)  # fmt: skip
def test_tensors_add_up_to_their_item(grid, setting):
    """On every architecture: whatever lives in a pass is named, and the names are all of it."""
    for name, config in grid["configs"].items():
        shape = subject_of(config).shape
        if setting.get("tensor_parallel") and shape.head_count % 2:
            continue
        made = TrainSetting(sequence=256, **setting)
        plain, found = training_footprint(shape, made), training_footprint(shape, made, itemised=True)
        assert found.peak_bytes == plain.peak_bytes
        for entry in found.devices[0].items:
            if entry.component in NAMED and "optimizer step" not in entry.name:
                assert entry.derivation.parts, (name, entry.name)
            assert entry.derivation.value == entry.bytes


def test_sizes_are_read_as_tokens_and_widths():
    rank = sizeup.train(LLAMA, batch=2, sequence=512, itemise=True).footprint.devices[0]
    read = [part.formula for item in rank.items for part in item.derivation.parts]
    assert any("1,024 tokens × 32,000 (vocabulary) × 4 B" in formula for formula in read)
    assert any("1,024 tokens × 2,816 (feed-forward) × 2 B" in formula and "in each of" in formula for formula in read)
    states = next(item for item in rank.items if item.component == "optimizer_states").derivation
    assert {"embed_tokens", "mlp.gate_proj"} <= {part.name for part in states.parts}


def test_explain_prints_them(capsys):
    from sizeup.cli.main import run

    assert run(["train", "Qwen/Qwen3-8B", "--batch", "8", "--explain"]) == 0
    assert "(feed-forward) × 2 B" in capsys.readouterr().out
