"""What llama.cpp keeps between tokens: KV cache and recurrent state, to the byte, layer by layer.

Source: create_memory in src/llama-model.cpp, src/llama-kv-cache{,-iswa,-dsa,-msa,-dsv4}.cpp,
src/llama-memory-{recurrent,hybrid}.cpp, src/llama-hparams.cpp, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

import msgspec

from sizeup.engines.llamacpp.backends import CPU, Backend
from sizeup.engines.llamacpp.memo import by_model
from sizeup.engines.llamacpp.names import EXPANDED, mix_hparams
from sizeup.engines.llamacpp.setting import UNQUANTIZED, LlamaSetting
from sizeup.engines.llamacpp.weights import HOST, Assignment
from sizeup.errors import BadInput
from sizeup.estimate.cache import row_bytes, state_bytes
from sizeup.formats.storage import STORAGES, ceil_div
from sizeup.models.gguf_windows import windows
from sizeup.models.mixers import Attention, LatentAttention, LinearAttention, ShortConvolution, StateSpace
from sizeup.models.model import Block, Model

#: Cells of a cache come in multiples of this (GGML_PAD in llama_context and llama_kv_cache_iswa).
CELLS = 256
#: Architectures that run without any memory between calls.
_WITHOUT_MEMORY = frozenset({
    "bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe", "neo-bert", "eurobert", "modern-bert",
    "gemma-embedding", "dream", "llada", "llada-moe", "rnd1", "wavtokenizer-dec",
})  # fmt: skip


class LayerMemory(msgspec.Struct, frozen=True):
    """What one layer keeps: elements a token (keys, values, indexer) and elements a sequence (convolution, state).

    window: cells it needs at most beyond a batch; None means all. key_head, value_head: size of one head, which
    quantized caches must be able to hold in whole blocks. bare: no attention at all, though it holds values where
    they are all padded to the widest (without flash attention).
    """

    keys: int = 0
    values: int = 0
    window: int | None = None
    indexer_keys: int = 0
    indexer_values: int = 0
    convolution: int = 0
    state: int = 0
    key_head: int = 0
    value_head: int = 0
    latent: bool = False
    bare: bool = False
    entries: int = 0
    compress: int = 1


@by_model
def layer_memories(model: Model) -> tuple[LayerMemory, ...]:
    """What each layer of the text stack keeps, in order; empty for architectures without memory."""
    architecture = mix_hparams(model).architecture
    if architecture in _WITHOUT_MEMORY:
        return ()
    stack = stack_of_layers(model)
    numbered = {number: block for block in model.blocks if block.stack == stack for number in block.layers}
    blocks = [numbered[number] for number in sorted(numbered)]
    reaches = tuple(_reach(block) for block in blocks)
    size = next((reach for reach in reaches if reach), None)
    kept = windows(architecture, len(blocks), size, tuple(reach is not None for reach in reaches))
    expanded = architecture in EXPANDED
    layers = tuple(_memory(block, window, expanded=expanded) for block, window in zip(blocks, kept, strict=True))
    if any(layer.state or layer.convolution for layer in layers):
        return layers
    return tuple(
        msgspec.structs.replace(layer, bare=not block.mixers) for layer, block in zip(layers, blocks, strict=True)
    )


def _reach(block: Block) -> int | None:
    """How many tokens its attention looks back at; None without a limit."""
    for mixer in block.mixers:
        if isinstance(mixer, Attention):
            return mixer.reach
        if isinstance(mixer, LatentAttention):
            return mixer.window
    return None


def stack_of_layers(model: Model) -> str:
    """The stack that generates text: `text`, `decoder` of an encoder-decoder, or `encoder` alone."""
    stacks = {block.stack for block in model.blocks if block.layers}
    return "text" if "text" in stacks else "decoder" if "decoder" in stacks else "encoder"


def _memory(block: Block, window: int | None, *, expanded: bool) -> LayerMemory:
    kept = LayerMemory(window=window)
    for mixer in block.mixers:
        match mixer:
            case Attention(cross=False):
                indexer = mixer.indexer
                kept = msgspec.structs.replace(
                    kept,
                    keys=mixer.key_elements,
                    values=mixer.value_elements,
                    indexer_keys=indexer.head_dim if indexer else 0,
                    indexer_values=mixer.value_dim if indexer else 0,
                    key_head=mixer.head_dim,
                    value_head=mixer.value_dim,
                )
            case LatentAttention():
                kept = _latent_memory(kept, mixer, expanded=expanded)
            case StateSpace() | LinearAttention() | ShortConvolution():
                kept = msgspec.structs.replace(kept, convolution=mixer.conv_elements, state=mixer.state_elements)
    return kept


def _latent_memory(kept: LayerMemory, mixer: LatentAttention, *, expanded: bool) -> LayerMemory:
    """One latent key for all heads; keys and values of every head where the architecture expands them."""
    if mixer.compress > 1:
        return _compressed_memory(kept, mixer)
    if expanded:
        return msgspec.structs.replace(
            kept,
            keys=mixer.heads * mixer.head_dim,
            values=mixer.heads * mixer.value_dim,
            key_head=mixer.head_dim,
            value_head=mixer.value_dim,
        )
    indexer = mixer.indexer
    return msgspec.structs.replace(
        kept,
        keys=mixer.latent_elements,
        indexer_keys=indexer.head_dim if indexer and not indexer.shares_choice else 0,
        key_head=mixer.latent_elements,
        latent=True,
    )


def _compressed_memory(kept: LayerMemory, mixer: LatentAttention) -> LayerMemory:
    """DeepSeek-V4's entries, and the keys and scores of tokens that aren't an entry yet.

    Entries with an indexer overlap: twice the tokens, each with twice the elements.
    """
    indexed = mixer.indexer.head_dim if mixer.indexer else 0
    overlap = 2 if indexed else 1
    gathered = overlap * mixer.compress * overlap * (mixer.latent_elements + indexed)
    return msgspec.structs.replace(
        kept,
        entries=mixer.latent_elements,
        compress=mixer.compress,
        indexer_keys=indexed,
        convolution=gathered,
        state=gathered,
    )


class CacheSizes(msgspec.Struct, frozen=True):
    """Cells of the caches: of layers that see everything, of layers with a window; streams: separate caches."""

    full: int
    windowed: int
    streams: int
    window: int | None

    def cells(self, layer: LayerMemory) -> int:
        """Cells of one layer in one stream."""
        return self.windowed if layer.window is not None else self.full

    def entries(self, layer: LayerMemory) -> int:
        """Cells of its compressed entries in one stream: one for every `compress` tokens, padded to 256."""
        return _pad(ceil_div(self.full, layer.compress))


class _Traits(msgspec.Struct, frozen=True):
    """What all layers together decide: the window, the most values of a token, sizes of heads, kinds of cache."""

    window: int | None
    widest: int
    key_heads: tuple[int, ...]
    value_heads: tuple[int, ...]
    latent: bool
    compressed: bool


@by_model
def _traits(model: Model) -> _Traits:
    layers = layer_memories(model)
    return _Traits(
        window=next((m.window for m in layers if m.window is not None), None),
        widest=max((m.values for m in layers), default=0),
        key_heads=tuple(sorted({m.key_head for m in layers if m.keys})),
        value_heads=tuple(sorted({m.value_head for m in layers if m.values})),
        latent=any(m.latent for m in layers),
        compressed=any(m.entries for m in layers),
    )


def cache_sizes(model: Model, setting: LlamaSetting) -> CacheSizes:
    """Cells for each sequence or for all.

    full: context padded to 256 (divided by the sequences and padded again when they don't share a cache).
    windowed: min(full, window · sequences that share + ubatch), padded to 256; full with `--swa-full`.
    Compressed caches are never shared: with `-kvu` each sequence has one for the whole context.
    """
    context = _pad(setting.context)
    traits = _traits(model)
    full = _pad(context // (1 if setting.unified else setting.parallel))
    apart = not setting.unified or traits.compressed
    streams = setting.parallel if apart else 1
    window = traits.window
    if window is None or setting.full_swa:
        return CacheSizes(full, full, streams, window)
    shared = 1 if apart else setting.parallel
    return CacheSizes(full, _pad(min(full, window * shared + setting.ubatch_tokens)), streams, window)


def _pad(cells: int) -> int:
    return ceil_div(cells, CELLS) * CELLS


def context_tokens(setting: LlamaSetting) -> int:
    """n_ctx as llama.cpp rounds it: a multiple of 256, and of 256 for each sequence with a cache of its own."""
    if setting.unified:
        return _pad(setting.context)
    return _pad(_pad(setting.context) // setting.parallel) * setting.parallel


class PlacedCache(msgspec.Struct, frozen=True):
    """Bytes of the cache by place: each GPU's keys and values, and recurrent states; the same on the host."""

    kv: tuple[int, ...]
    state: tuple[int, ...]
    host_kv: int
    host_state: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.kv) + sum(self.state) + self.host_kv + self.host_state


def layer_bytes(
    layer: LayerMemory, sizes: CacheSizes, setting: LlamaSetting, backend: Backend = CPU, widest: int = 0
) -> tuple[int, int]:
    """(KV bytes, state bytes) of one layer in a buffer of that backend.

    KV: cells · streams · row(elements) for keys, values and indexer, each tensor padded to the backend's alignment.
    State: (convolution + state) · 4 bytes · sequences · (1 + snapshots).
    widest: the most value elements of any layer, to which all are padded without flash attention.
    Raises BadInput for a cache type whose blocks don't divide a row.
    """
    cells = sizes.cells(layer) * sizes.streams
    others = sizes.entries(layer) * sizes.streams if layer.entries else cells
    values = max(layer.values, widest) if layer.values or layer.bare else 0
    kv = (
        _tensor(layer.keys, cells, setting.cache_k, backend)
        + _tensor(values, cells, setting.cache_v, backend)
        + _tensor(layer.entries, others, setting.cache_k, backend)
        + _tensor(layer.indexer_keys, others, setting.cache_k, backend)
        + _tensor(layer.indexer_values, cells, setting.cache_v, backend)
    )
    rows = setting.parallel * (1 + setting.recurrent_snapshots)
    state = sum(
        ceil_div(state_bytes(elements, rows), backend.alignment) * backend.alignment
        for elements in (layer.convolution, layer.state)
    )
    return kv, state


def _tensor(elements: int, cells: int, dtype: str, backend: Backend) -> int:
    """Bytes of one cache tensor: rows of `elements`, the last row padded where the backend reads past its end."""
    if not elements:
        return 0
    size = cells * row_bytes(elements, dtype)
    storage = STORAGES[dtype.upper()]
    if backend.row_padding and storage.block_elements > 1 and elements % backend.row_padding:
        size += storage.row_bytes(backend.row_padding - elements % backend.row_padding)
    return ceil_div(size, backend.alignment) * backend.alignment


def check_cache_types(model: Model, setting: LlamaSetting) -> None:
    """Raises BadInput where llama.cpp refuses the cache types for this model, naming both and the way out."""
    traits = _traits(model)
    if traits.latent and setting.cache_k.lower() != setting.cache_v.lower():
        raise BadInput(
            f"latent attention keeps one cache: cache_k {setting.cache_k} and cache_v {setting.cache_v} differ",
            hint="give both the same type",
        )
    if setting.flash_attention == "off":
        return
    for option, dtype, heads in (
        ("cache_k", setting.cache_k, traits.key_heads),
        ("cache_v", setting.cache_v, traits.value_heads),
    ):
        block = STORAGES[dtype.upper()].block_elements
        wrong = next((head for head in heads if head % block), None)
        if wrong is not None:
            raise BadInput(
                f"{option} {dtype} has blocks of {block}, which don't divide a head of {wrong}",
                hint=f"set {option} to f16",
            )


def uses_flash_attention(setting: LlamaSetting) -> bool:
    """Whether attention runs fused: asked for, or left to llama.cpp, which then takes it wherever it can."""
    return setting.flash_attention != "off" or setting.cache_v.lower() not in UNQUANTIZED


def placed_cache(
    model: Model, setting: LlamaSetting, assignment: Assignment, backends: tuple[Backend, ...]
) -> PlacedCache:
    """The bytes of cache on each GPU and on the host: each layer's beside its weights, or all on the host (`-nkvo`)."""
    check_cache_types(model, setting)
    sizes = cache_sizes(model, setting)
    widest = 0 if uses_flash_attention(setting) else _traits(model).widest
    kv, state, host_kv, host_state = [0] * len(backends), [0] * len(backends), 0, 0
    for layer, place, count in _by_place(model, assignment, setting.offload_kv):
        backend = CPU if place == HOST else backends[place]
        layer_kv, layer_state = layer_bytes(layer, sizes, setting, backend, widest)
        if place == HOST:
            host_kv, host_state = host_kv + count * layer_kv, host_state + count * layer_state
        else:
            kv[place], state[place] = kv[place] + count * layer_kv, state[place] + count * layer_state
    return PlacedCache(tuple(kv), tuple(state), host_kv, host_state)


@by_model
def _by_place(model: Model, assignment: Assignment, offload_kv: bool) -> tuple[tuple[LayerMemory, int, int], ...]:
    """Each kind of layer and where its cache is, with the number of such layers."""
    places = assignment.layers if offload_kv else ()
    counts: dict[tuple[LayerMemory, int], int] = {}
    for number, layer in enumerate(layer_memories(model)):
        here = layer, places[number] if number < len(places) else HOST
        counts[here] = counts.get(here, 0) + 1
    return tuple((layer, place, count) for (layer, place), count in counts.items())
