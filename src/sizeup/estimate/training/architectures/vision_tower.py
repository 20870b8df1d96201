"""Vision transformers in front of a decoder: patches, positions, layers of attention among all patches of an image.

CLIP, SigLIP, InternViT and Pixtral differ in their norms, their positions and in what is added where; the towers of
Qwen's line take all images as one sequence and split it for attention, into images or into windows.
Source: transformers 5.23, `models/{clip,siglip,internvl,pixtral,qwen2_vl,qwen2_5_vl,qwen3_vl,glm4v}/modeling_*.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.attention import Heads, Way, attend
from sizeup.estimate.training.basic import add, cast, copy, gathered, heads, join, multiply
from sizeup.estimate.training.build import Build, wants_gradient
from sizeup.estimate.training.checkpointing import checkpointed
from sizeup.estimate.training.convolution import strided_convolution
from sizeup.estimate.training.idle import Idle, lay_idle
from sizeup.estimate.training.positions import Rotary, rotate
from sizeup.estimate.training.program import Segment, State
from sizeup.estimate.training.tape import ATTENTION, EMBEDDING, MLP, OTHER, Node, Tape, Value

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.projectors import Projector
    from sizeup.estimate.training.runs import Run
    from sizeup.estimate.training.settings import TrainSetting


class Tower(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes and habits of a tower.

    patch, frames, channels: of a patch; side: of an image in pixels, where the model says. class_token: a trained row
    before the patches. positions: a `table` that is looked up, a trained `parameter`, or a table that is `resampled` (four
    rows a patch, weighed) or `sampled` (as an image); position_rows long. norm: `layer` or `rms`; first_norm, last_norm: before and after all layers.
    fused: query, key and value are one matrix. mlp: `plain` or `gated`. rotary: heads are turned in the type of the
    `stream`, or `wide`, in fp32. packed: all images are one sequence, attention runs image by image. masked: they are
    one, and a mask keeps them apart (Pixtral). window: patches on a side of a window of attention; whole: layers that
    see whole images. scaled: each half is multiplied by a weight (InternViT). features: layers up to the one whose
    output is used; the rest runs in vain. deep: layers whose output is handed to the first layers of the text.
    names: of modules, where adapters ask for others. rest: weights that take no part. hook: what passes for input
    embeddings, `patches`, or `embeddings` with their positions. typed: the model is told which
    tokens are an image's; pixel_masks: and which pixels aren't padding.
    """

    hidden: int
    layers: int
    head_count: int
    ffn: int
    patch: int
    projector: Projector
    side: int = 0
    frames: int = 1
    channels: int = 3
    patch_bias: bool = True
    class_token: bool = False
    positions: str = ""
    position_rows: int = 0
    norm: str = "layer"
    first_norm: bool = False
    last_norm: bool = False
    fused: bool = False
    qkv_bias: bool = True
    output_bias: bool = True
    mlp: str = "plain"
    mlp_bias: bool = True
    activation: str = "gelu"
    rotary: str = ""
    packed: bool = False
    masked: bool = False
    window: int = 0
    whole: tuple[int, ...] = ()
    scaled: bool = False
    softmax_in_fp32: bool = True
    features: int = 0
    deep: tuple[int, ...] = ()
    names: dict[str, str] = {}
    rest: tuple[Idle, ...] = ()
    hook: str = "patches"
    typed: bool = False
    pixel_masks: bool = False

    def name(self, module: str) -> str:
        """The name of a module as adapters ask for it."""
        return self.names.get(module, module)

    def input_sizes(self, setting: TrainSetting) -> list[int]:
        """Bytes of pixels in fp32, of grids or sizes, of the kinds of tokens and of a mask of the pixels."""
        side = setting.image_size or self.side
        side -= side % self.patch if self.packed else 0
        images = setting.sequences * setting.images
        sizes = [4 * images * self.channels * self.frames * side * side]
        if self.packed or self.masked:
            sizes.append(24 * images)
        if self.typed:
            sizes.append(8 * setting.sequences * setting.sequence)
        return [*sizes, 8 * images * side * side] if self.pixel_masks else sizes

    @property
    def used(self) -> int:
        """Layers whose output is used."""
        return self.features or self.layers


class Images(msgspec.Struct, frozen=True):
    """How many images there are, their patches and rows, and on a side."""

    count: Any
    across: int
    extra: int

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return self.across * self.across

    @property
    def rows(self) -> int:
        """Rows of an image in the stream."""
        return self.patches + self.extra

    @property
    def tokens(self) -> Any:
        """Rows of all images."""
        return self.count * self.rows


def images_of(build: Build, tower: Tower, run: Run) -> Images:
    """The images of a step."""
    side = run.image_size or tower.side
    return Images(build.batch * run.images, side // tower.patch, int(tower.class_token))


def segments(tower: Tower, run: Run) -> list[Segment]:
    """The tower's part of a step: patches, layers, and the way into the text."""
    parts = [Segment("vision start", _held(tower, run, start), "image patches")]
    kinds: dict[str, Callable[[Build, State], None]] = {}
    for number in range(tower.layers):
        windowed = bool(tower.window) and number not in tower.whole
        vain = number >= tower.used
        after = number - 1 in tower.deep
        key = " ".join(("vision", "first" * (number == 0), "window" * windowed, "vain" * vain, "after" * after))
        if key not in kinds:
            kinds[key] = _layer_runner(tower, run, windowed=windowed, vain=vain)
        parts.append(Segment(key, kinds[key], "vision layer", layer=True))
        if number in tower.deep:
            parts.append(Segment(f"vision deep {number}", _deep(tower, run), "projector"))
    parts.append(Segment("vision norm", _held(tower, run, last_norm), "vision norm"))
    return [*parts, Segment("projector", lambda build, state: projected(build, state, tower, run), "projector")]


def _held(
    tower: Tower, run: Run, inner: Callable[[Build, State, Tower, Run], None], *, vain: bool = False
) -> Callable[[Build, State], None]:
    """A part of the tower: with its own scope, and frozen where it is, or its weights idle where it runs in vain."""

    def forward(build: Build, state: State) -> None:
        method, scope, idle = build.method, build.scope, build.idle
        if not run.train_vision:
            build.method = msgspec.structs.replace(method, train=False, rank=0)
        build.scope, build.idle = f"vision{len(build.made)}/", idle or vain
        inner(build, state, tower, run)
        build.method, build.scope, build.idle = method, scope, idle

    return forward


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
    """The pixels in the type of the weights, and the convolution over them."""
    tape, length = build.tape, tower.channels * tower.frames * tower.patch * tower.patch
    pixels = cast(tape, Value(images.count * images.patches * length, 4, None), build.method.item)
    if tower.pixel_masks:
        pixels = copy(tape, pixels)
    return strided_convolution(build, "patch_embedding", pixels, length, tower.hidden, bias=tower.patch_bias)


def with_positions(build: Build, tower: Tower, images: Images, x: Value) -> Value:
    """The class token in front of the patches, and a row for each place added."""
    tape, width = build.tape, tower.hidden
    if tower.class_token:
        token = build.weight("class_embedding", width)
        rows = Value(images.count * width, token.item, None)
        tape.record((token,), (rows,), lambda _g: (tape.value(width, token.item),))
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


def _layer_runner(tower: Tower, run: Run, *, windowed: bool, vain: bool) -> Callable[[Build, State], None]:
    def inner(build: Build, state: State, tower: Tower, run: Run) -> None:
        layer = Layer(build, state, tower, run, windowed=windowed)
        bottom = len(build.tape.nodes)
        if run.checkpoint:
            made = checkpointed(build.tape, layer, state.hidden, selective=run.selective, offload=run.offload)
        else:
            made = layer(state.hidden)
        if vain:
            state.held[f"vain {bottom}"] = (made, build.tape.nodes[bottom:])
            del build.tape.nodes[bottom:]
        else:
            state.x = made

    return _held(tower, run, inner, vain=vain)


def _deep(tower: Tower, run: Run) -> Callable[[Build, State], None]:
    """Features of a layer in the middle, which wait for the text's first layers."""

    def forward(build: Build, state: State) -> None:
        before, build.scope = build.scope, f"deep{len(build.made)}/"
        features = tower.projector.deep(build, tower, images_of(build, tower, run), state.hidden)
        state.held[f"deep {sum(key.startswith('deep') for key in state.held)}"] = features
        build.scope = before

    return forward


class Layer:
    """One layer of a tower; called, it takes the stream and returns the next."""

    def __init__(self, build: Build, state: State, tower: Tower, run: Run, *, windowed: bool) -> None:
        self.build, self.tower, self.run, self.windowed = build, tower, run, windowed
        self.images = images_of(build, tower, run)
        self.scope = build.scope
        rotary, mask = state.held.get("vision rotary"), state.held.get("vision mask")
        self.rotary = rotary if isinstance(rotary, Rotary) else None
        self.mask = mask if isinstance(mask, Value) else None

    def __call__(self, x: Value) -> Value:
        """X + attention(norm(x)), then x + feed-forward(norm(x))."""
        self.build.scope = self.scope
        x = self.half("norm1", x, self.attention, "lambda_1")
        return self.half("norm2", x, self.feed_forward, "lambda_2")

    def half(self, name: str, x: Value, inner: Callable[[Value], Value], factor: str) -> Value:
        """One half with its norm, its factor and its residual."""
        build, tower = self.build, self.tower
        y = inner(normed(build, tower, name, x))
        if tower.scaled:
            y = multiply(build.tape, build.weight(factor, tower.hidden), y)
        return add(build.tape, x, y)

    def attention(self, x: Value) -> Value:
        """Attention of the patches of an image, or of a window, among each other."""
        build, tower = self.build, self.tower
        tape, h = build.tape, tower.hidden
        before, tape.label = tape.label, ATTENTION
        q, k, v = self.projections(x)
        if self.rotary is not None:
            q, k = turned(tape, q, k, self.rotary)
        names: list[Value] = []
        if tower.packed:
            q, k, v = (apart(tape, part) for part in (q, k, v))
        y = attend(tape, q, k, v, self.sizes(), self.way(), self.mask, names=names)
        if tower.packed:
            names.append(y)
            y = join(tape, (y,))
        y = build.linear(tower.name("attn.proj"), y, h, h, bias=tower.output_bias)
        names.clear()
        tape.label = before
        return y

    def way(self) -> Way:
        """How attention is computed."""
        return Way(eager=self.run.eager, causal=False, softmax_in_fp32=self.tower.softmax_in_fp32)

    def sizes(self) -> Heads:
        """Heads of each image, of each window of it, or of all images under one mask."""
        tower, images = self.tower, self.images
        dim, count = tower.hidden // tower.head_count, tower.head_count
        if tower.masked:
            return Heads(1, images.tokens, images.tokens, count, count, dim, dim)
        keys = tower.window * tower.window if self.windowed else images.rows
        return Heads(images.count, images.rows, min(keys, images.rows), count, count, dim, dim, apart=tower.packed)

    def projections(self, x: Value) -> tuple[Value, Value, Value]:
        """Queries, keys and values as heads."""
        build, tower = self.build, self.tower
        tape, h = build.tape, tower.hidden
        if not tower.fused:
            q, k, v = (
                heads(tape, build.linear(tower.name(f"attn.{name}"), x, h, h, bias=tower.qkv_bias))
                for name in ("q_proj", "k_proj", "v_proj")
            )
            return q, k, v
        y = heads(tape, build.linear(tower.name("attn.qkv"), x, h, 3 * h, bias=tower.qkv_bias))
        n, item = y.n // 3, y.item
        parts = [Value(n, item, y.storage) for _ in range(3)]

        def backward(_grads: Sequence[Value | None]) -> Sequence[Value | None]:
            whole = tape.value(3 * n, item)
            whole.strided = True
            return (whole,)

        tape.record((y,), parts, backward)
        return parts[0], parts[1], parts[2]

    def feed_forward(self, x: Value) -> Value:
        """act(up(x)), or act(gate(x)) · up(x), then down."""
        build, tower = self.build, self.tower
        tape, h, inner, bias = build.tape, tower.hidden, tower.ffn, tower.mlp_bias
        before, tape.label = tape.label, MLP
        if tower.mlp == "gated":
            gate = activate(tape, build.linear(tower.name("mlp.gate_proj"), x, h, inner, bias=bias), tower.activation)
            y = multiply(tape, gate, build.linear(tower.name("mlp.up_proj"), x, h, inner, bias=bias))
            del gate
        else:
            y = activate(tape, build.linear(tower.name("mlp.fc1"), x, h, inner, bias=bias), tower.activation)
        y = build.linear(tower.name("mlp.fc2"), y, inner, h, bias=bias)
        tape.label = before
        return y


def apart(tape: Tape, x: Value) -> Value:
    """`split` into images or windows: views; their gradients are joined into a new tensor."""
    output = Value(x.n, x.item, x.storage)
    tape.record((x,), (output,), lambda g: (tape.value(g.n, g.item),))
    return output


def turned(tape: Tape, q: Value, k: Value, rotary: Rotary) -> tuple[Value, Value]:
    """Queries and keys turned in the tables' type, and cast back."""
    item = q.item
    q, k = cast(tape, q, rotary.item), cast(tape, k, rotary.item)
    q, k = rotate(tape, q, rotary), rotate(tape, k, rotary)
    return cast(tape, q, item), cast(tape, k, item)


def last_norm(build: Build, state: State, tower: Tower, run: Run) -> None:
    """The last norm; what the tower has returned stays until the text model has run."""
    if tower.last_norm:
        state.x = normed(build, tower, "post_norm", state.hidden)
    state.held["vision output"] = state.x


def projected(build: Build, state: State, tower: Tower, run: Run) -> None:
    """The features; the projector trains with the text even where the tower is frozen."""
    build.scope, x = "projector/", state.hidden
    state.x = None
    state.x = tower.projector(build, tower, images_of(build, tower, run), x)


__all__ = ["Images", "Tower", "images_of", "segments"]
