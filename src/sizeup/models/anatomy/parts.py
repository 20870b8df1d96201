"""The shared parts that anatomies are built of: projections, norms, attention, feed-forwards, stacks of layers.

A part holds the tensors of one module, named relative to its layer, with what it mixes or widens. A *kind* of
layer is a sequence of parts; `stack` puts kinds behind layer numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import chain
from typing import TypeVar

import msgspec

from sizeup.models.mixers import Attention, LatentAttention, Mixer
from sizeup.models.model import Block, FeedForward
from sizeup.models.tensors import Tensor

Tensors = tuple[Tensor, ...]
Kind = TypeVar("Kind", bound=Hashable)


class Part(msgspec.Struct, frozen=True):
    """The tensors of one module of a layer, and what it does."""

    tensors: Tensors
    mixers: tuple[Mixer, ...] = ()
    feed_forward: FeedForward | None = None


def weight(name: str, shape: tuple[int, ...], role: str, part: str = "") -> Tensors:
    """A single tensor, as a tuple."""
    return (Tensor(name, shape, role, part),)


def linear(name: str, outputs: int, inputs: int, role: str, part: str = "", *, bias: bool = False) -> Tensors:
    """A projection: `name.weight` of shape (outputs, inputs), and `name.bias` (outputs) if it has one."""
    matrix = Tensor(f"{name}.weight", (outputs, inputs), role, part)
    return (matrix, Tensor(f"{name}.bias", (outputs,), role, part)) if bias else (matrix,)


def conv1d(name: str, outputs: int, inputs: int, role: str, part: str = "", *, bias: bool = True) -> Tensors:
    """A projection stored transposed, (inputs, outputs), as GPT-2's `Conv1D` does."""
    matrix = Tensor(f"{name}.weight", (inputs, outputs), role, part)
    return (matrix, Tensor(f"{name}.bias", (outputs,), role, part)) if bias else (matrix,)


def norm(name: str, size: int, *, bias: bool = False, part: str = "norm") -> Part:
    """A norm over `size` channels: RMS norm without a bias, layer norm with one."""
    return Part(norm_tensors(name, size, bias=bias, part=part))


def norm_tensors(name: str, size: int, *, bias: bool = False, part: str = "norm") -> Tensors:
    """The tensors of a norm."""
    scale = Tensor(f"{name}.weight", (size,), "norm", part)
    return (scale, Tensor(f"{name}.bias", (size,), "norm", part)) if bias else (scale,)


def attention(
    mixer: Attention,
    hidden: int,
    *,
    name: str = "self_attn",
    names: Sequence[str] = ("q_proj", "k_proj", "v_proj", "o_proj"),
    qkv_bias: bool = False,
    output_bias: bool = False,
    qk_norm: str | None = None,
    qk_norm_names: Sequence[str] = ("q_norm", "k_norm"),
    output_gate: bool = False,
    extra: Tensors = (),
) -> Part:
    """Attention with separate query, key, value and output projections.

    qk_norm: None, `head` (RMS norm over one head) or `full` (over all heads of the projection).
    extra: further tensors of the module, named relative to the layer (sinks, gates).
    output_gate: the query projection is twice as wide and its second half gates the output (Qwen3-Next).
    A mixer that shares another layer's cache has no key and value projections.
    """
    q, k, v, o = (f"{name}.{projection}" for projection in names)
    queries, keys = mixer.heads * mixer.head_dim, mixer.kv_heads * mixer.head_dim
    tensors = list(linear(q, queries * (2 if output_gate else 1), hidden, "attention", "q", bias=qkv_bias))
    if not mixer.shares_cache:
        tensors += linear(k, keys, hidden, "attention", "k", bias=qkv_bias)
        tensors += linear(v, mixer.kv_heads * mixer.value_dim, hidden, "attention", "v", bias=qkv_bias)
    tensors += linear(o, hidden, mixer.heads * mixer.value_dim, "attention", "o", bias=output_bias)
    if qk_norm:
        q_size, k_size = (mixer.head_dim, mixer.head_dim) if qk_norm == "head" else (queries, keys)
        tensors += norm_tensors(f"{name}.{qk_norm_names[0]}", q_size, part="q_norm")
        if not mixer.shares_cache:
            tensors += norm_tensors(f"{name}.{qk_norm_names[1]}", k_size, part="k_norm")
    return Part((*tensors, *extra), (mixer,))


def fused_attention(
    mixer: Attention,
    hidden: int,
    *,
    qkv: str = "self_attn.qkv_proj",
    output: str = "self_attn.o_proj",
    bias: bool = False,
    output_bias: bool = False,
    transposed: bool = False,
    extra: Tensors = (),
) -> Part:
    """Attention whose query, key and value projections are rows of one matrix.

    transposed: matrices are stored (in, out), as GPT-2's one-dimensional convolutions are.
    """
    width = mixer.heads * mixer.head_dim + mixer.key_elements + mixer.value_elements
    layer = conv1d if transposed else linear
    tensors = (
        *layer(qkv, width, hidden, "attention", "qkv", bias=bias),
        *layer(output, hidden, mixer.heads * mixer.value_dim, "attention", "o", bias=output_bias),
    )
    return Part((*tensors, *extra), (mixer,))


def latent_attention(
    mixer: LatentAttention, hidden: int, *, name: str = "self_attn", output: str = "o_proj", bias: bool = False
) -> Part:
    """Multi-head latent attention with DeepSeek's names: queries compressed or full, keys and values compressed."""
    tensors: list[Tensor] = []
    queries = mixer.heads * mixer.head_dim
    if mixer.q_rank is None:
        tensors += linear(f"{name}.q_proj", queries, hidden, "attention", "q")
    else:
        tensors += linear(f"{name}.q_a_proj", mixer.q_rank, hidden, "attention", "q_a", bias=bias)
        tensors += norm_tensors(f"{name}.q_a_layernorm", mixer.q_rank, part="q_a_norm")
        tensors += linear(f"{name}.q_b_proj", queries, mixer.q_rank, "attention", "q_b")
    tensors += linear(f"{name}.kv_a_proj_with_mqa", mixer.latent_elements, hidden, "attention", "kv_a", bias=bias)
    tensors += norm_tensors(f"{name}.kv_a_layernorm", mixer.kv_rank, part="kv_a_norm")
    expanded = mixer.heads * (mixer.nope_dim + mixer.value_dim)
    tensors += linear(f"{name}.kv_b_proj", expanded, mixer.kv_rank, "attention", "kv_b")
    tensors += linear(f"{name}.{output}", hidden, mixer.heads * mixer.value_dim, "attention", "o", bias=bias)
    return Part(tuple(tensors), (mixer,))


def gated_mlp(
    hidden: int,
    width: int,
    *,
    name: str = "mlp",
    names: Sequence[str] = ("gate_proj", "up_proj", "down_proj"),
    fused: str = "",
    bias: bool = False,
    activation: str = "silu",
    role: str = "mlp",
) -> Part:
    """A gated feed-forward: down(activation(gate(x)) · up(x)).

    fused: the name of the one matrix that holds gate and up, in place of their two names.
    """
    forward = FeedForward(activation=activation, width=width)
    if fused:
        down = f"{name}.{names[-1]}"
        together = linear(f"{name}.{fused}", 2 * width, hidden, role, "gate_up", bias=bias)
        return Part((*together, *linear(down, hidden, width, role, "down", bias=bias)), feed_forward=forward)
    gate, up, down = (f"{name}.{projection}" for projection in names)
    tensors = (
        *linear(gate, width, hidden, role, "gate", bias=bias),
        *linear(up, width, hidden, role, "up", bias=bias),
        *linear(down, hidden, width, role, "down", bias=bias),
    )
    return Part(tensors, feed_forward=forward)


def plain_mlp(
    hidden: int,
    width: int,
    *,
    name: str = "mlp",
    names: Sequence[str] = ("fc1", "fc2"),
    bias: bool = True,
    activation: str = "gelu",
    role: str = "mlp",
    transposed: bool = False,
) -> Part:
    """A plain feed-forward: down(activation(up(x))). transposed: matrices are stored (in, out)."""
    up, down = (f"{name}.{projection}" if name else projection for projection in names)
    layer = conv1d if transposed else linear
    tensors = (
        *layer(up, width, hidden, role, "up", bias=bias),
        *layer(down, hidden, width, role, "down", bias=bias),
    )
    return Part(tensors, feed_forward=FeedForward(activation=activation, gated=False, width=width))


def experts(
    hidden: int,
    width: int,
    count: int,
    per_token: int,
    *,
    name: str = "mlp.experts.{copy}",
    names: Sequence[str] = ("gate_proj", "up_proj", "down_proj"),
    gated: bool = True,
) -> Tensors:
    """The routed experts of a layer: one entry for each projection, with `copies` of it."""
    projections = (
        (("gate", (width, hidden)), ("up", (width, hidden)), ("down", (hidden, width)))
        if gated
        else (("up", (width, hidden)), ("down", (hidden, width)))
    )
    return tuple(
        Tensor(f"{name}.{projection}.weight", shape, "routed_expert", part, count, per_token)
        for projection, (part, shape) in zip(names, projections, strict=True)
    )


def fused_experts(
    hidden: int,
    width: int,
    count: int,
    per_token: int,
    *,
    gate_up: str = "mlp.experts.gate_up_proj",
    down: str = "mlp.experts.down_proj",
    transposed: bool = False,
    bias: bool = False,
) -> Tensors:
    """Routed experts stacked in one tensor for gate and up and one for down, (experts, out, in).

    transposed: (experts, in, out). bias: biases stacked likewise, under the same names with `_bias`.
    """
    shapes = {gate_up: (2 * width, hidden), down: (hidden, width)}
    tensors = [
        Tensor(name, shape[::-1] if transposed else shape, "routed_expert", part, count, per_token, fused="stacked")
        for (name, shape), part in zip(shapes.items(), ("gate_up", "down"), strict=True)
    ]
    if bias:
        tensors += [
            Tensor(f"{name}_bias", shape[:1], "routed_expert", part, count, per_token, fused="stacked")
            for (name, shape), part in zip(shapes.items(), ("gate_up", "down"), strict=True)
        ]
    return tuple(tensors)


def mixture(
    hidden: int,
    width: int,
    count: int,
    per_token: int,
    *,
    router: str = "mlp.gate",
    router_bias: bool = False,
    correction: str | None = None,
    correction_role: str = "buffer",
    shared: Part | None = None,
    shared_gate: str | None = None,
    name: str = "mlp.experts.{copy}",
    names: Sequence[str] = ("gate_proj", "up_proj", "down_proj"),
    gated: bool = True,
    activation: str = "silu",
    routed: Tensors = (),
) -> Part:
    """A mixture of experts: a router, routed experts, and perhaps shared experts that every token passes.

    correction: name of the router's correction bias, which balances load: a buffer, or a parameter of `router`.
    routed: the experts' tensors, where they aren't stored one by one.
    shared_gate: name of the shared expert's own gate (1, hidden).
    """
    tensors = list(linear(router, count, hidden, "router", "router", bias=router_bias))
    if correction:
        tensors += weight(correction, (count,), correction_role, "router_correction")
    tensors += routed or experts(hidden, width, count, per_token, name=name, names=names, gated=gated)
    if shared:
        tensors += shared.tensors
    if shared_gate:
        tensors += linear(shared_gate, 1, hidden, "shared_expert", "shared_gate")
    return Part(
        tuple(tensors),
        feed_forward=FeedForward(
            activation=activation,
            gated=gated,
            experts=count,
            experts_per_token=per_token,
            expert_width=width,
            shared_width=shared.feed_forward.width if shared and shared.feed_forward else 0,
        ),
    )


def block(name: str, *groups: Tensors | Part, stack: str = "text") -> Block:
    """What stands outside the layers: embeddings, final norms, the head, a projector."""
    return Block(name, tuple(chain.from_iterable(g.tensors if isinstance(g, Part) else g for g in groups)), stack=stack)


def stack_of(
    prefix: str,
    kinds: Sequence[Kind],
    build: Callable[[Kind], Iterable[Part]],
    *,
    stack: str = "text",
    label: Callable[[Kind], str] = "{} layer".format,
    first: int = 0,
) -> tuple[Block, ...]:
    """One block for each kind of layer.

    kinds: the kind of every layer, in order; build: from a kind to its parts; label: from a kind to its name.
    Tensor names become `prefix.{layer}.name`; the first layer's number is `first`.
    """
    numbers: dict[Kind, list[int]] = {}
    for number, kind in enumerate(kinds, first):
        numbers.setdefault(kind, []).append(number)
    return tuple(
        _layer_block(prefix, label(kind), tuple(build(kind)), tuple(layers), stack) for kind, layers in numbers.items()
    )


def _layer_block(prefix: str, name: str, parts: tuple[Part, ...], layers: tuple[int, ...], stack: str) -> Block:
    tensors = tuple(
        msgspec.structs.replace(tensor, name=f"{prefix}.{{layer}}.{tensor.name}")
        for part in parts
        for tensor in part.tensors
    )
    forward = next((part.feed_forward for part in parts if part.feed_forward), None)
    return Block(name, tensors, layers, stack, tuple(chain.from_iterable(part.mixers for part in parts)), forward)


def head(name: str, vocabulary: int, hidden: int, *, tied_to: str = "", bias: bool = False) -> Tensors:
    """The output projection over the vocabulary; `tied_to` names the embedding that holds its values."""
    matrix = Tensor(f"{name}.weight", (vocabulary, hidden), "head", "head", tied_to=tied_to)
    return (matrix, Tensor(f"{name}.bias", (vocabulary,), "head", "head")) if bias else (matrix,)
