"""Zamba: Mamba in every layer, and a transformer whose weights some of the layers share.

The shared transformer reads the stream beside the embeddings; what it gives is added to what the layer's own Mamba
reads. Its gradients meet over all layers that share it, so a layer's kind says which of them it is.
Source: transformers 5.23, `models/zamba/modeling_zamba.py`, `models/zamba2/modeling_zamba2.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.attention import Heads, attend
from sizeup.estimate.training.basic import add, heads, join, multiply, split
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.checkpointing import checkpointed
from sizeup.estimate.training.tape import ATTENTION, MLP, WEIGHT_COPIES, Parameter, Tape, Value

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer

#: Parts of the names of what a layer has by itself.
OWN = ("mamba", "linear", ".pair", ".lora_", ".magnitude")
PROJECTIONS = ("q_proj", "k_proj", "v_proj")


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """A transformer that layers share, and which of them this one is.

    block: its number. first: whether this layer is the first that has it; last: the last. after: layers with a shared
    transformer that follow (2: or more), whose gradients of the embeddings come first.
    rank: of the pair of projections that each layer adds to the feed-forward's (0: none), and with `turned_pairs` to
    queries, keys and values, too. others: layers of the block, whose pairs its module has, too.
    """

    block: int = 0
    first: bool = True
    last: bool = True
    after: int = 0
    rank: int = 0
    pairs_everywhere: bool = False
    others: int = 0


class Hybrid(msgspec.Struct, frozen=True):
    """The mixer of a layer that also has a shared transformer."""

    mixer: Callable[[Layer, Value], Value]
    shared: Shared


def zamba(layer: Layer, x: Value) -> Value:
    """The shared transformer, if the layer has one; then norm, Mamba and residual, recomputed by themselves."""
    mixer = layer.shape.mixer
    if mixer is None:
        raise ValueError("every layer of this model has a mixer")
    if not isinstance(mixer, Hybrid):
        return _scanned(layer, x, mixer, None)
    build, hidden = layer.build, layer.shape.hidden
    given = _transformed(layer, x, mixer.shared)
    given = build.linear("linear", given, hidden, hidden)
    if not layer.recomputed:
        return _scanned(layer, x, mixer.mixer, given)
    scope = build.scope

    def decoder(stream: Value) -> Value:
        build.scope = scope
        return _scanned(layer, stream, mixer.mixer, given)

    return checkpointed(build.tape, decoder, x)


def _scanned(layer: Layer, x: Value, mixer: Callable[[Layer, Value], Value], given: Value | None) -> Value:
    """Norm of the stream and what it is given, Mamba, residual."""
    tape, residual = layer.build.tape, x
    x = x if given is None else add(tape, x, given)
    x = layer.norm("mamba_decoder.input_layernorm", x)
    x = mixer(layer, x)
    return add(tape, residual, x)


def _transformed(layer: Layer, x: Value, s: Shared) -> Value:
    """Attention and feed-forward of the stream beside the embeddings, without residuals."""
    build, own = layer.build, layer.build.scope
    if layer.original is None:
        raise ValueError("the model keeps no embeddings for its shared transformer")
    block = f"shared {s.block}/"
    _lent(build, block, own)
    build.unpacked = not (s.first and s.last)
    casts = layer.casts.setdefault(block, [])
    if build.tape.grad:
        _copied(build.tape, casts)
    x = join(build.tape, (x, layer.original))
    x = layer.norm("shared_transf.input_layernorm", x, 2 * layer.shape.hidden)
    x = _attended(layer, x, s)
    x = layer.norm("shared_transf.pre_ff_layernorm", x)
    x = _fed(layer, x, s) if s.rank else layer.dense(x)
    build.unpacked = False
    _lent(build, own, block)
    if build.tape.autocast and layer.recomputed and s.first and not build.tape.grad:
        casts += _casts(build, block)
    return x


def _casts(build: Build, block: str) -> list[tuple[Parameter, Value]]:
    """Autocast casts a shared weight once for all layers, before any is recomputed: weights and what they become.

    So its gradients meet in 16 bits, and are cast when those of all layers are there.
    """
    tape, found = build.tape, []
    tape.grad = True
    for key, parameter in build.made.items():
        if key.startswith(block) and parameter.rows and parameter.needs:
            copy = Value(parameter.n, tape.autocast, None)
            tape.record((parameter,), (copy,), lambda g: (g,))
            found.append((parameter, copy))
    tape.grad = False
    return found


def _copied(tape: Tape, casts: list[tuple[Parameter, Value]]) -> None:
    """The casts made again for a layer that is recomputed, whose gradients go to the first ones."""
    before, tape.label = tape.label, WEIGHT_COPIES
    for parameter, copy in casts:
        parameter.copy = tape.value(copy.n, copy.item)
        parameter.copy.node, parameter.copy.needs = copy.node, True
        tape.cached.append(parameter)
    tape.label = before


def _lent(build: Build, source: str, target: str) -> None:
    """Let what is made in one scope be found in another, but for what a layer has by itself."""
    for key, parameter in list(build.made.items()):
        name = key.removeprefix(source)
        if name != key and not any(word in name for word in OWN):
            build.made.setdefault(target + name, parameter)


def _attended(layer: Layer, x: Value, s: Shared) -> Value:
    """Projections, positions where there are any, attention, output projection."""
    build, shape = layer.build, layer.shape
    tape = build.tape
    before, tape.label = tape.label, ATTENTION
    width = shape.head_count * shape.head_dim
    sizes = {"q_proj": width, "k_proj": shape.kv_heads * shape.head_dim, "v_proj": shape.kv_heads * shape.head_dim}
    q, k, v = (build.linear(f"self_attn.{name}", x, 2 * shape.hidden, sizes[name]) for name in PROJECTIONS)
    if s.pairs_everywhere:
        q, k, v = (
            _with_pair(build, f"self_attn.{name}", x, y, 2 * shape.hidden, 2 * shape.hidden, s)
            for name, y in zip(PROJECTIONS, (q, k, v), strict=True)
        )
    q, k, v = (heads(tape, y) for y in (q, k, v))
    if layer.rotary is not None:
        q, k = layer.turned(q), layer.turned(k)
    h = Heads(
        build.batch, build.sequence, build.sequence, shape.head_count, shape.kv_heads, shape.head_dim, shape.head_dim
    )
    y = attend(tape, q, k, v, h, layer.way(), layer.mask)
    y = build.linear("self_attn.o_proj", y, width, shape.hidden)
    tape.label = before
    return y


def _with_pair(build: Build, name: str, x: Value, y: Value, inputs: int, outputs: int, s: Shared) -> Value:
    """Y and what a layer's own pair of projections adds; the pairs of the block's other layers aren't called."""
    down, up = f"{name}.pair.0", f"{name}.pair.1"
    for number in range(s.others):
        build.unused_adapter(f"{down}.{number}", inputs, s.rank)
        build.unused_adapter(f"{up}.{number}", s.rank, outputs)
    added = build.linear(up, build.linear(down, x, inputs, s.rank), s.rank, outputs)
    return add(build.tape, y, added)


def _fed(layer: Layer, x: Value, s: Shared) -> Value:
    """Zamba 2's feed-forward: gate and up in one matrix, with a pair for each layer."""
    build, shape = layer.build, layer.shape
    tape, inner, bias = build.tape, shape.ffn, shape.mlp_bias
    before, tape.label = tape.label, MLP
    both = build.linear("mlp.gate_up_proj", x, shape.hidden, 2 * inner, bias=bias)
    both = _with_pair(build, "mlp.gate_up_proj", x, both, shape.hidden, 2 * inner, s)
    gate, up = split(tape, both, (both.n // 2, both.n // 2))
    y = multiply(tape, activate(tape, gate, shape.activation), up)
    y = build.linear("mlp.down_proj", y, inner, shape.hidden, bias=bias)
    tape.label = before
    return y
