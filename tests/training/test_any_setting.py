"""Any combination of settings either gets an answer whose parts make the whole, or an error that says why not."""

from hypothesis import given, settings
from hypothesis import strategies as st

import sizeup
from sizeup.errors import SizeupError
from sizeup.estimate.training.optimizers import OPTIMIZERS
from sizeup.estimate.training.settings import (
    ATTENTIONS,
    LOSSES,
    METHODS,
    OBJECTIVES,
    PRECISIONS,
    SCHEDULES,
    SHARDINGS,
)  # fmt: skip

CHOICES = {
    "method": METHODS, "precision": PRECISIONS, "optimizer": tuple(OPTIMIZERS), "attention": ATTENTIONS,
    "loss": LOSSES, "objective": OBJECTIVES, "sharding": SHARDINGS, "schedule": SCHEDULES,
    "checkpointing": ("none", "full", "selective", "2"), "batch": (1, 3), "sequence": (64, 1000),
    "padding": (False, True), "accumulating": (False, True), "keeps_outputs": (False, True),
    "gradient_clip": (False, True), "data_parallel": (1, 4), "tensor_parallel": (1, 2),
    "sequence_parallel": (False, True), "pipeline_parallel": (1, 2), "micro_batches": (1, 4),
    "context_parallel": (1, 2), "offload_optimizer": (False, True), "offload_weights": (False, True),
    "offload_activations": (False, True), "lora_dropout": (0.0, 0.1),
}  # fmt: skip
SETTINGS = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in CHOICES.items()})


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 100), SETTINGS)
def test_parts_make_the_whole(grid, number, setting):
    configs = list(grid["configs"].values())
    try:
        report = sizeup.train(configs[number % len(configs)], **setting)
    except SizeupError as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert refused.hint
        return
    for rank in report.footprint.devices:
        assert sum(item.bytes for item in rank.items) == rank.peak_bytes
        assert all(item.bytes > 0 for item in rank.items)
