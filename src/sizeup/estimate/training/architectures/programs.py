"""What every shape has, and which program runs it."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol

from sizeup.estimate.training.architectures.shape import DecoderShape
from sizeup.estimate.training.program import Segment
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.settings import TrainSetting

ID = 8


class Shape(Protocol):
    """The sizes and habits of a model, as one of the programs beside this file wants them."""

    @property
    def hidden(self) -> int:
        """Width of the stream."""

    @property
    def layers(self) -> int:
        """Layers, of all stacks."""

    @property
    def head_count(self) -> int:
        """Heads of an attention."""

    @property
    def ffn(self) -> int:
        """Inner width of a feed-forward."""

    @property
    def buffers(self) -> tuple[int, ...]:
        """Bytes of each tensor that is neither weight nor activation."""


def segments(shape: Shape, run: Run) -> list[Segment]:
    """The step of that shape: `segments` of the module that it is defined in."""
    module = f"{__package__}.decoder" if isinstance(shape, DecoderShape) else type(shape).__module__
    found: list[Segment] = import_module(module).segments(shape, run)
    return found


def input_sizes(shape: Shape, setting: TrainSetting) -> list[int]:
    """Bytes of what a step is given: token ids, labels, a mask where something is padded; or what the shape says."""
    own = getattr(shape, "input_sizes", None)
    if own is not None:
        return list(own(setting))
    tokens = ID * setting.sequences * setting.sequence
    labels = {
        "classification": [ID * setting.sequences], "question": [ID * setting.sequences] * 2, "embedding": [],
    }.get(setting.head or getattr(shape, "head", "lm"))  # fmt: skip
    if labels is None:
        labels = [ID * setting.sequences * (setting.target_sequence or setting.sequence)]
    tower = getattr(shape, "tower", None) if setting.images else None
    seen = [] if tower is None else tower.input_sizes(setting)
    return [tokens, *labels, *seen, *([tokens] if setting.padding else [])]
