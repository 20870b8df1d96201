"""Encoders, encoder-decoders and vision transformers against simulated steps of small ones."""

import json
import statistics

import pytest
from training_cases import ROOT, estimated, grid_script, script

from sizeup.errors import BadInput
from sizeup.estimate.training.models import subject_of

FOLDER = ROOT / "tests" / "data" / "training_encoders"


def encoder_script():
    """The cases of each model."""
    return script("training_encoders")


@pytest.fixture(scope="module")
def errors():
    """Relative error by model and label."""
    made, default = encoder_script(), grid_script().DEFAULT
    found = {}
    for path in sorted(FOLDER.glob("*.json")):
        kept, changes = json.loads(path.read_text()), made.cases(path.stem)
        for label, peak in kept["peaks"].items():
            setting = default | changes[label]
            found[path.stem, label] = estimated(kept["config"], setting).peak_bytes / peak - 1
    return found


def small(name):
    return json.loads((FOLDER / f"{name}.json").read_text())["config"]


def setting(**changes):
    return {"batch": 2, "sequence": 256} | changes


def test_steps_agree_with_simulations(errors):
    """To the byte, but for a few scalars; never more than a tenth of a percent under."""
    sizes = sorted(abs(error) for error in errors.values())
    assert len({name for name, _ in errors}) >= 35
    assert len(sizes) >= 240
    assert statistics.median(sizes) <= 0.00005
    assert sizes[int(0.95 * len(sizes))] <= 0.0002
    assert sizes[-1] <= 0.001
    assert min(errors.values()) >= -0.001


def test_a_short_target_takes_less():
    """The decoder's activations and logits are those of the target's tokens."""
    for name in ("bart", "t5", "whisper", "t5gemma"):
        whole = estimated(small(name), setting()).peak_bytes
        short = estimated(small(name), setting(target_sequence=64)).peak_bytes
        assert short < whole
        assert estimated(small(name), setting(target_sequence=256)).peak_bytes == whole


def test_whisper_reads_sound_whatever_the_text_is_long():
    """Its encoder always sees as many frames."""
    one, two = (estimated(small("whisper"), setting(sequence=n, checkpointing="full")) for n in (32, 64))
    inputs = [found.component("inputs_and_buffers") for found in (one, two)]
    assert 0 < inputs[1] - inputs[0] <= 2 * 2 * 32 * 8
    assert inputs[0] >= 2 * 80 * 2 * 512 * 2


def test_every_layer_is_recomputed_or_not_as_asked():
    """Every second layer of both stacks lies between none and all."""
    for name in ("mbart", "umt5", "deberta-v2", "modernbert"):
        none, half, full = (
            estimated(small(name), setting(batch=8, checkpointing=how)).peak_bytes for how in ("none", "2", "full")
        )
        assert full < half < none


@pytest.mark.parametrize(
    "name", ["bart", "t5", "whisper", "t5gemma", "deberta-v2", "mpnet", "albert", "modernbert", "vit"]
)
def test_items_sum_to_the_peak(name):
    """To the byte, and the peak is the highest phase."""
    for changes in ({}, {"checkpointing": "full", "method": "lora"}, {"precision": "fp32", "padding": True}):
        rank = estimated(small(name), setting(**changes)).devices[0]
        assert sum(item.bytes for item in rank.items) == rank.peak_bytes
        assert max(phase.peak_bytes for phase in rank.phases) == rank.peak_bytes


def test_nothing_is_left_when_a_step_is_over():
    """What a pass makes it gives back: after the optimizer's step come weights, states, gradients and inputs alone."""
    for name in ("t5", "umt5", "t5gemma", "m2m_100", "whisper", "deberta-v2", "clip"):
        for method in ("full", "lora"):
            found = estimated(small(name), setting(checkpointing="full", method=method, optimizer="sgd"))
            phases = {phase.name: phase.peak_bytes for phase in found.devices[0].phases}
            rank = found.devices[0]
            known = ("weights", "inputs_and_buffers", "optimizer_states")
            left = phases["optimizer step"] - sum(item.bytes for item in rank.items if item.component in known)
            trained = sum(item.bytes for item in rank.items if item.component == "weights")
            assert 0 < left <= 2 * trained


def test_shared_layers_weigh_once():
    """ALBERT's weights don't grow with its depth, its activations do."""
    deep = small("albert") | {"num_hidden_layers": 12}
    four, twelve = (estimated(config, setting()) for config in (small("albert"), deep))
    assert four.component("weights") == twelve.component("weights")
    assert twelve.peak_bytes > four.peak_bytes


def test_positions_end_where_their_table_does():
    """A learned table, and what a decoder may write."""
    with pytest.raises(BadInput, match="beyond the model's context of 2,048"):
        estimated(small("bart"), setting(sequence=2049))
    with pytest.raises(BadInput, match="beyond the model's context of 1,536"):
        estimated(small("whisper"), setting(sequence=1537))


def test_configurations_as_published_are_read(truth_dir):
    """Speech, DeBERTa and CLIP, which were refused before."""
    for name in ("openai--whisper-small", "microsoft--deberta-v3-base", "openai--clip-vit-base-patch16"):
        config = json.loads((truth_dir / "configs" / f"{name}.json").read_text())
        assert subject_of(config).uncertainty == 0.0
        assert estimated(config, setting(sequence=64)).peak_bytes > 10**9
