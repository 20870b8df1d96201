"""From the patches of a tower to the tokens of a text: merging, pooling, projections.

Source: transformers 5.23, the `…Projector`, `…Merger` and `…Connector` of each model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.basic import cast, copy, cut, gathered, join, multiply, split, whole_size
from sizeup.estimate.training.convolution import strided_convolution
from sizeup.estimate.training.linear import linear
from sizeup.estimate.training.tape import MLP, Value

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.vision_shape import Images, Tower
    from sizeup.estimate.training.build import Build


class Projector(msgspec.Struct, frozen=True, kw_only=True):
    """What leads from a tower into the text.

    kind: see `KINDS`. out: width of the text. side: patches on a side that become one token; tokens: of an image,
    where it isn't a share of its patches. norm: before the projections. inner: width between them. joined: features of
    the images are joined to one tensor before they go into the text. returned: they are an output of the model.
    names: of modules, where adapters ask for others.
    """

    kind: str
    out: int
    side: int = 1
    tokens: int = 0
    inner: int = 0
    norm: str = ""
    activation: str = "gelu"
    bias: bool = True
    joined: bool = True
    returned: bool = True
    names: dict[str, str] = {}

    def __call__(self, build: Build, tower: Tower, images: Images, x: Value) -> Value:
        """The features of all images."""
        before, build.tape.label = build.tape.label, MLP
        found = KINDS[self.kind](self, build, tower, images, x)
        build.tape.label = before
        return found

    def deep(self, build: Build, tower: Tower, images: Images, x: Value) -> Value:
        """Features of a layer in the middle of the tower (Qwen 3 VL)."""
        return merger(msgspec.structs.replace(self, norm="after"), build, tower, images, x)

    def name(self, module: str) -> str:
        """The name of a module as adapters ask for it."""
        return self.names.get(module, module)

    def tokens_of(self, across: int) -> int:
        """Tokens of an image whose side is that many patches."""
        return self.tokens or (across // self.side) ** 2

    def norms(self, build: Build, x: Value, width: int) -> Value:
        """The norm before the projections."""
        if self.norm == "rms":
            return build.rms("projector.norm", x, width)
        return build.layer_norm("projector.norm", x, width) if self.norm else x


def two_linears(p: Projector, build: Build, tower: Tower, images: Images, x: Value) -> Value:
    """LLaVA's: without the class token, two projections with an activation between them."""
    if tower.class_token:
        x = cut(build.tape, x, images.count * images.patches * tower.hidden, strided=True)
    return _two(p, build, p.norms(build, x, tower.hidden), tower.hidden)


def in_tiles(p: Projector, build: Build, tower: Tower, images: Images, x: Value) -> Value:
    """LLaVA-NeXT's: tiles put together, without what was padded, a trained token after each line, the whole before."""
    tape, t, out = build.tape, images.tiling, p.out
    x = two_linears(p, build, tower, images, x)
    count = images.count // t.tiles
    newline = build.weight("image_newline", out)
    lines = Value(count * max(t.rows, 1) * out, newline.item, None)
    tape.record((newline,), (lines,), lambda _g: (tape.value(out, newline.item),))
    if t.tiles == 1:
        return join(tape, (cut(tape, x, x.n), lines))
    whole = cut(tape, x, count * t.whole * out)
    grid = copy(tape, cut(tape, x, count * t.grid * out))
    del x
    if t.kept < t.grid:
        grid = cut(tape, grid, count * t.kept * out)
    return join(tape, (whole, join(tape, (grid, lines))))


def _two(p: Projector, build: Build, x: Value, width: int) -> Value:
    x = build.linear(p.name("linear_1"), x, width, p.inner or p.out, bias=p.bias)
    return build.linear(p.name("linear_2"), activate(build.tape, x, p.activation), p.inner or p.out, p.out, bias=p.bias)


def one_linear(p: Projector, build: Build, tower: Tower, _images: Images, x: Value) -> Value:
    """One projection, of patches that were put together before (Idefics 3) or weren't (PaliGemma)."""
    if p.side > 1:
        x = copy(build.tape, x)
    return build.linear(p.name("proj"), x, tower.hidden * p.side * p.side, p.out, bias=p.bias)


def shuffled(p: Projector, build: Build, tower: Tower, images: Images, x: Value) -> Value:
    """InternVL's: patches of a square put together by two copies, a norm, two projections."""
    tape = build.tape
    if tower.class_token:
        x = copy(tape, cut(tape, x, images.count * images.patches * tower.hidden, strided=True))
    x = copy(tape, copy(tape, x))
    width = tower.hidden * p.side * p.side
    return _two(p, build, p.norms(build, x, width), width)


def merger(p: Projector, build: Build, tower: Tower, _images: Images, x: Value) -> Value:
    """Qwen's: a norm before or after four patches are seen as one, two projections; windows are put in order again."""
    width = tower.hidden * p.side * p.side
    x = build.layer_norm("projector.norm", x, width) if p.norm == "after" else p.norms(build, x, tower.hidden)
    x = build.linear(p.name("linear_1"), x, width, width, bias=True)
    x = build.linear(p.name("linear_2"), activate(build.tape, x, "gelu"), width, p.out, bias=True)
    return gathered(build.tape, x, x.n) if tower.window else x


def unfolded(p: Projector, build: Build, tower: Tower, _images: Images, x: Value) -> Value:
    """Mistral's: a norm, patches of a square put together and projected, two projections."""
    tape, width = build.tape, tower.hidden * p.side * p.side
    x = p.norms(build, x, tower.hidden)
    x = copy(tape, copy(tape, x))
    x = build.linear(p.name("merging_layer"), x, width, tower.hidden)
    return _two(p, build, x, tower.hidden)


def gated(p: Projector, build: Build, tower: Tower, _images: Images, x: Value) -> Value:
    """Cohere's: squares of patches put together, perhaps a norm, a gate over halves between two projections."""
    tape, width = build.tape, tower.hidden * p.side * p.side
    x = copy(tape, x)
    x = p.norms(build, x, width) if p.norm else copy(tape, x)
    both = build.linear(p.name("linear_1"), x, width, p.inner, bias=True)
    straight, gate = split(tape, both, (both.n // 2, both.n // 2))
    y = multiply(tape, activate(tape, gate, "silu"), straight)
    del straight, gate, both
    return build.linear(p.name("linear_2"), y, p.inner // 2, p.out, bias=True)


def downsampled(p: Projector, build: Build, tower: Tower, _images: Images, x: Value) -> Value:
    """GLM's: a convolution over squares of patches, a projection, a norm, a gated feed-forward."""
    tape, out = build.tape, p.out
    x = strided_convolution(build, "downsample", x, tower.hidden * p.side * p.side, out)
    x = build.linear(p.name("proj"), x, out, out)
    x = activate(tape, build.layer_norm("post_projection_norm", x, out), "gelu")
    gate = activate(tape, build.linear(p.name("gate_proj"), x, out, p.inner), p.activation)
    y = multiply(tape, gate, build.linear(p.name("up_proj"), x, out, p.inner))
    del gate
    return build.linear(p.name("down_proj"), y, p.inner, out)


def pooled(p: Projector, build: Build, tower: Tower, images: Images, x: Value) -> Value:
    """Gemma's: squares of patches averaged, a norm of 1 + weight in fp32, a product with a bare weight."""
    tape, width = build.tape, tower.hidden
    x = copy(tape, x)
    n, item, keep = x.n, x.item, x.storage
    tokens = images.count * p.tokens
    averaged = tape.result(tokens * width, item, (x,), whole_size(tape, n, item, keep))
    del x, keep
    averaged.strided = True
    normed = build.rms("mm_soft_emb_norm", averaged, width, in_fp32=True, offset=True)
    weight = build.weight("mm_input_projection_weight", width * p.out, p.out, "matrix")
    return cast(tape, linear(tape, copy(tape, normed), weight), item)


KINDS: dict[str, Callable[[Projector, Build, Tower, Images, Value], Value]] = {
    "two": two_linears, "tiles": in_tiles, "one": one_linear, "shuffled": shuffled, "merger": merger,
    "unfolded": unfolded, "pooled": pooled, "gated": gated, "downsampled": downsampled,
}  # fmt: skip
