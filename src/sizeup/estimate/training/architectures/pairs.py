"""A tower for images and one for texts, whose vectors are matched within a batch (CLIP)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sizeup.estimate.training.architectures import decoder, vision_tower
from sizeup.estimate.training.architectures.shape import DecoderShape
from sizeup.estimate.training.architectures.vision_shape import Tower
from sizeup.estimate.training.basic import cut, scale, whole_size
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.loss import cross_entropy
from sizeup.estimate.training.program import Segment, State
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.scores import Heads, product
from sizeup.estimate.training.settings import TrainSetting
from sizeup.estimate.training.tape import LOSS, Value

ID = 8


class PairShape(msgspec.Struct, frozen=True, kw_only=True):
    """tower: of images; text: of words. projection: width of the vectors that are matched."""

    tower: Tower
    text: DecoderShape
    projection: int
    buffers: tuple[int, ...] = ()

    @property
    def hidden(self) -> int:
        """Width of the narrower stream."""
        return min(self.tower.hidden, self.text.hidden)

    @property
    def layers(self) -> int:
        """Layers of both."""
        return self.tower.layers + self.text.layers

    @property
    def head_count(self) -> int:
        """Heads of an attention of the text."""
        return self.text.head_count

    @property
    def ffn(self) -> int:
        """Inner width of a feed-forward of the text."""
        return self.text.ffn

    def input_sizes(self, setting: TrainSetting) -> list[int]:
        """Bytes of token ids, a mask where something is padded, and pixels in fp32."""
        words = ID * setting.sequences * setting.sequence
        pixels = self.tower.channels * (setting.image_size or self.tower.side) ** 2
        return [words, *([words] if setting.padding else []), 4 * setting.sequences * pixels]


def segments(shape: PairShape, run: Run) -> list[Segment]:
    """The step: the images, the texts, and the loss of how they match."""
    run = msgspec.structs.replace(run, images=1, train_vision=True)
    vectors: list[Value] = []
    images = vision_tower.segments(shape.tower, run)[:-1]
    words = msgspec.structs.replace(run, images=0, checkpoint=run.checkpoint[shape.tower.layers :])
    start, *texts, _loss_of_words = decoder.segments(shape.text, words)
    start = msgspec.structs.replace(start, run=_unnamed(start.run))
    pooled = Segment("vision vector", lambda build, state: _image_vector(build, state, shape, vectors), "projection")
    loss = Segment("loss", lambda build, state: _loss(build, state, shape, vectors), "projection and loss")
    return [*images, pooled, start, *texts, loss]


def _unnamed(inner: Callable[[Build, State], None]) -> Callable[[Build, State], None]:
    """The start of the text, whose positions have no name once it is over."""

    def run(build: Build, state: State) -> None:
        inner(build, state)
        state.held.pop("places", None)

    return run


def _image_vector(build: Build, state: State, shape: PairShape, vectors: list[Value]) -> None:
    """The class token's row, normed and projected."""
    build.tape.label, build.scope = LOSS, ""
    x, h = state.hidden, shape.tower.hidden
    state.x = None
    state.held.clear()
    state.returned.append(Value(x.n, x.item, x.storage))
    first = build.layer_norm("post_layernorm", cut(build.tape, x, build.batch * h), h)
    vectors.append(build.linear("visual_projection", first, h, shape.projection))


def _loss(build: Build, state: State, shape: PairShape, vectors: list[Value]) -> None:
    """The last token's row, projected; every text times every image, and the loss of both directions."""
    tape, batch, h = build.tape, build.batch, shape.text.hidden
    tape.label, build.scope = LOSS, ""
    x = state.hidden
    state.x = None
    state.returned.append(Value(x.n, x.item, x.storage))
    last = tape.result(batch * h, x.item, (x,), whole_size(tape, x.n, x.item))
    text = build.linear("text_projection", last, h, shape.projection)
    build.weight("logit_scale", 1)
    sizes = Heads(1, batch, batch, 1, 1, shape.projection, shape.projection)
    scores = scale(tape, product(tape, text, vectors.pop(), batch * batch, sizes))
    state.loss = cross_entropy(tape, scores, batch, shifted=False, upcast=False)


__all__ = ["PairShape", "segments"]
