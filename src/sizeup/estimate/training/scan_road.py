"""Which of two roads a model that scans takes: written out in Python, or by kernel packages."""

from __future__ import annotations

from sizeup.errors import BadInput
from sizeup.estimate.training.models import SCANS
from sizeup.estimate.training.settings import TrainSetting

KERNELS = (
    "scans are computed by the kernels of mamba-ssm and causal-conv1d: derived from what their functions keep, "
    "not checked by simulation"
)
#: Relative error of a step with those kernels: their temporaries are a tenth of a small model's step, and only counted
#: from their code.
UNCHECKED = 0.15


def scan_road(setting: TrainSetting, notes: tuple[str, ...]) -> tuple[float, tuple[str, ...]]:
    """How far off the step may be because of its kernels, and the model's notes with the road it takes.

    Raises BadInput when kernels are asked for and nothing scans.
    """
    if setting.kernels == "none":
        return 0.0, notes
    if SCANS not in notes:
        raise BadInput(
            f"kernels is {setting.kernels}, but this model has no layers that mamba-ssm's kernels scan",
            hint="drop kernels, or set it to none",
        )
    return UNCHECKED, tuple(KERNELS if note == SCANS else note for note in notes)
