"""Decoders of the llama line and their neighbours: what differs between them is in `DecoderShape`.

embedding → layers (norm, attention, norm, feed-forward, with residuals) → norm → head → loss
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.architectures.experts import STACKED_NAMES, Mixture, mixture
from sizeup.estimate.training.architectures.latent import Latent, latent_attention
from sizeup.estimate.training.attention import Heads, Way, attend
from sizeup.estimate.training.basic import add, cast, cut, dropout, heads, multiply, scale, split, whole_size
from sizeup.estimate.training.build import Build, wants_gradient
from sizeup.estimate.training.checkpointing import checkpointed
from sizeup.estimate.training.linear import linear
from sizeup.estimate.training.loss import chunked_cross_entropy, cross_entropy, fused_cross_entropy
from sizeup.estimate.training.masks import make_mask
from sizeup.estimate.training.positions import Rotary, rotate, rotate_part
from sizeup.estimate.training.program import Segment, State
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.tape import ATTENTION, COMMUNICATION, EMBEDDING, LOSS, MLP, OTHER, Value


class DecoderShape(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes and habits of a decoder.

    norm: `rms`, `rms_fp32` (the weight multiplies in fp32), `rms_offset` (1 + weight in fp32, Gemma), `rms_wide` (the
    weight is cast to fp32), `layer`, `layer_plain` (no weights), `layer_lowered` (follows autocast), `wide` (Cohere's).
    order: where norms stand: `pre`, `post` (after each half), `sandwich` (both), `parallel` (one norm for both halves),
    `parallel2` (a norm each). qkv: `split`, `sliced` (one matrix, three slices), others (one matrix, cut in three).
    qk_norm: `head`, `whole`, `turned` (after the rotation) or none. rotary: share of a head that turns (0: none).
    interleaved: pairs turn instead of halves. rotary_back: turned in the table's type, cast back. rotary_joined: the
    turned part is joined to the rest even if there is none. rotary_wide: tables in fp32. rotary_repeats: every layer
    spreads the tables to pairs anew. rotary_complex: turned as complex numbers in fp32.
    mlp: `gated`, `fused` (gate and up in one matrix), `plain`. windows: of each layer, None where it sees all.
    embedding_scale: who multiplies the embeddings, their `module` or the `model`.
    position_table: rows of a learned position table (0: none). sequence_ways: ranks that split the stream.
    """

    hidden: int
    layers: int
    head_count: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int
    tied: bool = False
    norm: str = "rms"
    norm_bias: bool = True
    order: str = "pre"
    qkv: str = "split"
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: str = ""
    rotary: float = 1.0
    interleaved: bool = False
    rotary_back: bool = False
    rotary_joined: bool = False
    rotary_wide: bool = False
    rotary_repeats: bool = False
    rotary_complex: bool = False
    rotary_tables: int = 1
    mlp: str = "gated"
    activation: str = "silu"
    residual_dropout: float = 0.0
    attention_dropout: float = 0.0
    embedding_dropout: float = 0.0
    windows: tuple[int | None, ...] = ()
    attention_softcap: bool = False
    logit_softcap: bool = False
    embedding_scale: str = ""
    residual_scale: bool = False
    logit_scale: bool = False
    head_bias: bool = False
    position_table: int = 0
    eager_only: bool = False
    mixture: Mixture | None = None
    sparse: tuple[bool, ...] = ()
    names: dict[str, str] = {}
    buffers: tuple[int, ...] = ()
    query_scale: bool = False
    latent: Latent | None = None
    softmax_in_fp32: bool = True
    sequence_ways: int = 1


def segments(shape: DecoderShape, run: Run) -> list[Segment]:
    """The step of a decoder."""
    parts = [Segment("start", lambda build, state: _start(build, state, shape, run), "embedding")]
    kinds: dict[str, Callable[[Build, State], None]] = {}
    for number in range(shape.layers):
        sparse = bool(shape.sparse) and shape.sparse[number]
        window = shape.windows[number] if shape.windows else None
        recomputed = bool(run.checkpoint) and run.checkpoint[number]
        words = ("first" * (number == 0), "mixture" if sparse else "dense", str(window or ""), "again" * recomputed)
        key = " ".join(words)
        if key not in kinds:
            kinds[key] = _layer_runner(shape, run, sparse=sparse, window=window, recomputed=recomputed)
        parts.append(Segment(key, kinds[key], "mixture layer" if sparse else "layer", layer=True))
    parts.append(Segment("norm", lambda build, state: _last_norm(build, state, shape), "final norm"))
    parts.append(Segment("loss", lambda build, state: _loss(build, state, shape, run), "head and loss"))
    return parts


def _name(shape: DecoderShape, module: str) -> str:
    return shape.names.get(module, module)


def _start(build: Build, state: State, shape: DecoderShape, run: Run) -> None:
    """Embedding, masks, and the tables of the rotation; the embeddings stay in a name until the model returns."""
    tape = build.tape
    if shape.mixture is not None and shape.mixture.adapted:
        build.unadapted = STACKED_NAMES
    tape.label = EMBEDDING
    x = build.embedding("embed_tokens", shape.vocabulary, shape.hidden, build.tokens)
    if shape.embedding_scale == "module":
        x = scale(tape, x)
    if run.input_gradients and not x.needs:
        x = wants_gradient(build, x)
    if shape.embedding_scale == "model":
        x = scale(tape, x)
    state.held["embeddings"] = x
    tape.label = OTHER
    state.held["positions"] = tape.value(build.sequence, 8)
    if shape.position_table:
        tape.label = EMBEDDING
        places = build.embedding("embed_positions", shape.position_table, shape.hidden, build.sequence)
        x = add(tape, x, places)
        del places
    x = dropout(tape, x, shape.embedding_dropout)
    tape.label = OTHER
    if shape.sequence_ways > 1:
        x = tape.result(x.n // shape.sequence_ways, x.item, (x,), whole_size(tape, x.n, x.item))
    for window in set(shape.windows or (None,)):
        state.held[f"mask {window}"] = make_mask(
            build, window, padding=run.padding, eager=run.eager or shape.eager_only, flash=run.flash
        )
    if shape.rotary:
        dim = round(shape.head_dim * shape.rotary)
        state.held["rotary"] = [
            Rotary(tape, build.sequence, dim, 4 if shape.rotary_wide else x.item) for _ in range(shape.rotary_tables)
        ]
    state.x = x


def _layer_runner(
    shape: DecoderShape, run: Run, *, sparse: bool, window: int | None, recomputed: bool
) -> Callable[[Build, State], None]:
    """A layer's forward pass as a segment."""

    def forward(build: Build, state: State) -> None:
        build.scope = f"{sparse}{window}{recomputed}{len(build.made)}/"
        layer = Layer(build, state, shape, run, sparse=sparse, window=window)
        if recomputed:
            state.x = checkpointed(build.tape, layer, state.hidden, selective=run.selective, offload=run.offload)
        else:
            state.x = layer(state.hidden)

    return forward


class Layer:
    """One decoder layer; called, it takes the stream and returns the next."""

    def __init__(
        self, build: Build, state: State, shape: DecoderShape, run: Run, *, sparse: bool, window: int | None
    ) -> None:
        self.build, self.shape, self.run, self.sparse = build, shape, run, sparse
        self.scope = build.scope
        mask = state.held.get(f"mask {window}")
        self.mask = mask if isinstance(mask, Value) else None
        self.masks = [value for name, value in state.held.items() if name.startswith("mask")]  # all go with layer one
        tables = state.held.get("rotary")
        self.rotary = tables[0] if isinstance(tables, list) else None

    def __call__(self, x: Value) -> Value:
        """The stream after the layer."""
        self.build.scope = self.scope
        return _ORDERS[self.shape.order](self, x)

    def norm(self, name: str, x: Value, width: int = 0) -> Value:
        """The model's kind of norm."""
        return norm(self.build, self.shape, name, x, width or self.shape.hidden)

    def residual(self, x: Value, branch: Value) -> Value:
        """X + branch, with the branch's dropout or multiplier."""
        branch = dropout(self.build.tape, branch, self.shape.residual_dropout)
        if self.shape.residual_scale:
            branch = scale(self.build.tape, branch)
        return add(self.build.tape, x, branch)

    def whole(self, x: Value) -> Value:
        """With sequence parallelism, the stream's parts gathered from all ranks; its gradient is scattered again."""
        ways, tape = self.shape.sequence_ways, self.build.tape
        if ways == 1:
            return x
        before, tape.label = tape.label, COMMUNICATION
        n = x.n
        gathered = tape.result(n * ways, x.item, (x,), whole_size(tape, n, x.item))
        tape.label = before
        return gathered

    def part(self, x: Value) -> Value:
        """The own part of what all ranks summed; its gradient is gathered."""
        ways, tape = self.shape.sequence_ways, self.build.tape
        return x if ways == 1 else tape.result(x.n // ways, x.item, (x,), whole_size(tape, x.n, x.item))

    def attention(self, x: Value) -> Value:
        """Attention of the whole sequence."""
        return self.part(self.attended(self.whole(x)))

    def attended(self, x: Value) -> Value:
        """Projections, rotation, attention, output projection."""
        build, shape = self.build, self.shape
        if shape.latent is not None:
            return latent_attention(
                build, x, shape.hidden, shape.head_count, shape.latent, self.way(), self.mask, self.turned
            )
        tape = build.tape
        before, tape.label = tape.label, ATTENTION
        q, k, v = self.projections(x)
        if self.rotary is not None:
            q, k = self.all_turned(q, k)
        sizes = Heads(
            build.batch, build.sequence, build.sequence,
            shape.head_count, shape.kv_heads, shape.head_dim, shape.head_dim,
        )  # fmt: skip
        y = attend(tape, q, k, v, sizes, self.way(), self.mask)
        y = build.linear(
            _name(shape, "self_attn.o_proj"), y, shape.head_count * shape.head_dim, shape.hidden, bias=shape.output_bias
        )
        tape.label = before
        return y

    def way(self) -> Way:
        """How attention is computed."""
        shape = self.shape
        return Way(
            eager=self.run.eager or shape.eager_only,
            softcap=shape.attention_softcap,
            p=shape.attention_dropout,
            softmax_in_fp32=shape.softmax_in_fp32,
        )

    def all_turned(self, q: Value, k: Value) -> tuple[Value, Value]:
        """Queries and keys with their positions, and normed after that where the model does."""
        shared = self.rotary
        if self.shape.rotary_repeats and shared is not None:
            self.rotary = shared.repeated(self.build.tape)
        q, k = self.turned(q), self.turned(k)
        self.rotary = shared
        if self.shape.qk_norm == "turned":
            q = self.norm("query_layernorm", q, self.shape.head_dim)
            k = self.norm("key_layernorm", k, self.shape.head_dim)
        return q, k

    def turned(self, x: Value) -> Value:
        """Queries or keys with their positions."""
        shape, tape = self.shape, self.build.tape
        if self.rotary is None:
            return x
        if shape.rotary < 1 or shape.rotary_joined:
            turned = rotate_part(tape, x, self.rotary, shape.rotary)
        else:
            turned = rotate(tape, x, self.rotary)
        return cast(tape, turned, x.item) if shape.rotary_back else turned

    def projections(self, x: Value) -> tuple[Value, Value, Value]:
        """Queries, keys and values as heads."""
        build, shape = self.build, self.shape
        width, small = shape.head_count * shape.head_dim, shape.kv_heads * shape.head_dim
        if shape.qkv != "split":
            return self.fused(x, width, small)
        q = self.projected("q_proj", x, width)
        k = self.projected("k_proj", x, small)
        v = heads(
            build.tape, build.linear(_name(shape, "self_attn.v_proj"), x, shape.hidden, small, bias=shape.qkv_bias)
        )
        return q, k, v

    def projected(self, name: str, x: Value, width: int) -> Value:
        """Queries or keys, with their norm."""
        build, shape = self.build, self.shape
        y = build.linear(_name(shape, f"self_attn.{name}"), x, shape.hidden, width, bias=shape.qkv_bias)
        if shape.query_scale and name == "q_proj":
            y = scale(build.tape, y)
        if shape.qk_norm == "whole":
            y = self.norm(f"{name}_norm", y, width)
        y = heads(build.tape, y)
        if shape.qk_norm == "head":
            y = self.norm(f"{name}_norm", y, shape.head_dim)
        return y

    def fused(self, x: Value, width: int, small: int) -> tuple[Value, Value, Value]:
        """One projection, cut in three."""
        build, shape, tape = self.build, self.shape, self.build.tape
        name = _name(shape, "self_attn.qkv_proj")
        y = build.linear(name, x, shape.hidden, width + 2 * small, bias=shape.qkv_bias)
        tokens = build.tokens
        if shape.qkv != "sliced":
            q, k, v = split(tape, heads(tape, y), (tokens * width, tokens * small, tokens * small))
            return q, k, v
        return cut(tape, y, tokens * width), cut(tape, y, tokens * small), cut(tape, y, tokens * small)

    def feed_forward(self, x: Value) -> Value:
        """The dense half, or the mixture, of the whole sequence."""
        return self.part(self.fed(self.whole(x)))

    def fed(self, x: Value) -> Value:
        """The dense half, or the mixture."""
        build, shape = self.build, self.shape
        if self.sparse and shape.mixture is not None:
            return mixture(build, x, shape.hidden, shape.mixture, shape.activation)
        tape = build.tape
        before, tape.label = tape.label, MLP
        y = feed_forward(build, shape, x)
        tape.label = before
        return y


def norm(build: Build, shape: DecoderShape, name: str, x: Value, width: int) -> Value:
    """The norm that the shape names."""
    if shape.norm == "layer":
        return build.layer_norm(name, x, width, bias=shape.norm_bias)
    if shape.norm == "layer_lowered":
        return lowered_norm(build, name, x, width)
    if shape.norm == "layer_plain":
        return plain_norm(build, name, x, width)
    if shape.norm == "wide":
        return build.wide_norm(name, x, width, width)
    wide = shape.norm == "rms_wide"
    return build.rms(name, x, width, in_fp32=shape.norm != "rms", wide=wide, offset=shape.norm == "rms_offset")


def plain_norm(build: Build, name: str, x: Value, width: int) -> Value:
    """Olmo's layer norm without weights, in fp32 and cast back."""
    return cast(build.tape, build.layer_norm(name, cast(build.tape, x, 4), width, affine=False), x.item)


def lowered_norm(build: Build, name: str, x: Value, width: int) -> Value:
    """Nemotron's layer norm: under autocast its inputs are cast down, and the kernel runs in that type."""
    tape = build.tape
    autocast = tape.autocast
    if autocast:
        x = cast(tape, x, autocast)
    tape.autocast = 0
    output = build.layer_norm(name, x, width)
    tape.autocast = autocast
    return output


def feed_forward(build: Build, shape: DecoderShape, x: Value) -> Value:
    """act(gate(x)) · up(x), or act(up(x)), then down."""
    tape, h, inner, bias = build.tape, shape.hidden, shape.ffn, shape.mlp_bias
    up, down = _name(shape, "mlp.up_proj"), _name(shape, "mlp.down_proj")
    if shape.mlp == "plain":
        return build.linear(
            down, activate(tape, build.linear(up, x, h, inner, bias=bias), shape.activation), inner, h, bias=bias
        )
    if shape.mlp == "fused":
        both = build.linear(_name(shape, "mlp.gate_up_proj"), x, h, 2 * inner, bias=bias)
        gate, straight = split(tape, both, (both.n // 2, both.n // 2))
        product = multiply(tape, straight, activate(tape, gate, shape.activation))
        return build.linear(down, product, inner, h, bias=bias)
    return build.linear(
        down,
        multiply(
            tape,
            activate(tape, build.linear(_name(shape, "mlp.gate_proj"), x, h, inner, bias=bias), shape.activation),
            build.linear(up, x, h, inner, bias=bias),
        ),
        inner,
        h,
        bias=bias,
    )


def _pre(layer: Layer, x: Value) -> Value:
    residual = x
    x = layer.norm("input_layernorm", x)
    x = layer.attention(x)
    x = layer.residual(residual, x)
    residual = x
    x = layer.norm("post_attention_layernorm", x)
    x = layer.feed_forward(x)
    return layer.residual(residual, x)


def _post(layer: Layer, x: Value) -> Value:
    residual = x
    x = layer.attention(x)
    x = layer.norm("post_attention_layernorm", x)
    x = layer.residual(residual, x)
    residual = x
    x = layer.feed_forward(x)
    x = layer.norm("post_feedforward_layernorm", x)
    return layer.residual(residual, x)


def _sandwich(layer: Layer, x: Value) -> Value:
    residual = x
    x = layer.norm("input_layernorm", x)
    x = layer.attention(x)
    x = layer.norm("post_attention_layernorm", x)
    x = layer.residual(residual, x)
    residual = x
    x = layer.norm("pre_feedforward_layernorm", x)
    x = layer.feed_forward(x)
    x = layer.norm("post_feedforward_layernorm", x)
    return layer.residual(residual, x)


def _parallel(layer: Layer, x: Value) -> Value:
    residual = x
    x = layer.norm("input_layernorm", x)
    attended = layer.attention(x)
    fed = layer.feed_forward(x)
    return layer.residual(layer.residual(residual, attended), fed)


def _parallel2(layer: Layer, x: Value) -> Value:
    attended = layer.attention(layer.norm("input_layernorm", x))
    tape, p = layer.build.tape, layer.shape.residual_dropout
    attended = dropout(tape, attended, p)
    fed = layer.feed_forward(layer.norm("post_attention_layernorm", x))
    fed = dropout(tape, fed, p)
    return add(tape, add(tape, fed, attended), x)


_ORDERS = {"pre": _pre, "post": _post, "sandwich": _sandwich, "parallel": _parallel, "parallel2": _parallel2}


def _last_norm(build: Build, state: State, shape: DecoderShape) -> None:
    build.scope = ""
    state.x = norm(build, shape, "norm", state.hidden, shape.hidden)
    build.tape.label = OTHER
    state.held.clear()


def _loss(build: Build, state: State, shape: DecoderShape, run: Run) -> None:
    tape = build.tape
    tape.label = LOSS
    x = state.hidden
    state.x = None
    if shape.sequence_ways > 1:
        x = tape.result(x.n * shape.sequence_ways, x.item, (x,), whole_size(tape, x.n, x.item))
    if run.loss != "standard":
        state.loss = split_loss(build, shape, run.loss, x)
        return
    logits = head(build, x, shape.hidden, shape.vocabulary, tied=shape.tied, bias=shape.head_bias)
    if shape.logit_softcap:
        logits = scale(tape, logits)
        logits = activate(tape, logits, "tanh")
        logits = scale(tape, logits)
    if shape.logit_scale:
        logits = scale(tape, logits)
    state.logits = logits
    del logits
    state.loss = cross_entropy(tape, state.logits, build.tokens, divided=run.divided)


def split_loss(build: Build, shape: DecoderShape, kind: str, x: Value) -> Value:
    """Head and loss without whole logits."""
    name = "embed_tokens" if shape.tied else "lm_head"
    n = shape.vocabulary * shape.hidden
    weight = build.weight(name, n, shape.vocabulary, "embedding" if shape.tied else "head")
    way = fused_cross_entropy if kind == "fused" else chunked_cross_entropy
    return way(build.tape, x, weight, build.tokens, shape.hidden)


def head(build: Build, x: Value, hidden: int, vocabulary: int, *, tied: bool, bias: bool = False) -> Value:
    """The output projection, never packed nor adapted; a tied one multiplies with the embedding."""
    name = "embed_tokens" if tied else "lm_head"
    table = build.weight(name, vocabulary * hidden, vocabulary, "embedding" if tied else "head")
    offset = build.weight("lm_head.bias", vocabulary) if bias else None
    return linear(build.tape, x, table, offset)
