"""The compute buffers: what llama.cpp reserves for the intermediate results of its largest graph.

The graph of one batch is rebuilt in miniature and run through llama.cpp's own allocation rules, so the figure is the
allocator's and no rule of thumb. Layers that repeat are built as often as it takes for the pattern to settle.

Source: sched_reserve and graph_reserve in src/llama-context.cpp, build_arch_graph in src/models/*.cpp,
llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

import msgspec

from sizeup.engines.llamacpp.assembly import Frame, Step, build
from sizeup.engines.llamacpp.backends import CPU, Backend
from sizeup.engines.llamacpp.builder import Sizes, Where
from sizeup.engines.llamacpp.cache import cache_sizes, context_tokens, layer_memories, uses_flash_attention
from sizeup.engines.llamacpp.compute_bound import bound
from sizeup.engines.llamacpp.graph import Graph, peak_bytes
from sizeup.engines.llamacpp.layers import trunk
from sizeup.engines.llamacpp.memo import by_model
from sizeup.engines.llamacpp.setting import UNQUANTIZED, LlamaSetting
from sizeup.engines.llamacpp.twists import twists_of
from sizeup.engines.llamacpp.weights import HOST, Assignment
from sizeup.models.mixers import LatentAttention
from sizeup.models.model import Model

#: A batch of at least so many tokens is computed on a GPU even in layers on the host; batches in flight in a pipeline.
OFFLOAD_TOKENS = 32
COPIES = 4
#: Context that is assumed where a model names none.
DEFAULT_CONTEXT = 2048


class PlacedCompute(msgspec.Struct, frozen=True):
    """Compute buffers: one on each GPU, one on the host."""

    gpus: tuple[int, ...]
    host: int


def graph_sizes(model: Model, setting: LlamaSetting) -> Sizes:
    """The sizes of the graph that is reserved at start: a full ubatch over a full cache."""
    tokens = min(context_tokens(setting), setting.ubatch_tokens)
    tokens = -(-tokens // setting.parallel) * setting.parallel
    memories = layer_memories(model)
    cells = cache_sizes(model, setting) if memories else None
    heads = {m.key_head for m in memories if m.keys}
    values = {m.value_head for m in memories if m.values}
    return Sizes(
        tokens=tokens,
        rows=tokens if "encoder" in twists_of(trunk(model).architecture) else min(tokens, setting.output_rows),
        sequences=setting.parallel,
        streams=cells.streams if cells else 1,
        full=cells.full if cells else tokens,
        windowed=cells.windowed if cells else tokens,
        fused=uses_flash_attention(setting),
        rotate_keys=setting.cache_k.lower() not in UNQUANTIZED and len(heads) == 1,
        rotate_values=setting.cache_v.lower() not in UNQUANTIZED and len(values) == 1,
        value_width=max((m.values for m in memories), default=0),
        key_type=setting.cache_k.upper(),
        value_type=setting.cache_v.upper(),
        snapshots=setting.recurrent_snapshots,
        encoder_tokens=model.context or DEFAULT_CONTEXT,
        cached=bool(memories),
    )


def compute_buffers(
    model: Model, setting: LlamaSetting, assignment: Assignment, backends: tuple[Backend, ...]
) -> PlacedCompute:
    """The buffers on each device for this setting."""
    steps = _steps(model, setting, assignment, backends)
    sizes = graph_sizes(model, setting)
    peaks = _peaks(
        model,
        sizes,
        steps,
        Frame(
            output=_output_place(setting, assignment, backends),
            output_weights=assignment.output,
            backends=backends,
            copies=COPIES if _is_pipeline(setting, assignment) else 1,
            norms_follow=assignment.fully_offloaded or sizes.tokens < OFFLOAD_TOKENS,
            weights=(setting.format, setting.imatrix),
        ),
    )
    return PlacedCompute(tuple(peaks.get(gpu, 0) for gpu in range(len(backends))), peaks[HOST])


def _steps(
    model: Model, setting: LlamaSetting, assignment: Assignment, backends: tuple[Backend, ...]
) -> tuple[Step, ...]:
    """The kind of each layer, and where its things are."""
    order = trunk(model).order
    offload = _offload_place(setting, assignment, backends)
    tokens = graph_sizes(model, setting).tokens
    steps: list[Step] = []
    for layer, kind in enumerate(order):
        place = assignment.layers[layer]
        busy = offload if place == HOST and tokens >= OFFLOAD_TOKENS else place
        cache = place if setting.offload_kv else HOST
        experts = HOST if layer < setting.cpu_moe_layers else place
        routed = offload if experts == HOST and tokens >= OFFLOAD_TOKENS else experts
        steps.append((kind, Where(busy, cache, place, experts, routed)))
    return tuple(steps)


def _output_place(setting: LlamaSetting, assignment: Assignment, backends: tuple[Backend, ...]) -> int:
    """Where logits are computed: beside their weights, or on a GPU that takes over large batches."""
    if assignment.output != HOST or setting.output_rows < OFFLOAD_TOKENS:
        return assignment.output
    return _offload_place(setting, assignment, backends)


def _offload_place(setting: LlamaSetting, assignment: Assignment, backends: tuple[Backend, ...]) -> int:
    """The GPU that computes large batches of what lies on the host: the first one in use whose backend does so."""
    if not assignment.gpus:
        return HOST
    used = range(len(backends)) if setting.split_mode == "layer" else assignment.gpus
    return next((gpu for gpu in used if backends[gpu].offloads), HOST)


def _is_pipeline(setting: LlamaSetting, assignment: Assignment) -> bool:
    """Whether batches overlap: several GPUs, all layers on them, nothing overridden."""
    overridden = bool(setting.overrides) or setting.cpu_moe_layers > 0
    split = setting.split_mode == "layer" and len(assignment.gpus) > 1
    return split and assignment.fully_offloaded and setting.offload_kv and not overridden


@by_model
def _peaks(model: Model, sizes: Sizes, steps: tuple[Step, ...], frame: Frame) -> dict[int, int]:
    kept = settled(steps)
    graph = Graph(HOST)
    try:
        build(model, graph, sizes, kept, frame)
        _reserve_for_skipped(model, graph, sizes, steps, kept)
    except (KeyError, AssertionError):  # a layer that has not the tensors the graph is built of
        return bound(model, sizes, steps, frame)
    alignments = {HOST: CPU.alignment, **{gpu: b.alignment for gpu, b in enumerate(frame.backends)}}
    return peak_bytes(graph, alignments, frame.copies)


def settled(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The layers that decide the peaks: each run of kinds seen once with its neighbours, and both ends.

    Layers are left out in pairs, for results alternate between two addresses.
    """
    last = len(steps) - 1
    seen: set[tuple[Step, ...]] = set()
    kept: list[Step] = []
    skipped: list[Step] = []
    for place, step in enumerate(steps):
        around = steps[max(0, place - 2) : place + 2]
        if place < 2 or place >= last - 1 or around not in seen:
            kept += skipped[: len(skipped) % 2]
            skipped = []
            kept.append(step)
        else:
            skipped.append(step)
        seen.add(around)
    return tuple(kept)


def _reserve_for_skipped(
    model: Model, graph: Graph, sizes: Sizes, steps: tuple[Step, ...], kept: tuple[Step, ...]
) -> None:
    """Sparse attention holds a zeroed tensor for every layer from the start, also for the layers left out here."""
    kinds = trunk(model).kinds
    for step in dict.fromkeys(steps):
        mixer = kinds[step[0]].attention()
        if isinstance(mixer, LatentAttention) and mixer.indexer:
            skipped = steps.count(step) - kept.count(step)
            zeros = min(mixer.indexer.top_k, sizes.full) * sizes.tokens
            graph.leaves[:0] = [graph.input(zeros, place=step[1].compute) for _ in range(skipped)]
