"""One decoder layer: attention and feed-forward, and the order in which norms and residuals stand around them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sizeup.estimate.training.architectures.blocks import block_mask
from sizeup.estimate.training.architectures.dynamic_mask import dynamic_mask
from sizeup.estimate.training.architectures.experts import mixture
from sizeup.estimate.training.architectures.feed_forward import feed_forward
from sizeup.estimate.training.architectures.gemma4 import layer_slice, projections
from sizeup.estimate.training.architectures.latent import latent_attention
from sizeup.estimate.training.architectures.layer_norms import norm
from sizeup.estimate.training.architectures.orders import ORDERS
from sizeup.estimate.training.architectures.ranks import gathered as gathered_of_ranks
from sizeup.estimate.training.architectures.ranks import parted
from sizeup.estimate.training.architectures.row_experts import with_rows
from sizeup.estimate.training.architectures.shape import DecoderShape
from sizeup.estimate.training.architectures.state_space import scanned
from sizeup.estimate.training.attention import Heads, Way, attend
from sizeup.estimate.training.basic import (
    add,
    cast,
    copy,
    cut,
    dropout,
    gathered,
    heads,
    multiply,
    pointwise,
    scale,
    split,
    spread,
    whole_size,
)
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.checkpointing import Made, checkpointed
from sizeup.estimate.training.norms import rms_norm
from sizeup.estimate.training.positions import Rotary, rotate, rotate_halves, rotate_part
from sizeup.estimate.training.program import State
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.tape import ATTENTION, COMMUNICATION, MLP, Parameter, Value


def layer_runner(
    shape: DecoderShape, run: Run, *, sparse: bool, window: int | None, recomputed: bool, still: bool = False
) -> Callable[[Build, State], None]:
    """A layer's forward pass as a segment."""

    def forward(build: Build, state: State) -> None:
        build.scope = f"{sparse}{window}{recomputed}{len(build.made)}/"
        layer = Layer(build, state, shape, run, sparse=sparse, window=window)
        layer.recomputed = recomputed
        if still:
            layer.rotary = None
        if recomputed:
            state.x = checkpointed(
                build.tape, layer, state.hidden, selective=run.selective, offload=run.offload, made=layer.made
            )
        else:
            state.x = layer(state.hidden)
        if layer.chosen is not None:
            state.held["chosen"] = layer.chosen
        if layer.made.values:
            state.held[f"keys {window}"] = list(layer.made.values)

    return forward


def mask_and_table(state: State, window: int | None) -> tuple[Value | None, Rotary | None]:
    """The mask and the table of positions that a layer of that window gets."""
    mask, tables = state.held.get(f"mask {window}"), state.held.get("rotary")
    table = tables[-1 if window is None else 0] if isinstance(tables, list) else None
    return mask if isinstance(mask, Value) else None, table


class Layer:
    """One decoder layer; called, it takes the stream and returns the next."""

    def __init__(
        self, build: Build, state: State, shape: DecoderShape, run: Run, *, sparse: bool, window: int | None
    ) -> None:
        self.build, self.shape, self.run, self.sparse = build, shape, run, sparse
        self.scope = build.scope
        mask, self.rotary = mask_and_table(state, window)
        self.mask = mask if shape.masked else None
        alibi = state.held.get("alibi")
        self.names: list[Value] = []
        original = state.held.get("original")
        self.original = original if isinstance(original, Value) else None
        self.recomputed = False
        casts = state.held.setdefault("casts", {})
        self.casts: dict[str, list[tuple[Parameter, Value]]] = casts if isinstance(casts, dict) else {}
        self.alibi = alibi if isinstance(alibi, Value) else None
        kept = state.held.setdefault("kept", [])
        self.made = Made(kept if isinstance(kept, list) else [])
        given = state.held.get(f"keys {window}")
        self.given = given if shape.caches == "reuse" and isinstance(given, list) else []
        chosen = state.held.get("chosen")
        self.chosen = chosen if isinstance(chosen, Value) and shape.index is None else None
        layers = state.held.get("layers")
        self.slice = layer_slice(build, shape, layers) if isinstance(layers, Value) else None

    def __call__(self, x: Value) -> Value:
        """The stream after the layer."""
        self.build.scope = self.scope
        if self.shape.others:
            x = self.with_others(x)
        if self.shape.scan is not None:
            x = scanned(self.build, x, self.shape.scan)
        return ORDERS[self.shape.order](self, x)

    def with_others(self, x: Value) -> Value:
        """The stream, and weights of which only the size is known: they get a gradient."""
        tape, weight = self.build.tape, self.build.weight("others", self.shape.others, 1, "matrix")
        output = Value(x.n, x.item, x.storage)
        n, item = weight.n, weight.item
        tape.record((x, weight), (output,), lambda g: (g, tape.value(n, item)))
        return output

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
        return self.dropped(self.part(self.mixed(self.whole(x))))

    def mixed(self, x: Value) -> Value:
        """Attention, or what stands in its place."""
        mixer = self.shape.mixer
        return self.attended(x) if mixer is None else mixer(self, x)

    def dropped(self, x: Value) -> Value:
        """A half's output with the dropout that its own module applies."""
        return dropout(self.build.tape, x, self.shape.half_dropout)

    def attended(self, x: Value) -> Value:
        """Projections, rotation, attention, output projection."""
        build, shape = self.build, self.shape
        if shape.latent is not None:
            y, self.chosen = latent_attention(
                build, x, shape.hidden, shape.head_count, shape.latent, self.way(), self.mask, self.turned,
                index=shape.index, chosen=self.chosen,
            )  # fmt: skip
            return y
        tape = build.tape
        before, tape.label = tape.label, ATTENTION
        q, k, v = self.turned_projections(x)
        gate = self.output_gate(x) if shape.output_gate == "sigmoid" else None
        groups = shape.head_count if shape.qkv == "grouped" else shape.kv_heads
        values = shape.value_dim or shape.head_dim
        sizes = Heads(build.batch, build.sequence, build.sequence, shape.head_count, groups, shape.head_dim, values)
        with_sinks = shape.way.sinks or shape.way.sinks_scale
        sinks = self.sinks() if with_sinks else None
        mask = self.mask
        if shape.blocks is not None:
            mask = block_mask(self, x, q.item, shape.blocks)
        elif shape.dynamic_window:
            mask = dynamic_mask(self, v, shape.dynamic_window)
        y = attend(tape, q, k, v, sizes, self.way(), mask, self.alibi, sinks, self.names)
        if shape.output_gate:
            y = multiply(tape, y, self.activated_gate(self.output_gate(x) if gate is None else gate, y.item))
        if shape.sub_norms:
            y = self.norm("self_attn.attn_sub_norm", y, shape.head_count * values)
        ways = self.ways("attention")
        y = build.linear(
            shape.name("self_attn.o_proj"), parted(tape, y, ways) if ways > 1 else y,
            shape.head_count * values // ways, shape.hidden, bias=shape.output_bias, apart=shape.product_bias,
        )  # fmt: skip
        if shape.order == "mpt":
            del self.names[:-1]
        elif shape.order != "bloom":
            self.names.clear()
        tape.label = before
        return y

    def ways(self, half: str) -> int:
        """Over how many ranks a half's projections are split although their results are whole."""
        return self.shape.ways if half in self.shape.gathered else 1

    def linear(self, name: str, x: Value, outputs: int, *, bias: bool, apart: bool = False) -> Value:
        """A projection of the attention, gathered from all ranks where that is so."""
        build, ways = self.build, self.ways("attention")
        y = build.linear(self.shape.name(name), x, self.shape.hidden, outputs // ways, bias=bias, apart=apart)
        return gathered_of_ranks(build.tape, y, ways) if ways > 1 else y

    def sinks(self) -> Parameter:
        """A number for each head."""
        return self.build.weight("self_attn.sinks", self.shape.head_count, item=4 if self.shape.way.sinks_wide else 0)

    def output_gate(self, x: Value) -> Value:
        """The projection that weighs the attention's output."""
        shape = self.shape
        width = shape.head_count * (1 if shape.output_gate.endswith("heads") else shape.head_dim)
        return self.build.linear(shape.name("self_attn.gate_proj"), x, shape.hidden, width)

    def activated_gate(self, gate: Value, item: int) -> Value:
        """Its sigmoid, or its softplus in fp32."""
        tape = self.build.tape
        if self.shape.output_gate.startswith("sigmoid"):
            return pointwise(tape, gate, keeps_output=True)
        return cast(tape, pointwise(tape, cast(tape, gate, 4)), item)

    def turned_projections(self, x: Value) -> tuple[Value, Value, Value]:
        """Queries, keys and values, the first two with their positions."""
        if self.shape.qkv == "gemma4":
            return projections(self, x)
        q, k, v = self.projections(x)
        return (q, k, v) if self.rotary is None else (*self.all_turned(q, k), v)

    def way(self) -> Way:
        """How attention is computed."""
        shape = self.shape
        return msgspec.structs.replace(shape.way, eager=self.run.eager or shape.eager_only, p=shape.attention_dropout)

    def all_turned(self, q: Value, k: Value) -> tuple[Value, Value]:
        """Queries and keys with their positions, and normed after that where the model does."""
        if self.shape.rotary_cast:
            return self.turned_in_fp32(q, k)
        shared, repeats = self.rotary, self.shape.rotary_repeats
        if repeats and shared is not None:
            self.rotary = shared.repeated(self.build.tape)
        q = self.turned(q)
        if repeats == "tensor" and shared is not None:
            self.rotary = shared.repeated(self.build.tape)
        k = self.turned(k)
        self.rotary = shared
        if self.shape.qk_norm == "plain":
            q, k = (rms_norm(self.build.tape, x, None, self.shape.head_dim) for x in (q, k))
        if self.shape.qk_norm == "turned":
            q = self.norm("query_layernorm", q, self.shape.head_dim)
            k = self.norm("key_layernorm", k, self.shape.head_dim)
        return q, k

    def turned_in_fp32(self, q: Value, k: Value) -> tuple[Value, Value]:
        """Queries and keys cast first, both turned, both cast back; all of them have names until then."""
        tape, item = self.build.tape, q.item
        wide_q, wide_k = cast(tape, q, 4), cast(tape, k, 4)
        turned_q = self.turned(wide_q)
        turned_k = self.turned(wide_k)
        return cast(tape, turned_q, item), cast(tape, turned_k, item)

    def turned(self, x: Value) -> Value:
        """Queries or keys with their positions."""
        shape, tape = self.shape, self.build.tape
        if self.rotary is None:
            return x
        if shape.rotary_halved:
            turned = rotate_halves(tape, x, self.rotary)
        elif shape.rotary < 1 or shape.rotary_joined:
            turned = rotate_part(tape, x, self.rotary, round(shape.head_dim * shape.rotary), shape.head_dim)
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
        wide = shape.kv_heads * (shape.value_dim or shape.head_dim)
        v = heads(build.tape, self.linear("self_attn.v_proj", x, wide, bias=shape.qkv_bias))
        return q, k, scale(build.tape, v) if shape.value_scale else v

    def projected(self, name: str, x: Value, width: int) -> Value:
        """Queries or keys, with their norm."""
        build, shape = self.build, self.shape
        y = self.linear(f"self_attn.{name}", x, width, bias=shape.qkv_bias)
        if (shape.query_scale and name == "q_proj") or (shape.key_scale and name == "k_proj"):
            y = scale(build.tape, y)
        if shape.qk_norm == "whole":
            y = self.norm(f"{name}_norm", y, width)
        y = heads(build.tape, y)
        if shape.qk_norm == "head":
            y = self.norm(f"{name}_norm", y, shape.head_dim)
        if shape.qk_norm == "per_head":
            y = build.wide_norm(f"{name}_norm", y, shape.head_dim, width)
        return y

    def normed(self, x: Value, name: str) -> Value:
        """Queries or keys of a fused projection, with their norm."""
        return self.norm(f"{name}_layernorm", x, self.shape.head_dim) if self.shape.qk_norm == "head" else x

    def fused(self, x: Value, width: int, small: int) -> tuple[Value, Value, Value]:
        """One projection, cut in three."""
        build, shape, tape = self.build, self.shape, self.build.tape
        y = self.linear("self_attn.qkv_proj", x, width + 2 * small, bias=shape.qkv_bias, apart=shape.product_bias)
        tokens = build.tokens
        if shape.qkv_clipped:
            y = pointwise(tape, y)
        if shape.qkv in {"indexed", "grouped", "selected"}:
            self.names.append(y)
        if shape.qkv == "indexed":
            k, v = (gathered(tape, y, tokens * small) for _ in range(2))
            return cut(tape, y, tokens * width, strided=True), k, v
        if shape.qkv == "grouped":
            q = copy(tape, cut(tape, y, tokens * width, strided=True))
            k, v = (spread(tape, gathered(tape, y, tokens * small), tokens * width) for _ in range(2))
            return q, k, v
        if shape.qkv == "selected":
            q, k, v = (cut(tape, y, n, strided=True) for n in (tokens * width, tokens * small, tokens * small))
            return self.normed(q, "q"), self.normed(k, "k"), v
        if shape.qkv != "sliced":
            q, k, v = split(tape, heads(tape, y), (tokens * width, tokens * small, tokens * small))
            return q, k, v
        return cut(tape, y, tokens * width), cut(tape, y, tokens * small), cut(tape, y, tokens * small)

    def feed_forward(self, x: Value) -> Value:
        """The dense half, or the mixture, of the whole sequence."""
        return self.dropped(self.part(self.fed(self.whole(x))))

    def fed(self, x: Value) -> Value:
        """The dense half, or the mixture."""
        build, shape = self.build, self.shape
        if shape.rows is not None:
            return with_rows(self, x, shape.rows)
        if self.sparse and shape.mixture is not None:
            return mixture(build, x, shape.hidden, shape.mixture, shape.activation)
        return self.dense(x)

    def dense(self, x: Value) -> Value:
        """The dense half."""
        build, shape = self.build, self.shape
        tape = build.tape
        before, tape.label = tape.label, MLP
        y = feed_forward(build, shape, x)
        tape.label = before
        return y
