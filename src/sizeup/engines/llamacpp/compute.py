"""The compute buffers: what llama.cpp reserves for the intermediate results of its largest graph.

The graph of one batch is rebuilt in miniature and run through llama.cpp's own allocation rules, so the figure is the
allocator's and no rule of thumb. Layers that repeat are built as often as it takes for the pattern to settle.

Source: sched_reserve and graph_reserve in src/llama-context.cpp, build_arch_graph in src/models/*.cpp,
llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

import msgspec

from sizeup.engines.llamacpp.backends import CPU, Backend
from sizeup.engines.llamacpp.builder import Builder, Sizes, Where
from sizeup.engines.llamacpp.cache import cache_sizes, context_tokens, layer_memories, uses_flash_attention
from sizeup.engines.llamacpp.graph import INT, Graph, Node, peak_bytes
from sizeup.engines.llamacpp.layers import Layer, Trunk, trunk
from sizeup.engines.llamacpp.memo import by_model
from sizeup.engines.llamacpp.recurrent import recurrent
from sizeup.engines.llamacpp.setting import UNQUANTIZED, LlamaSetting
from sizeup.engines.llamacpp.twists import twists_of
from sizeup.engines.llamacpp.weights import HOST, Assignment, typed_tensors
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
    model: Model, setting: LlamaSetting, assignment: Assignment, backends: tuple[Backend, ...], shared: tuple[bool, ...] = ()
) -> PlacedCompute:
    """The buffers on each device for this setting.

    shared: for each GPU, whether it works on the host's memory, so that it needs no copies of what is there.
    """
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
            readable=frozenset((gpu, HOST) for gpu, on_host in enumerate(shared) if on_host),
            copies=COPIES if _is_pipeline(setting, assignment) else 1,
            norms_follow=assignment.fully_offloaded or sizes.tokens < OFFLOAD_TOKENS,
            weights=(setting.format, setting.imatrix),
        ),
    )
    return PlacedCompute(tuple(peaks.get(gpu, 0) for gpu in range(len(backends))), peaks[HOST])


class Frame(msgspec.Struct, frozen=True):
    """What the buffers depend on beside sizes and layers.

    output, output_weights: places. readable: (device, memory) pairs that need no copy. copies: batches in flight.
    norms_follow: a layer's first norm is computed where the layer is, and not where the one before is.
    """

    output: int
    output_weights: int
    backends: tuple[Backend, ...]
    readable: frozenset[tuple[int, int]]
    copies: int
    norms_follow: bool
    weights: tuple[str, bool | None]


Step = tuple[int, Where]


def _steps(
    model: Model, setting: LlamaSetting, assignment: Assignment, backends: tuple[Backend, ...]
) -> tuple[Step, ...]:
    """The kind of each layer, and where its things are."""
    order = trunk(model).order
    offload = next((gpu for gpu, b in enumerate(backends) if b.offloads and assignment.gpus), HOST)
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
    if assignment.output != HOST or setting.output_rows < OFFLOAD_TOKENS or not assignment.gpus:
        return assignment.output
    return next((gpu for gpu, b in enumerate(backends) if b.offloads), HOST)


def _is_pipeline(setting: LlamaSetting, assignment: Assignment) -> bool:
    """Whether batches overlap: several GPUs, all layers on them, nothing overridden."""
    overridden = bool(setting.overrides) or setting.cpu_moe_layers > 0
    split = setting.split_mode == "layer" and len(assignment.gpus) > 1
    return split and assignment.fully_offloaded and setting.offload_kv and not overridden


@by_model
def _peaks(model: Model, sizes: Sizes, steps: tuple[Step, ...], frame: Frame) -> dict[int, int]:
    kept = settled(steps)
    graph = Graph(HOST)
    build(model, graph, sizes, kept, frame)
    _reserve_for_skipped(model, graph, sizes, steps, kept)
    alignments = {HOST: CPU.alignment, **{gpu: b.alignment for gpu, b in enumerate(frame.backends)}}
    return peak_bytes(graph, alignments, frame.readable, frame.copies)


def settled(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The layers that decide the peaks: each run of kinds seen once with its neighbours, and both ends."""
    last = len(steps) - 1
    seen: set[tuple[Step, ...]] = set()
    kept = []
    for place, step in enumerate(steps):
        around = steps[max(0, place - 2) : place + 2]
        if place < 2 or place >= last - 1 or around not in seen:
            kept.append(step)
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


@by_model
def _weight_bytes(model: Model, mix_name: str, imatrix: bool | None) -> tuple[tuple[dict[str, int], ...], dict[str, int]]:
    """Bytes of tensors by stem: the largest in each kind of layer, and those outside the layers."""
    layers = trunk(model)
    inside: tuple[dict[str, int], ...] = tuple({} for _ in layers.kinds)
    outside: dict[str, int] = {}
    for tensor in typed_tensors(model, mix_name, imatrix):
        if tensor.layer < 0:
            outside[tensor.name] = tensor.bytes
        elif tensor.layer < len(layers.order):
            stem = tensor.name.split(".", 2)[2]
            known = inside[layers.order[tensor.layer]]
            known[stem] = max(known.get(stem, 0), tensor.bytes)
    return inside, outside


def build(model: Model, graph: Graph, sizes: Sizes, steps: tuple[Step, ...], frame: Frame) -> Node:
    """The graph of one batch through those layers."""
    layers = trunk(model)
    kernels = {HOST: CPU, **dict(enumerate(frame.backends))}
    b = Builder(graph, sizes, twists_of(layers.architecture), kernels, HOST)
    inside, outside = _weight_bytes(model, *frame.weights) if frame.backends else (({},) * len(layers.kinds), {})
    cur = _embed(b, layers, model.hidden, steps[0][1].compute if steps else HOST)
    for place, (kind, where) in enumerate(steps):
        b.enter(where, inside[kind], norm_stays=not frame.norms_follow)
        cur = _layer(b, layers.kinds[kind], cur, last=place == len(steps) - 1)
    b.enter(Where(frame.output, frame.output, *[frame.output_weights] * 3), outside)
    return graph.expand(_head(b, layers, cur, model.vocabulary))


def _embed(b: Builder, layers: Trunk, hidden: int, place: int) -> Node:
    """Token embeddings, looked up on the host; what follows is on the first layer's place.

    Room for a batch of embeddings instead is reserved beside them.
    """
    g, tokens = b.graph, b.sizes.tokens
    ids = b.input("tokens", tokens, element=INT)
    embedded = g.expand(g.op((hidden, tokens), ids))
    g.expand(b.input("embeddings", hidden, tokens))
    if "position_embd.weight" in layers.outside:
        looked_up = g.op((hidden, tokens), b.positions())
        g.place = place
        embedded = g.like(embedded, looked_up)
    g.place = place
    if "token_embd_norm.weight" in layers.outside:
        embedded = b.norm(embedded)
    return embedded


def _layer(b: Builder, layer: Layer, residual: Node, *, last: bool) -> Node:
    """One layer: mixer and feed-forward, each with its norms, each added to the residual."""
    g = b.graph
    last = last and "late_rows" not in b.twists
    normed = b.first_norm(residual) if layer.has("attn_norm") or "plain_norm" in b.twists else residual
    if "norm_first" in b.twists:
        g.expand(normed)
    mixed = _mix(b, layer, normed, residual)
    if cross := layer.cross():
        residual = g.op(mixed.shape, mixed, residual, inplace=True)
        mixed = b.cross(layer, cross, b.norm(residual))
    if last:
        mixed, residual = b.take_rows(mixed), b.take_rows(residual)
    if not layer.has_mixer or not layer.has_feed_forward:
        return g.op(mixed.shape, mixed, residual, inplace=True)
    if layer.has("layer_output_norm") and layer.has("attn_output_norm"):
        return _post_norm_layer(b, layer, mixed, residual)
    before, after = _norms_of_the_second_half(b, layer)
    if not before and not after:
        return _parallel(b, layer, mixed, b.take_rows(normed) if last else normed, residual)
    if "parallel_norms" in b.twists:
        return _parallel(b, layer, mixed, b.norm(residual), residual)
    if after and layer.has("post_attention_norm"):
        mixed = b.norm(mixed)
    middle = g.op(mixed.shape, mixed, residual, inplace=True)
    forward = b.feed_forward(layer, b.norm(middle) if before else middle)
    if after:
        forward = b.norm(forward)
    return g.op(forward.shape, forward, middle, inplace=True)


def _norms_of_the_second_half(b: Builder, layer: Layer) -> tuple[bool, bool]:
    """Whether there is a norm before the feed-forward, and after it."""
    after = layer.has("post_ffw_norm")
    named_otherwise = layer.has("attn_output_norm") or (layer.has("post_attention_norm") and not after)
    return layer.has("ffn_norm") or named_otherwise or "plain_norm" in b.twists, after


def _mix(b: Builder, layer: Layer, normed: Node, residual: Node) -> Node:
    """The layer's mixer; both where there are two side by side; the feed-forward in a layer that has nothing else."""
    mixer, state = layer.attention(), layer.recurrent()
    if isinstance(mixer, LatentAttention):
        return b.latent(layer, mixer, normed)
    if mixer is None:
        return b.feed_forward(layer, normed) if state is None else recurrent(b, layer, state, normed)
    mixed = b.attention(layer, mixer, normed)
    if state is None:
        return mixed
    return b.graph.op(mixed.shape, mixed, recurrent(b, layer, state, b.norm(residual)), inplace=True)


def _parallel(b: Builder, layer: Layer, mixed: Node, normed: Node, residual: Node) -> Node:
    """Attention and feed-forward side by side on the same residual."""
    forward = b.feed_forward(layer, normed)
    pair = (mixed, forward) if "attention_first" in b.twists else (forward, mixed)
    both = b.graph.op(forward.shape, *pair, inplace=True)
    return b.graph.op(both.shape, both, residual, inplace=True)


def _post_norm_layer(b: Builder, layer: Layer, mixed: Node, residual: Node) -> Node:
    """BERT: norms after each half."""
    g = b.graph
    middle = b.norm(g.op(mixed.shape, mixed, residual, inplace=True))
    forward = b.feed_forward(layer, middle)
    return b.norm(g.op(forward.shape, forward, middle, inplace=True))


def _head(b: Builder, layers: Trunk, cur: Node, vocabulary: int) -> Node:
    """Final norm and logits; both are results, which are never freed."""
    if "output_norm.weight" in layers.outside or "plain_norm" in b.twists:
        cur = b.norm(cur)
    cur.kept = True
    if "late_rows" in b.twists:
        cur = b.take_rows(cur)
        cur.kept = True
    if "headless" in b.twists:
        return cur
    stem = "output" if "output.weight" in layers.outside else "token_embd"
    logits = b.graph.op((vocabulary, *cur.shape[1:]), *b.weight(stem), cur)
    logits.kept = True
    return logits
