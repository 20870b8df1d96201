"""The compute buffers: what llama.cpp reserves for the intermediate results of its largest graph.

What the graph of one batch depends on: the sizes of batch and cache, and which device computes each layer. The graph
itself and its memory: `reserve`.

Source: sched_reserve and graph_reserve in src/llama-context.cpp, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

import msgspec

from sizeup.engines.llamacpp.assembly import Frame, Step
from sizeup.engines.llamacpp.backends import Backend
from sizeup.engines.llamacpp.builder import CACHE_BLOCK, Sizes, Where
from sizeup.engines.llamacpp.cache import (
    CacheSizes,
    cache_sizes,
    context_tokens,
    layer_memories,
    uses_flash_attention,
)
from sizeup.engines.llamacpp.layers import trunk
from sizeup.engines.llamacpp.memo import by_model
from sizeup.engines.llamacpp.reserve import Reserve
from sizeup.engines.llamacpp.setting import CACHE_TYPES, UNQUANTIZED, LlamaSetting
from sizeup.engines.llamacpp.twists import twists_of
from sizeup.engines.llamacpp.weights import HOST, Assignment
from sizeup.formats.storage import STORAGES
from sizeup.models.model import Model

#: A batch of at least so many tokens is computed on a GPU even in layers on the host; batches in flight in a pipeline.
OFFLOAD_TOKENS = 32
COPIES = 4
#: Context that is assumed where a model names none.
DEFAULT_CONTEXT = 2048
#: Cache type → bytes of CACHE_BLOCK elements.
_BLOCK_BYTES = {
    kind: CACHE_BLOCK // STORAGES[kind.upper()].block_elements * STORAGES[kind.upper()].block_bytes
    for kind in CACHE_TYPES
}


class PlacedCompute(msgspec.Struct, frozen=True):
    """Compute buffers: one on each GPU, one on the host."""

    gpus: tuple[int, ...]
    host: int


class Placing(msgspec.Struct, frozen=True):
    """What decides where things are computed, beside where layers are.

    weights: format and importance matrix. takes_batch, takes_rows: enough tokens, and rows of logits, for a GPU to take
    over from the host.
    """

    weights: tuple[str, bool | None]
    cpu_moe_layers: int
    offload_kv: bool
    by_layer: bool
    overridden: bool
    takes_batch: bool
    takes_rows: bool


class _Facts(msgspec.Struct, frozen=True):
    """What the sizes of a model's graphs rest on besides the setting."""

    cached: bool
    one_key_head: bool
    one_value_head: bool
    value_width: int
    all_rows: bool


@by_model
def _facts(model: Model) -> _Facts:
    memories = layer_memories(model)
    return _Facts(
        cached=bool(memories),
        one_key_head=_alike({(m.window, m.key_head) for m in memories if m.keys}),
        one_value_head=_alike({(m.window, m.value_head) for m in memories if m.values}),
        value_width=max((m.values for m in memories), default=0),
        all_rows="encoder" in twists_of(trunk(model).architecture),
    )


def _alike(heads: set[tuple[int | None, int]]) -> bool:
    """Whether all heads of a cache have one size: that of windows, and the one that sees everything."""
    return bool(heads) and len({window for window, _ in heads}) == len(heads)


def batch_tokens(setting: LlamaSetting) -> int:
    """Tokens of a full ubatch, the same number for each sequence."""
    tokens = min(context_tokens(setting), setting.ubatch_tokens)
    return -(-tokens // setting.parallel) * setting.parallel


def graph_sizes(model: Model, setting: LlamaSetting) -> Sizes:
    """The sizes of the graph that is reserved at start: a full ubatch over a full cache."""
    tokens, facts = batch_tokens(setting), _facts(model)
    keys, values = setting.cache_k.lower(), setting.cache_v.lower()
    cells = cache_sizes(model, setting) if facts.cached else CacheSizes(tokens, tokens, 1, None)
    return Sizes(
        tokens=tokens,
        rows=tokens if facts.all_rows else min(tokens, setting.output_rows),
        sequences=setting.parallel,
        streams=cells.streams,
        full=cells.full,
        windowed=cells.windowed,
        fused=uses_flash_attention(setting),
        rotate_keys=facts.one_key_head and keys not in UNQUANTIZED,
        rotate_values=facts.one_value_head and values not in UNQUANTIZED,
        value_width=facts.value_width,
        key_bytes=_BLOCK_BYTES[keys],
        value_bytes=_BLOCK_BYTES[values],
        half_keys=keys == "f16",
        half_values=values == "f16",
        snapshots=setting.recurrent_snapshots,
        encoder_tokens=model.context or DEFAULT_CONTEXT,
        cached=facts.cached,
    )


def compute_buffers(
    model: Model, setting: LlamaSetting, assignment: Assignment, backends: tuple[Backend, ...]
) -> PlacedCompute:
    """The buffers on each device for this setting."""
    sizes = graph_sizes(model, setting)
    placing = Placing(
        weights=(setting.format, setting.imatrix) if backends else ("", None),
        cpu_moe_layers=setting.cpu_moe_layers,
        offload_kv=setting.offload_kv,
        by_layer=setting.split_mode == "layer",
        overridden=bool(setting.overrides),
        takes_batch=sizes.tokens >= OFFLOAD_TOKENS,
        takes_rows=setting.output_rows >= OFFLOAD_TOKENS,
    )
    peaks = _reserve(model, assignment, backends, placing).peaks(sizes)
    return PlacedCompute(tuple([peaks.get(gpu, 0) for gpu in range(len(backends))]), peaks[HOST])


@by_model
def _reserve(model: Model, assignment: Assignment, backends: tuple[Backend, ...], placing: Placing) -> Reserve:
    steps = _steps(model, placing, assignment, backends)
    output = assignment.output
    if output == HOST and placing.takes_rows:
        output = _offload_place(placing, assignment, backends)
    frame = Frame(
        output=output,
        output_weights=assignment.output,
        backends=backends,
        copies=COPIES if _is_pipeline(placing, assignment) else 1,
        norms_follow=assignment.fully_offloaded or not placing.takes_batch,
        weights=placing.weights,
    )
    return Reserve(model, steps, frame)


def _steps(model: Model, placing: Placing, assignment: Assignment, backends: tuple[Backend, ...]) -> tuple[Step, ...]:
    """The kind of each layer, and where its things are."""
    offload = _offload_place(placing, assignment, backends)
    steps: list[Step] = []
    for layer, kind in enumerate(trunk(model).order):
        place = assignment.layers[layer]
        busy = offload if place == HOST and placing.takes_batch else place
        cache = place if placing.offload_kv else HOST
        experts = HOST if layer < placing.cpu_moe_layers else place
        routed = offload if experts == HOST and placing.takes_batch else experts
        steps.append((kind, Where(busy, cache, place, experts, routed)))
    return tuple(steps)


def _offload_place(placing: Placing, assignment: Assignment, backends: tuple[Backend, ...]) -> int:
    """The GPU that computes large batches of what lies on the host: the first one in use whose backend does so."""
    if not assignment.gpus:
        return HOST
    used = range(len(backends)) if placing.by_layer else assignment.gpus
    return next((gpu for gpu in used if backends[gpu].offloads), HOST)


def _is_pipeline(placing: Placing, assignment: Assignment) -> bool:
    """Whether batches overlap: several GPUs, all layers on them, nothing overridden."""
    overridden = placing.overridden or placing.cpu_moe_layers > 0
    split = placing.by_layer and len(assignment.gpus) > 1
    return split and assignment.fully_offloaded and placing.offload_kv and not overridden
