"""The layers of a model as llama.cpp's graph sees them: tensors by their GGUF stem, mixers, feed-forward."""

from __future__ import annotations

from sizeup.engines.llamacpp.cache import layer_memories, stack_of_layers
from sizeup.engines.llamacpp.memo import by_model
from sizeup.engines.llamacpp.names import gguf_tensors, mix_hparams
from sizeup.models.mixers import Attention, LatentAttention, LinearAttention, Mixer, ShortConvolution, StateSpace
from sizeup.models.model import FeedForward, Model

Shape = tuple[int, ...]


class Layer:
    """One kind of layer.

    tensors: stem with suffix (`attn_q.weight`) → shape, row-major. windowed: whether its cache is that of windows.
    """

    def __init__(
        self, tensors: dict[str, Shape], mixers: tuple[Mixer, ...], feed_forward: FeedForward | None, *, windowed: bool
    ) -> None:
        self.tensors, self.mixers, self.windowed = tensors, mixers, windowed
        self.feed_forward = feed_forward or FeedForward()

    def has(self, stem: str, suffix: str = "weight") -> bool:
        """Whether it has that tensor."""
        return f"{stem}.{suffix}" in self.tensors or (suffix == "weight" and stem in self.tensors)

    def width(self, stem: str) -> int:
        """Rows of a matrix: values it gives for each token."""
        return self.tensors[f"{stem}.weight"][-2]

    @property
    def has_mixer(self) -> bool:
        """Whether it mixes tokens at all."""
        return bool(self.mixers)

    @property
    def has_feed_forward(self) -> bool:
        """Whether it has a feed-forward, dense or routed."""
        return self.has("ffn_down") or self.has("ffn_down_exps")

    def attention(self) -> Attention | LatentAttention | None:
        """Its softmax attention over a cache."""
        return next((m for m in self.mixers if isinstance(m, LatentAttention) or _cached(m)), None)  # type: ignore[return-value]

    def cross(self) -> Attention | None:
        """Its attention over an encoder's output."""
        return next((m for m in self.mixers if isinstance(m, Attention) and m.cross), None)

    def recurrent(self) -> StateSpace | LinearAttention | ShortConvolution | None:
        """Its mixer with a state instead of a cache."""
        return next((m for m in self.mixers if isinstance(m, StateSpace | LinearAttention | ShortConvolution)), None)


def _cached(mixer: Mixer) -> bool:
    return isinstance(mixer, Attention) and not mixer.cross


def _reaches(mixers: tuple[Mixer, ...]) -> bool:
    """Whether an encoder's layer sees only so far."""
    return any(isinstance(m, Attention) and m.reach is not None for m in mixers)


class Trunk:
    """The layers in order, each by the number of its kind, and what stands outside the layers."""

    def __init__(
        self, architecture: str, kinds: list[Layer], order: tuple[int, ...], outside: dict[str, Shape]
    ) -> None:
        self.architecture, self.kinds, self.order, self.outside = architecture, kinds, order, outside


@by_model
def trunk(model: Model) -> Trunk:
    """The layers that llama.cpp computes for text: decoders, or the encoder of a model without decoder."""
    stack = stack_of_layers(model)
    architecture = mix_hparams(model).architecture
    by_layer: dict[int, dict[str, Shape]] = {}
    outside: dict[str, Shape] = {}
    prefix = {"encoder": "enc.", "decoder": "dec."}.get(stack, "") if architecture.startswith("t5") else ""
    for tensor in gguf_tensors(model):
        name = tensor.name.removeprefix(prefix)
        if tensor.layer < 0:
            outside[name] = tensor.shape
        elif name.startswith("blk."):
            by_layer.setdefault(tensor.layer, {})[name.split(".", 2)[2]] = tensor.shape
    blocks = {number: block for block in model.blocks if block.stack == stack for number in block.layers}
    kinds: list[Layer] = []
    known: dict[tuple[object, ...], int] = {}
    order: list[int] = []
    memories = layer_memories(model)
    for number in sorted(blocks):
        block, tensors = blocks[number], by_layer.get(number, {})
        windowed = memories[len(order)].window is not None if memories else _reaches(block.mixers)
        key = (frozenset(tensors.items()), block.mixers, block.feed_forward, windowed)
        if key not in known:
            known[key] = len(kinds)
            kinds.append(Layer(tensors, block.mixers, block.feed_forward, windowed=windowed))
        order.append(known[key])
    return Trunk(architecture, kinds, tuple(order), outside)
