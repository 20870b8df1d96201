"""A model is a list of tensors: a few kinds of layer, each named once with the layer numbers it stands for."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sizeup.models.mixers import Mixer
from sizeup.models.tensors import Tensor


class FeedForward(msgspec.Struct, frozen=True):
    """The feed-forward half of a layer: dense, or a mixture of experts, or both side by side.

    width: inner size of the dense one (0: none). gated: two input projections instead of one.
    experts, experts_per_token, expert_width: routed experts (0: none).
    shared_width: inner size of all shared experts together (0: none).
    """

    activation: str = "silu"
    gated: bool = True
    width: int = 0
    experts: int = 0
    experts_per_token: int = 0
    expert_width: int = 0
    shared_width: int = 0


class Block(msgspec.Struct, frozen=True):
    """The tensors of one kind of layer, and the numbers of the layers that are of this kind.

    name: for people: `mixture layer`, `embedding`. layers: empty for what stands outside the layers.
    stack: which tower it belongs to: `text`, `encoder`, `decoder`, `vision`, `audio`, `projector`, `mtp`.
    """

    name: str
    tensors: tuple[Tensor, ...]
    layers: tuple[int, ...] = ()
    stack: str = "text"
    mixers: tuple[Mixer, ...] = ()
    feed_forward: FeedForward | None = None

    @property
    def count(self) -> int:
        """How many layers are of this kind; 1 for what stands outside the layers."""
        return len(self.layers) or 1

    @property
    def parameters(self) -> int:
        """Parameters of all its layers."""
        return self.count * sum(tensor.parameters for tensor in self.tensors)

    @property
    def active_parameters(self) -> int:
        """Parameters of all its layers that one token passes through."""
        return self.count * sum(tensor.active_parameters for tensor in self.tensors)

    def expand(self) -> Iterator[tuple[str, Tensor]]:
        """Every checkpoint name it stands for, with its tensor."""
        for layer in self.layers or (None,):
            for tensor in self.tensors:
                for name in tensor.names(layer):
                    yield name, tensor


class Score(msgspec.Struct, frozen=True):
    """One published benchmark result. Scores of different sources are never compared with each other."""

    benchmark: str
    value: float
    source: str


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known about a model beside its tensors. None or empty means unknown."""

    licence: str | None = None
    base_model: str | None = None
    prompt_template: str | None = None
    released: str | None = None
    languages: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ("text",)
    capabilities: tuple[str, ...] = ()
    ollama_tag: str | None = None
    scores: tuple[Score, ...] = ()
    source: str | None = None


class Model(msgspec.Struct, frozen=True):
    """One description from which every number is computed.

    family: the configuration's `model_type` (or llama.cpp's `general.architecture`).
    road: how it was read: `safetensors header`, `gguf header`, `anatomy`, `transformers`, `shape`, `generic`.
    dtype: the storage format of tensors that don't name their own.
    scheme: the checkpoint's quantization (`fp8-block128`, `Q4_K_M`); None when it isn't quantized.
    context: the longest sequence it was made for; None when its configuration doesn't say.
    uncertainty: relative error that its counts may have: 0 on every exact road.
    """

    name: str
    family: str
    blocks: tuple[Block, ...]
    hidden: int
    vocabulary: int
    context: int | None
    road: str
    dtype: str = "bf16"
    scheme: str | None = None
    architecture: str = ""
    origin: str = ""
    uncertainty: float = 0.0
    notes: tuple[str, ...] = ()
    facts: Facts = Facts()

    @property
    def layers(self) -> int:
        """Layers of the text stack (the decoder's in an encoder-decoder)."""
        stacks = (
            {"text", "decoder"}
            if any(b.stack in {"text", "decoder"} and b.layers for b in self.blocks)
            else {"encoder"}
        )
        return sum(len(block.layers) for block in self.blocks if block.stack in stacks)

    @property
    def parameters(self) -> int:
        """Parameters of the model as its class builds it: ties once, without buffers, scales and MTP layers."""
        return sum(block.parameters for block in self.blocks if block.stack != "mtp")

    @property
    def active_parameters(self) -> int:
        """Parameters that one token passes through, embeddings included, MTP layers not."""
        return sum(block.active_parameters for block in self.blocks if block.stack != "mtp")

    def expand(self) -> Iterator[tuple[str, Tensor]]:
        """Every checkpoint name with its tensor; tied names come too."""
        for block in self.blocks:
            yield from block.expand()
