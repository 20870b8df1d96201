"""The estimate against simulated steps: truth when it is there, and the grid that is kept in the repository."""

import json
import statistics

import msgspec
import pytest
from training_cases import estimated

from sizeup.operations.train import TrainRequest, train

FIELDS = (
    "method", "precision", "optimizer", "batch", "sequence", "checkpointing", "attention", "lora_rank", "lora_targets",
    "adapter_precision", "fsdp", "fsdp_reshard", "padding", "accumulating", "keeps_outputs", "gradient_clip",
)  # fmt: skip


def judged(errors, median, p95, worst, under):
    sizes = sorted(abs(error) for error in errors)
    assert statistics.median(sizes) <= median
    assert sizes[int(0.95 * len(sizes))] <= p95
    assert sizes[-1] <= worst
    assert min(errors) >= -under


def test_estimates_agree_with_the_oracle(truth_dir):
    """The fields of the truth are those of the request."""
    errors = []
    for line in (truth_dir / "training_oracle.jsonl").read_text().splitlines():
        row = json.loads(line)
        fields = {name: row[name] for name in FIELDS}
        request = msgspec.convert({"model": row["config"], **fields}, TrainRequest, strict=True)
        errors.append(train(request).footprint.peak_bytes / row["peak_bytes"] - 1)
    assert len(errors) >= 200
    judged(errors, 0.005, 0.02, 0.05, 0.02)


def test_estimates_agree_with_the_grid(grid, settings):
    """At least twelve architectures; small models, so that a forgotten mask would show."""
    errors = {
        (name, label): estimated(grid["configs"][name], settings[label]).peak_bytes / peak - 1
        for name, label, peak in grid["rows"]
    }
    assert len({name for name, _ in errors}) >= 12
    judged(list(errors.values()), 0.0005, 0.005, 0.02, 0.02)


def test_the_grid_judges_what_a_byte_depends_on(grid, settings):
    """A wrong setting is seen: the bars above can fail."""
    name, label, peak = next(row for row in grid["rows"] if row[1] == "bf16")
    wrong = settings[label] | {"precision": "fp32"}
    assert estimated(grid["configs"][name], wrong).peak_bytes / peak - 1 > 0.2


@pytest.mark.parametrize("label", ["bf16", "autocast checkpointed", "lora"])
def test_items_sum_to_the_peak(grid, settings, label):
    """On every architecture, to the byte; and the peak is the highest phase."""
    for config in grid["configs"].values():
        found = estimated(config, settings[label])
        rank = found.devices[0]
        assert sum(item.bytes for item in rank.items) == rank.peak_bytes == int(rank.term.value)
        assert max(phase.peak_bytes for phase in rank.phases) == rank.peak_bytes
