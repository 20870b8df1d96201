"""Shared parts of encoders and towers: attention with any set of biases, convolutions, tables, roles.

What text decoders share is in `parts`; here is what encoders, encoder-decoders, vision and audio towers add to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from sizeup.models.anatomy.parts import Part, Tensors, linear, norm_tensors
from sizeup.models.config import Config
from sizeup.models.mixers import Attention
from sizeup.models.model import Block
from sizeup.models.tensors import Tensor

BART_NAMES = ("q_proj", "k_proj", "v_proj", "out_proj")


def two_way(heads: int, hidden: int, *, head_dim: int | None = None, window: int | None = None) -> Attention:
    """Bidirectional attention of an encoder: every token sees every token, or those of its window."""
    size = head_dim or max(1, hidden // heads)
    return Attention(heads, heads, size, size, window=window, causal=False)


def crossing(heads: int, hidden: int, *, kv_heads: int | None = None, head_dim: int | None = None) -> Attention:
    """Attention on another sequence: an encoder's output or the tokens of an image."""
    size = head_dim or max(1, hidden // heads)
    return Attention(heads, kv_heads or heads, size, size, cross=True, causal=False)


def projected_attention(
    mixer: Attention,
    hidden: int,
    *,
    name: str = "self_attn",
    names: Sequence[str] = BART_NAMES,
    biases: str = "qkvo",
    source: int | None = None,
    extra: Tensors = (),
) -> Part:
    """Attention with four projections, each with a bias if its letter is in `biases`.

    source: width of the sequence that keys and values are made of, when it isn't this one's.
    extra: further tensors of the module (relative positions, norms of queries and keys), named from the layer on.
    """
    q, k, v, o = (f"{name}.{projection}" if name else projection for projection in names)
    keys = mixer.kv_heads * mixer.head_dim
    tensors = (
        *linear(q, mixer.heads * mixer.head_dim, hidden, "attention", "q", bias="q" in biases),
        *linear(k, keys, source or hidden, "attention", "k", bias="k" in biases),
        *linear(v, mixer.kv_heads * mixer.value_dim, source or hidden, "attention", "v", bias="v" in biases),
        *linear(o, hidden, mixer.heads * mixer.value_dim, "attention", "o", bias="o" in biases),
    )
    return Part((*tensors, *extra), (mixer,))


def layer_norm(name: str, size: int) -> Part:
    """A layer norm: scale and bias."""
    return Part(norm_tensors(name, size, bias=True))


def conv(
    name: str, outputs: int, inputs: int, *kernel: int, role: str = "embedding", part: str = "conv", bias: bool = True
) -> Tensors:
    """A convolution: `name.weight` of shape (outputs, inputs, *kernel), and `name.bias`."""
    matrix = Tensor(f"{name}.weight", (outputs, inputs, *kernel), role, part)
    return (matrix, Tensor(f"{name}.bias", (outputs,), role, part)) if bias else (matrix,)


def table(name: str, rows: int, width: int, part: str = "positions", *, tied_to: str = "") -> Tensors:
    """A table that is looked up: `name.weight` of shape (rows, width)."""
    return (Tensor(f"{name}.weight", (rows, width), "embedding", part, tied_to=tied_to),)


def tower(stack: str, blocks: Iterable[Block]) -> tuple[Block, ...]:
    """The blocks as a tower: `vision`, `audio` or `projector` is the stack of all blocks and the role of all tensors.

    A tensor's part still says what it does there; buffers stay buffers.
    """
    return tuple(
        msgspec.structs.replace(
            block,
            stack=stack,
            tensors=tuple(
                tensor if tensor.role == "buffer" else msgspec.structs.replace(tensor, role=stack)
                for tensor in block.tensors
            ),
        )
        for block in blocks
    )


def bidirectional(blocks: Iterable[Block]) -> tuple[Block, ...]:
    """The blocks of a text decoder as an encoder: nothing is hidden from a token any more."""
    return tuple(
        msgspec.structs.replace(
            block,
            stack="encoder" if block.layers else block.stack,
            mixers=tuple(msgspec.structs.replace(mixer, causal=False) for mixer in block.mixers),
        )
        for block in blocks
    )


def prefixed(prefix: str, name: str) -> str:
    """`prefix.name`, or the name alone when there is no prefix."""
    return f"{prefix}.{name}" if prefix else name


def under(prefix: str, tensors: Iterable[Tensor]) -> Tensors:
    """The tensors with `prefix.` before their names."""
    return tuple(msgspec.structs.replace(tensor, name=prefixed(prefix, tensor.name)) for tensor in tensors)


def labels_of(cfg: Config, default: int = 2) -> int:
    """Labels of a classifier: those that `num_labels` or `id2label` name, else the class's default."""
    named = cfg.optional_sub("id2label")
    return cfg.int("num_labels", default=len(named.data) if named and named.data else default)


def class_of(cfg: Config, default: str) -> str:
    """The class that the configuration's `architectures` names; the default when it names none."""
    return (cfg.strs("architectures") or (default,))[0]
