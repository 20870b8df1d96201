"""Vision transformers in front of a decoder: layers of attention among all patches of an image, and what follows.

CLIP, SigLIP, InternViT and Pixtral differ in their norms, their positions and in what is added where; the towers of
Qwen's line take all images as one sequence and split it for attention, into images or into windows.
Source: transformers 5.23, `models/{clip,siglip,internvl,pixtral,qwen2_vl,qwen2_5_vl,qwen3_vl,glm4v}/modeling_*.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.architectures.vision_shape import Tower, images_of
from sizeup.estimate.training.architectures.vision_start import normed, start
from sizeup.estimate.training.attention import Heads, Way, attend
from sizeup.estimate.training.basic import add, cast, heads, join, multiply
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.checkpointing import checkpointed
from sizeup.estimate.training.positions import Rotary, rotate
from sizeup.estimate.training.program import Segment, State
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.tape import ATTENTION, MLP, Tape, Value


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


def last_norm(build: Build, state: State, tower: Tower, _run: Run) -> None:
    """The last norm; what the tower has returned stays until the text model has run."""
    if tower.last_norm:
        state.x = normed(build, tower, "post_norm", state.hidden)
    state.held["vision output"] = state.x


def projected(build: Build, state: State, tower: Tower, run: Run) -> None:
    """The features; the projector trains with the text even where the tower is frozen."""
    build.scope, x = "projector/", state.hidden
    state.x = None
    state.x = tower.projector(build, tower, images_of(build, tower, run), x)
