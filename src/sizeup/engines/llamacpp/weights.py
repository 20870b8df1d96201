"""Weights by device and buffer: which tensor llama.cpp puts where, and what that takes there, to the byte.

Layers: with `-ngl N` the last N of layers + 1 are on the GPUs, the output layer being the last; the embedding stays on
the host; a head tied to the embedding is a second copy wherever the output layer isn't the embedding's buffer.
Source: load_tensors in src/llama-model.cpp, create_tensor in src/llama-model-loader.cpp,
ggml_backend_alloc_ctx_tensors_from_buft in ggml/src/ggml-alloc.c, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from sizeup.engines.llamacpp.backends import NO_REPACK, Backend, RepackRule
from sizeup.engines.llamacpp.memo import by_model
from sizeup.engines.llamacpp.names import HEADLESS, Written, gguf_tensors, layer_count, mix_hparams
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.spelled import LOADED_ANYWAY
from sizeup.formats.mixes import mix_types
from sizeup.formats.storage import STORAGES, ceil_div
from sizeup.models.model import Model

HOST = -1
#: More layers than there are: a header's numbers say nothing about which predict tokens.
EVERY_LAYER = 1 << 30
#: Tensors of the input layer: always on the host.
_INPUT = ("token_embd.", "position_embd.", "token_types.", "per_layer_token_embd.")
#: Architectures that look for a tied head before the embedding is there: what isn't mapped holds the table twice.
_HEAD_FIRST = frozenset({"gemma3n", "gemma4"})
_EXPERTS = re.compile(r"\.ffn_(up|down|gate|gate_up)_(ch|)exps")


class Typed(msgspec.Struct, frozen=True):
    """A tensor of the file with its type and its bytes, before any padding.

    zone: `input`, `output` or `layer`. expert: of routed experts. matrix: multiplied, hence may be repacked.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    layer: int
    zone: str
    expert: bool
    bytes: int

    @property
    def row(self) -> int:
        """Values in a row."""
        return self.shape[-1] if self.shape else 1

    @property
    def rows(self) -> int:
        """ne[1]: rows of a matrix."""
        return self.shape[-2] if len(self.shape) > 1 else 1


@by_model
def typed_tensors(
    model: Model, mix_name: str = "", imatrix: bool | None = None, mtp: bool = False
) -> tuple[Typed, ...]:
    """The tensors that llama.cpp loads, each with its type in that mix; an empty mix takes the header's types.

    mtp: whether multi-token prediction layers are loaded (only speculation with them does).
    """
    anyway = LOADED_ANYWAY.get(mix_hparams(model).architecture, frozenset())
    trunk = EVERY_LAYER if model.road == "gguf header" else model.layers
    written = [
        tensor for tensor in gguf_tensors(model) if mtp or not _predicts(tensor, trunk) or _stem(tensor) in anyway
    ]
    if mix_name:
        kinds = mix_types(mix_name, [t.gguf for t in written], hparams=mix_hparams(model), imatrix=imatrix)
    else:
        kinds = [tensor.stored or model.dtype.upper() for tensor in written]
    return tuple([_typed(tensor, kind) for tensor, kind in zip(written, kinds, strict=True)])


def _predicts(tensor: Written, trunk: int) -> bool:
    """Whether a tensor belongs to a layer of multi-token prediction: one beyond the trunk's layers."""
    return tensor.role == "mtp" or tensor.layer >= trunk


def _stem(tensor: Written) -> str:
    """`nextn.eh_proj` of `blk.61.nextn.eh_proj.weight`."""
    return tensor.name.partition(".")[2].partition(".")[2].removesuffix(".weight").removesuffix(".bias")


def _typed(tensor: Written, kind: str) -> Typed:
    zone = "layer" if tensor.layer >= 0 else "input" if tensor.name.startswith(_INPUT) else "output"
    expert = _EXPERTS.search(tensor.name) is not None
    size = _bytes_of(kind, tensor.shape)
    return Typed(tensor.name, kind, tensor.shape, tensor.layer, zone, expert, size)


@lru_cache(1024)
def _bytes_of(kind: str, shape: tuple[int, ...]) -> int:
    return STORAGES[kind].bytes_of(shape)


def file_bytes(model: Model, mix_name: str = "", imatrix: bool | None = None) -> int:
    """Bytes of all tensors in the file, without header and padding."""
    return sum(tensor.bytes for tensor in typed_tensors(model, mix_name, imatrix, True))


def tied_head(model: Model, mix_name: str = "", imatrix: bool | None = None) -> Typed | None:
    """The embedding as the output head, when the file has no head of its own; None otherwise."""
    tensors = typed_tensors(model, mix_name, imatrix, False)
    if any(t.name == "output.weight" for t in tensors) or mix_hparams(model).architecture in HEADLESS:
        return None
    table = next((t for t in tensors if t.name == "token_embd.weight"), None)
    return msgspec.structs.replace(table, zone="output") if table else None


def doubled_head(model: Model, setting: LlamaSetting) -> int:
    """Bytes of the copy of a tied head beside its embedding on the host, where llama.cpp makes one; else 0."""
    if mix_hparams(model).architecture not in _HEAD_FIRST:
        return 0
    tied = tied_head(model, setting.format, setting.imatrix)
    return ceil_div(tied.bytes, 32) * 32 if tied else 0


def gpu_bytes(tensor: Typed, backend: Backend) -> int:
    """Bytes of a tensor in a GPU's buffer: padded to the alignment, quantized rows to the backend's row padding."""
    size = tensor.bytes
    storage = STORAGES[tensor.kind]
    if backend.row_padding and storage.block_elements > 1 and tensor.row % backend.row_padding:
        size += storage.row_bytes(backend.row_padding - tensor.row % backend.row_padding)
    return ceil_div(size, backend.alignment) * backend.alignment


def is_repacked(tensor: Typed, rule: RepackRule) -> bool:
    """Whether the host keeps a tensor rearranged: a matrix or merged experts of a type that the processor likes."""
    if tensor.zone == "input" or not rule.covers(tensor.kind, tensor.rows):
        return False
    return len(tensor.shape) == 3 if tensor.expert else len([e for e in tensor.shape if e > 1]) == 2


class Amount(msgspec.Struct, frozen=True):
    """Bytes of a group of tensors: in a GPU's buffer, and on the host as they are and repacked."""

    gpu: int = 0
    plain: int = 0
    repacked: int = 0

    def plus(self, tensor: Typed, backend: Backend, rule: RepackRule) -> Amount:
        """The amount with one tensor more."""
        padded = ceil_div(tensor.bytes, 32) * 32
        moved = is_repacked(tensor, rule)
        return Amount(
            self.gpu + gpu_bytes(tensor, backend),
            self.plain + (0 if moved else padded),
            self.repacked + (padded if moved else 0),
        )

    def with_(self, other: Amount) -> Amount:
        """Both together."""
        return Amount(self.gpu + other.gpu, self.plain + other.plain, self.repacked + other.repacked)


class LayerTable(msgspec.Struct, frozen=True):
    """Bytes by zone. dense, experts: one amount a layer. tied: the second copy of a tied head; None without one.

    tied_shared: on the host the tied head is the embedding itself, no second copy.
    """

    input: Amount
    output: Amount
    dense: tuple[Amount, ...]
    experts: tuple[Amount, ...]
    tied: Amount | None
    tied_shared: bool


@by_model
def layer_table(
    model: Model,
    mix_name: str,
    imatrix: bool | None,
    mtp: bool,
    backend: Backend,
    rule_key: tuple[tuple[str, int], ...],
) -> LayerTable:
    """The weights of a model in that mix, by zone and layer, for one kind of GPU and one host processor."""
    rule = RepackRule(dict(rule_key))
    count = layer_count(model)
    empty = Amount()
    zones = {"input": empty, "output": empty}
    dense, experts = [empty] * count, [empty] * count
    known: dict[tuple[str, tuple[int, ...], bool], Amount] = {}
    for tensor in typed_tensors(model, mix_name, imatrix, mtp):
        if tensor.zone != "layer":
            zones[tensor.zone] = zones[tensor.zone].plus(tensor, backend, rule)
            continue
        alike = tensor.kind, tensor.shape, tensor.expert
        if alike not in known:
            known[alike] = empty.plus(tensor, backend, rule)
        group = experts if tensor.expert else dense
        group[tensor.layer] = group[tensor.layer].with_(known[alike])
    tied = tied_head(model, mix_name, imatrix)
    return LayerTable(
        zones["input"],
        zones["output"],
        tuple(dense),
        tuple(experts),
        empty.plus(tied, backend, rule) if tied else None,
        tied_shared=tied is not None and not is_repacked(tied, rule),
    )


# ── where layers go ───────────────────────────────────────────────────────────────────────────────────────────


class Assignment(msgspec.Struct, frozen=True):
    """The device of each layer and of the output layer: a GPU's number, or HOST. The input layer is on the host."""

    layers: tuple[int, ...]
    output: int

    @property
    def gpus(self) -> tuple[int, ...]:
        """The GPUs that hold at least one layer, in order."""
        return tuple(sorted({place for place in (*self.layers, self.output) if place != HOST}))

    @property
    def fully_offloaded(self) -> bool:
        """Whether no layer is on the host."""
        return HOST not in self.layers and self.output != HOST


def assign(layers: int, gpu_layers: int, shares: tuple[float, ...]) -> Assignment:
    """Where each layer goes: the last `gpu_layers` of layers + 1, spread over the GPUs by their shares.

    shares: `--tensor-split`, or each GPU's free memory. Layer i of n offloaded goes to the first GPU whose cumulated
    share exceeds i / n. Source: get_layer_buft_list in src/llama-model.cpp.
    """
    if not shares or gpu_layers == 0:
        return Assignment((HOST,) * layers, HOST)
    offloaded = min(layers + 1, gpu_layers) if gpu_layers >= 0 else layers + 1
    first = layers + 1 - offloaded
    whole = sum(shares)
    cumulated = [sum(shares[: i + 1]) / whole for i in range(len(shares))]
    places = tuple(
        HOST if layer < first else _upper_bound(cumulated, (layer - first) / offloaded) for layer in range(layers + 1)
    )
    return Assignment(places[:-1], places[-1])


def _upper_bound(cumulated: list[float], point: float) -> int:
    return next((gpu for gpu, end in enumerate(cumulated) if end > point), len(cumulated) - 1)


# ── totals ────────────────────────────────────────────────────────────────────────────────────────────────────


class PlacedWeights(msgspec.Struct, frozen=True):
    """Weights by place. gpus: bytes on each GPU; dense, experts: the parts of it. plain, repacked: on the host."""

    gpus: tuple[int, ...]
    gpu_experts: tuple[int, ...]
    plain: int
    repacked: int
    host_experts: int


def placed_weights(
    model: Model,
    setting: LlamaSetting,
    assignment: Assignment,
    backends: tuple[Backend, ...],
    rule: RepackRule = NO_REPACK,
) -> PlacedWeights:
    """The bytes of weights on each GPU and on the host.

    backends: of each GPU. rule: what the host repacks; nothing when a GPU's backend offers pinned memory, because
    llama.cpp then prefers that for layers on the host.
    """
    kept = NO_REPACK if not setting.repack or any(b.pinned for b in backends) else rule
    if setting.overrides:
        return _by_tensor(model, setting, assignment, backends, kept)
    key = (setting.format, setting.imatrix, setting.mtp)
    rule_key = tuple(sorted(kept.multiples.items()))
    first = backends[0] if backends else Backend("cpu", 32, 0, "")
    tables = {b: layer_table(model, *key, b, rule_key) for b in dict.fromkeys((*backends, first))}
    gpus, moved = [0] * len(backends), [0] * len(backends)
    host = tables[first]
    plain, repacked, host_experts = host.input.plain, host.input.repacked, 0
    for layer, place in enumerate(assignment.layers):
        at_host = layer < setting.cpu_moe_layers
        if place == HOST:
            dense = host.dense[layer]
            plain, repacked = plain + dense.plain, repacked + dense.repacked
        else:
            gpus[place] += tables[backends[place]].dense[layer].gpu
        if place == HOST or at_host:
            experts = host.experts[layer]
            plain, repacked = plain + experts.plain, repacked + experts.repacked
            host_experts += experts.plain + experts.repacked
        else:
            experts = tables[backends[place]].experts[layer]
            gpus[place], moved[place] = gpus[place] + experts.gpu, moved[place] + experts.gpu
    if assignment.output == HOST:
        plain, repacked = plain + host.output.plain, repacked + host.output.repacked
        if host.tied_shared and not setting.mmap:
            plain += doubled_head(model, setting)
        if host.tied and not host.tied_shared:
            repacked += host.tied.repacked
    else:
        table = tables[backends[assignment.output]]
        gpus[assignment.output] += table.output.gpu + (table.tied.gpu if table.tied else 0)
    return PlacedWeights(tuple(gpus), tuple(moved), plain, repacked, host_experts)


def _by_tensor(
    model: Model, setting: LlamaSetting, assignment: Assignment, backends: tuple[Backend, ...], rule: RepackRule
) -> PlacedWeights:
    """The same, tensor by tensor: `-ot` patterns come first, then `--n-cpu-moe`, then the layer's place."""
    patterns = [
        (re.compile(o.pattern), HOST if o.buffer.upper() == "CPU" else int(o.buffer)) for o in setting.overrides
    ]
    gpus, moved, host, host_experts = [0] * len(backends), [0] * len(backends), Amount(), 0
    tied = tied_head(model, setting.format, setting.imatrix)
    tensors = typed_tensors(model, setting.format, setting.imatrix, setting.mtp)
    fallback = backends[0] if backends else Backend("cpu", 32, 0, "")
    twice = not setting.mmap and doubled_head(model, setting) > 0
    for tensor in (*tensors, *((tied,) if tied else ())):
        place = next(
            (to for pattern, to in patterns if pattern.search(tensor.name)), _place(tensor, setting, assignment)
        )
        if place != HOST:
            gpus[place] += gpu_bytes(tensor, backends[place])
            moved[place] += gpu_bytes(tensor, backends[place]) if tensor.expert else 0
        elif tensor != tied or is_repacked(tensor, rule) or twice:
            host = host.plus(tensor, fallback, rule)
            host_experts += tensor.bytes if tensor.expert else 0
    return PlacedWeights(tuple(gpus), tuple(moved), host.plain, host.repacked, host_experts)


def _place(tensor: Typed, setting: LlamaSetting, assignment: Assignment) -> int:
    if tensor.zone == "input" or (tensor.expert and tensor.layer < setting.cpu_moe_layers):
        return HOST
    return assignment.output if tensor.zone == "output" else assignment.layers[tensor.layer]
