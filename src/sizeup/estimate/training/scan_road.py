"""Which of two roads a model that scans takes: written out in Python, or by kernel packages."""

from __future__ import annotations

from sizeup.errors import BadInput
from sizeup.estimate.training.architectures.mamba import Mamba
from sizeup.estimate.training.architectures.mamba2 import Mamba2
from sizeup.estimate.training.architectures.programs import Shape
from sizeup.estimate.training.architectures.shape import DecoderShape
from sizeup.estimate.training.architectures.zamba import Hybrid
from sizeup.estimate.training.architectures.zamba_mamba import ZambaMamba
from sizeup.estimate.training.models import SCANS
from sizeup.estimate.training.settings import TrainSetting

KERNELS = (
    "scans are computed by the kernels of mamba-ssm and causal-conv1d: derived from what their functions keep, "
    "not checked by simulation"
)
#: What would split a scan over ranks.
SPLITS = ("tensor_parallel", "context_parallel")
#: Relative error of a step with those kernels: their temporaries are a tenth of a small model's step, and only counted
#: from their code.
UNCHECKED = 0.15


def scans(shape: Shape) -> bool:
    """Whether Mamba stands in any layer."""
    return any(isinstance(mixer, Mamba | Mamba2 | ZambaMamba | Hybrid) for mixer in _mixers(shape))


def _mixers(shape: Shape) -> list[object]:
    """What stands in layers instead of attention."""
    if not isinstance(shape, DecoderShape):
        return []
    found = (shape.mixer, *(fields.get("mixer") for fields in shape.varied))
    return [mixer for mixer in found if mixer is not None and not getattr(mixer, "attends", False)]


def scan_road(setting: TrainSetting, shape: Shape, notes: tuple[str, ...]) -> tuple[float, tuple[str, ...]]:
    """How far off the step may be because of its kernels, and the model's notes with the road it takes.

    Raises BadInput when kernels are asked for and nothing scans, or ranks are to split what scans.
    """
    found = scans(shape)
    for name in SPLITS if _mixers(shape) else ():
        ways = getattr(setting, name)
        if ways > 1:
            raise BadInput(
                f"{name} is {ways}, but this model has layers that scan, and transformers has no plan to split a scan",
                hint="shard the weights instead (sharding=fsdp, data_parallel=n)",
            )
    if setting.kernels == "none":
        return 0.0, notes
    if not found:
        raise BadInput(
            f"kernels is {setting.kernels}, but this model has no layers that mamba-ssm's kernels scan",
            hint="drop kernels, or set it to none",
        )
    return UNCHECKED, tuple(KERNELS if note == SCANS else note for note in notes)
