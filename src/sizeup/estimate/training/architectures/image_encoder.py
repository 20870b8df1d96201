"""A vision transformer by itself, which tells images apart (ViT, DINOv2)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sizeup.estimate.training.architectures import vision_tower
from sizeup.estimate.training.architectures.task_heads import TaskHead, task_loss
from sizeup.estimate.training.architectures.vision_shape import Tower
from sizeup.estimate.training.basic import cut, join, whole_size
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.loss import cross_entropy
from sizeup.estimate.training.program import Segment, State
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.settings import TrainSetting
from sizeup.estimate.training.tape import LOSS, Value

ID, WIDE = 8, 4


class ImageShape(msgspec.Struct, frozen=True, kw_only=True):
    """tower: all but the head. labels: kinds of images. mean: the patches' mean stands beside the class token.

    keeps_pixels: in the weights' type, as long as the model runs.
    """

    tower: Tower
    buffers: tuple[int, ...] = ()
    mean: bool = False
    keeps_pixels: bool = True
    head: str = "classification"
    labels: int = 2
    task: TaskHead = TaskHead(dense=False, dropout=0.0)

    @property
    def hidden(self) -> int:
        """Width of the stream."""
        return self.tower.hidden

    @property
    def layers(self) -> int:
        """Layers of the tower."""
        return self.tower.layers

    @property
    def head_count(self) -> int:
        """Heads of an attention."""
        return self.tower.head_count

    @property
    def ffn(self) -> int:
        """Inner width of a feed-forward."""
        return self.tower.ffn

    def input_sizes(self, setting: TrainSetting) -> list[int]:
        """Bytes of pixels in fp32, and of a label for each image."""
        pixels = self.tower.channels * (setting.image_size or self.tower.side) ** 2
        return [4 * setting.sequences * pixels, ID * setting.sequences]


def segments(shape: ImageShape, run: Run) -> list[Segment]:
    """The step: patches, layers, norm, head and loss."""
    run = msgspec.structs.replace(run, images=1, train_vision=True)
    start, *tower, _projector = vision_tower.segments(shape.tower, run)
    start = msgspec.structs.replace(start, run=_named(start.run, shape))
    return [start, *tower, Segment("loss", lambda build, state: _loss(build, state, shape, run), "head and loss")]


def _named(inner: Callable[[Build, State], None], shape: ImageShape) -> Callable[[Build, State], None]:
    """The start, with the names that live as long as the model runs: pixels in the weights' type, embeddings."""

    def run(build: Build, state: State) -> None:
        inner(build, state)
        if shape.keeps_pixels and not build.method.train and build.method.item != WIDE:
            pixels = shape.tower.channels * shape.tower.side * shape.tower.side
            state.held["pixels"] = build.tape.value(build.batch * pixels, build.method.item)
        state.held["embeddings"] = state.x

    return run


def _loss(build: Build, state: State, shape: ImageShape, run: Run) -> None:
    build.tape.label, build.scope = LOSS, ""
    x = state.hidden
    state.x = None
    state.held.clear()
    state.loss = _with_mean(build, x, shape, run) if shape.mean else task_loss(build, x, shape.hidden, shape.task, run)


def _with_mean(build: Build, x: Value, shape: ImageShape, run: Run) -> Value:
    """The labels of an image from its class token and the mean of its patches."""
    tape, batch, h = build.tape, build.batch, shape.hidden
    patches = cut(tape, x, x.n - batch * h)
    mean = tape.result(batch * h, x.item, (patches,), whole_size(tape, patches.n, x.item))
    both = join(tape, (cut(tape, x, batch * h), mean))
    logits = build.head_linear("classifier", both, 2 * h, run.labels, bias=True)
    return cross_entropy(tape, logits, batch, shifted=False, upcast=False)
