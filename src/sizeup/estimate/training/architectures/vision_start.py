"""How a vision tower begins: pixels, a convolution over patches, positions, the first norm.

Source: transformers 5.23, `models/{clip,siglip,internvl,pixtral,qwen2_vl,qwen3_vl,glm4v}/modeling_*.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.estimate.training.architectures.vision_shape import Images, Tower, images_of
from sizeup.estimate.training.basic import add, cast, copy, gathered, join
from sizeup.estimate.training.build import Build, wants_gradient
from sizeup.estimate.training.convolution import strided_convolution
from sizeup.estimate.training.idle import lay_idle
from sizeup.estimate.training.linear import adapted
from sizeup.estimate.training.positions import Rotary
from sizeup.estimate.training.program import State
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.tape import EMBEDDING, OTHER, Node, Value


def start(build: Build, state: State, tower: Tower, run: Run) -> None:
    """Patches, positions, the first norm."""
    tape, images = build.tape, images_of(build, tower, run)
    tape.label = EMBEDDING
    x = patches(build, tower, images)
    if tower.hook == "patches":
        x = hooked(build, run, x)
    if tower.window:
        x = gathered(tape, x, x.n)
    if tower.first_norm and tower.positions == "sampled":
        x = normed(build, tower, "pre_norm", x)
    x = with_positions(build, tower, images, x)
    if tower.hook == "embeddings":
        x = hooked(build, run, x)
    if tower.first_norm and tower.positions != "sampled":
        x = normed(build, tower, "pre_norm", x)
    if not tower.hook and run.checkpoint:
        x = watched(build, x)
    tape.label = OTHER
    if tower.rotary:
        dim, item = tower.hidden // tower.head_count, 4 if tower.rotary == "wide" else x.item
        state.held["vision rotary"] = Rotary(tape, images.tokens, dim, item)
    if tower.masked:
        state.held["vision mask"] = tape.value(images.tokens * images.tokens, x.item)
    lay_idle(build, tower.rest)
    state.x = x


def hooked(build: Build, run: Run, x: Value) -> Value:
    """What transformers takes for input embeddings: it wants a gradient where a checkpointed model has adapters."""
    return wants_gradient(build, x) if run.input_gradients and not x.needs else x


def watched(build: Build, x: Value) -> Value:
    """A stream that wants no gradient, into a layer that runs again and whose weights do: its gradient goes nowhere."""
    if x.needs or not build.tape.grad or not (build.method.train or build.method.rank):
        return x
    output = Value(x.n, x.item, x.storage)
    output.node, output.needs = Node([], lambda _g: (), [None]), True
    return output


def patches(build: Build, tower: Tower, images: Images) -> Value:
    """The pixels in the type of the weights, and the convolution over them.

    peft adapts it where modules are asked for by names that its own ends with, as for experts that lie in stacks.
    """
    tape, length = build.tape, tower.channels * tower.frames * tower.patch * tower.patch
    pixels = Value(images.count * images.patches * length, 4, None)
    if tower.resolutions:
        pixels = copy(tape, pixels)
    pixels = cast(tape, pixels, build.method.item)
    if tower.pixel_masks:
        pixels = copy(tape, pixels)
    x = strided_convolution(build, "patch_embedding", pixels, length, tower.hidden, bias=tower.patch_bias)
    if not (build.method.targets or build.unadapted):
        return x
    adapter = build.adapter_of(tower.name("patch_embed"), length, tower.hidden, biased=tower.patch_bias)
    return x if adapter is None else adapted(tape, pixels, x, adapter)


def with_positions(build: Build, tower: Tower, images: Images, x: Value) -> Value:
    """The class token in front of the patches, and a row for each place added."""
    tape, width = build.tape, tower.hidden
    if tower.class_token:
        n = width * tower.class_token
        token = build.weight("class_embedding", n)
        rows = Value(images.count * n, token.item, None)
        tape.record((token,), (rows,), lambda _g: (tape.value(n, token.item),))
        x = join(tape, (rows, x))
    if tower.positions == "table":
        return add(tape, x, build.embedding("position_embedding", tower.position_rows, width, images.rows))
    if tower.positions == "parameter":
        return add(tape, x, build.weight("position_embeddings", tower.position_rows * width))
    if tower.positions == "resampled":
        return add(tape, x, cast(tape, resampled(build, tower, images), x.item))
    if tower.positions == "sampled":
        return add(tape, x, cast(tape, sampled(build, tower, images), x.item))
    return x


CORNERS = 4


def resampled(build: Build, tower: Tower, images: Images) -> Value:
    """Every patch's position between the four nearest of a table, weighed in fp32 (`bilinear`)."""
    tape, rows = build.tape, images.tokens * CORNERS
    numbers, weights = tape.value(rows, 8), tape.value(rows, 4)
    found = build.embedding("pos_embed", tower.position_rows, tower.hidden, rows)
    item, n, keep = found.item, found.n, (numbers.storage, weights.storage)

    def backward(g: Value, _keep: object = keep) -> Sequence[Value | None]:
        wide = tape.value(n, g.item)
        return (wide if item == g.item else tape.value(n, item),)

    weighed = tape.result(n, 4, (found,), backward)
    del found
    return tape.result(n // CORNERS, 4, (weighed,), lambda g: (Value(n, g.item, g.storage, view=True, strided=True),))


def sampled(build: Build, tower: Tower, images: Images) -> Value:
    """The table in fp32, sampled at every patch's place (`grid_sample`, bicubic)."""
    tape = build.tape
    wide = cast(tape, build.weight("position_embedding", tower.position_rows * tower.hidden), 4)
    grid, n = tape.value(2 * images.tokens, 4), wide.n

    def backward(_g: Value, _keep: object = (wide.storage, grid.storage)) -> Sequence[Value | None]:
        return (tape.value(n, 4),)

    return tape.result(images.tokens * tower.hidden, 4, (wide,), backward)


def normed(build: Build, tower: Tower, name: str, x: Value) -> Value:
    """The tower's kind of norm."""
    return build.rms(name, x, tower.hidden) if tower.norm == "rms" else build.layer_norm(name, x, tower.hidden)
