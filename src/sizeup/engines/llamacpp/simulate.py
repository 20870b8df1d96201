"""Simulate: what llama.cpp's own allocator takes for a model and a list of settings, without its weights.

This module prepares the job and reads the answers; the process in between is started by `sizeup.measure.simulation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from sizeup.engines.llamacpp.metadata import metadata
from sizeup.engines.llamacpp.names import gguf_tensors, mix_hparams
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.weightless import Value
from sizeup.engines.llamacpp.weights import doubled_head
from sizeup.formats.gguf_tensors import GgufTensor
from sizeup.formats.mixes import mix_types
from sizeup.models.model import Model

#: How a row of the ledger names what this module does; raised when a change alters its numbers.
METHOD = "llama.cpp no_alloc/1"


class Buffer(msgspec.Struct, frozen=True):
    """One buffer type of one device and what llama.cpp would put there, in bytes.

    name: llama.cpp's (`CPU`, `CPU_REPACK`, `CUDA0`, `CUDA_Host`). host: whether it is the computer's own memory.
    model: weights. context: KV cache and recurrent state. compute: the graph's intermediate results.
    """

    name: str
    device: str
    host: bool
    model: int
    context: int
    compute: int

    @property
    def total(self) -> int:
        """All that this buffer type holds."""
        return self.model + self.context + self.compute


class Graph(msgspec.Struct, frozen=True):
    """What llama.cpp says of its compute graph; None when it said nothing."""

    nodes: int | None = None
    splits: int | None = None


class SimulatedFootprint(msgspec.Struct, frozen=True):
    """What one setting takes, by llama.cpp's own reckoning.

    output: the buffer of logits and embeddings, outside the breakdown (to 0.01 MiB); None when the log had none.
    work: the CPU's work buffer while it computes; None when it wasn't asked for.
    metadata: vocabulary, tensor descriptions and graph, as the dry run's own process grew; None where unknown.
    system: what llama.cpp says of the machine (instruction sets).
    refused: why llama.cpp doesn't accept the setting; then there are no buffers.
    """

    setting: LlamaSetting
    engine: str = "llama.cpp"
    version: str = ""
    buffers: tuple[Buffer, ...] = ()
    output: int | None = None
    work: int | None = None
    metadata: int | None = None
    graph: Graph = Graph()
    seconds: float = 0.0
    system: str = ""
    refused: str = ""

    @property
    def weights(self) -> int:
        """Bytes of weights on all devices."""
        return sum(buffer.model for buffer in self.buffers)

    @property
    def cache(self) -> int:
        """Bytes of KV cache and recurrent state on all devices."""
        return sum(buffer.context for buffer in self.buffers)

    @property
    def compute(self) -> int:
        """Bytes of compute buffers on all devices, the output buffer apart."""
        return sum(buffer.compute for buffer in self.buffers)

    @property
    def total(self) -> int:
        """All buffers, the output buffer included."""
        return self.weights + self.cache + self.compute + (self.output or 0)

    @property
    def plain_weights(self) -> int:
        """Bytes of weights that the host keeps as the file has them: mapped from it, or read."""
        return sum(buffer.model for buffer in self.buffers if buffer.host)

    @property
    def repacked(self) -> int:
        """Bytes of weights that the CPU keeps in another order than the file's, always in memory of their own."""
        return sum(buffer.model for buffer in self.buffers if buffer.device == "CPU" and not buffer.host)


class Resident(msgspec.Struct, frozen=True):
    """What the process should hold on the host once it has computed, by kind, in bytes.

    mapped: pages of the file; the system may take them back. The others are memory of the process's own.
    """

    mapped: int
    weights: int
    repacked: int
    cache: int
    compute: int
    output: int
    work: int
    metadata: int

    @property
    def anonymous(self) -> int:
        """All but the mapped pages."""
        return self.total - self.mapped

    @property
    def total(self) -> int:
        """All of it."""
        return sum(msgspec.structs.astuple(self))


def resident(simulated: SimulatedFootprint, file_bytes: int) -> Resident:
    """The host's memory that a simulation amounts to, for a file of `file_bytes`.

    With mmap llama.cpp maps the whole file and faults all of it in (MAP_POPULATE, src/llama-mmap.cpp); the weights
    it repacks stay mapped beside their copy. Without it nothing is mapped.
    """
    mapped = simulated.setting.mmap and simulated.plain_weights > 0
    host = [buffer for buffer in simulated.buffers if buffer.host]
    return Resident(
        mapped=file_bytes if mapped else 0,
        weights=0 if mapped else simulated.plain_weights,
        repacked=simulated.repacked,
        cache=sum(buffer.context for buffer in host),
        compute=sum(buffer.compute for buffer in host),
        output=simulated.output or 0,
        work=simulated.work or 0,
        metadata=simulated.metadata or 0,
    )


def file_content(model: Model, setting: LlamaSetting) -> tuple[dict[str, Value], list[GgufTensor]]:
    """The metadata and the tensors, with their types, of the GGUF file of this model in the setting's format."""
    written = gguf_tensors(model)
    plain = [tensor.gguf for tensor in written]
    hparams = mix_hparams(model)
    if setting.format:
        types = mix_types(setting.format, plain, hparams=hparams, imatrix=setting.imatrix)
        plain = [msgspec.structs.replace(tensor, stored=kind) for tensor, kind in zip(plain, types, strict=True)]
    return metadata(hparams.architecture, model, plain), plain


def load_parameters(setting: LlamaSetting) -> dict[str, Any]:
    """The fields of llama_model_params that decide where weights go."""
    return {
        "n_gpu_layers": -1 if setting.gpu_layers is None else setting.gpu_layers,
        "use_extra_bufts": setting.repack,
        "load_mtp": setting.mtp,
        "main_gpu": setting.main_gpu,
    }


def context_parameters(setting: LlamaSetting) -> dict[str, Any]:
    """The fields of llama_context_params that decide sizes."""
    outputs = setting.parallel if setting.outputs is None else setting.outputs
    return {
        "n_ctx": setting.context,
        "n_batch": setting.batch,
        "n_ubatch": setting.ubatch or setting.batch,
        "n_seq_max": setting.parallel,
        "n_rs_seq": setting.recurrent_snapshots,
        "n_outputs_max": outputs,
        "type_k": setting.cache_k.lower(),
        "type_v": setting.cache_v.lower(),
        "flash_attn_type": setting.flash_attention,
        "kv_unified": setting.unified,
        "swa_full": setting.full_swa,
        "offload_kqv": setting.offload_kv,
        "embeddings": setting.embeddings,
    }


def job(path: str, settings: Sequence[LlamaSetting], threads: int | None = None) -> dict[str, Any]:
    """The worker's job: settings that load alike, for the GGUF file at `path`.

    threads: also plan the CPU's work buffer, for so many threads.
    """
    extra = {} if threads is None else {"n_threads": threads, "n_threads_batch": threads}
    return {
        "gguf": path,
        "model": load_parameters(settings[0]),
        "contexts": [context_parameters(setting) | extra for setting in settings],
        "work": threads is not None,
    }


def batches(settings: Sequence[LlamaSetting]) -> list[tuple[int, ...]]:
    """Which settings share a file and a load: their places in the list, grouped."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, setting in enumerate(settings):
        key = (setting.format, setting.imatrix, *load_parameters(setting).values())
        groups.setdefault(key, []).append(place)
    return [tuple(places) for places in groups.values()]


def read_answers(answers: Iterable[dict[str, Any]], settings: Sequence[LlamaSetting]) -> list[SimulatedFootprint]:
    """The worker's results as footprints, in the order of `settings`; those left unanswered are missing at the end."""
    engine: dict[str, Any] = {}
    found: dict[int, SimulatedFootprint] = {}
    for answer in answers:
        match answer["part"]:
            case "engine":
                engine = {name: answer[name] for name in ("engine", "version", "system")}
            case "context":
                place = answer["index"]
                found[place] = _footprint(answer, settings[place], engine)
            case "refused":
                place = answer["index"]
                found[place] = SimulatedFootprint(settings[place], **engine, refused=answer["message"])
    return [found[place] for place in sorted(found)]


def as_mapped(model: Model, cell: SimulatedFootprint) -> SimulatedFootprint:
    """The same, with mmap: a table that llama.cpp lists twice is one range of the mapped file."""
    extra = doubled_head(model, cell.setting) if cell.setting.mmap else 0
    if not extra:
        return cell
    buffers = tuple(
        msgspec.structs.replace(b, model=b.model - extra) if b.host and b.model > extra else b for b in cell.buffers
    )
    return msgspec.structs.replace(cell, buffers=buffers)


def _footprint(answer: dict[str, Any], setting: LlamaSetting, engine: dict[str, Any]) -> SimulatedFootprint:
    return SimulatedFootprint(
        setting=setting,
        **engine,
        buffers=msgspec.convert(answer["buffers"], tuple[Buffer, ...]),
        output=answer.get("output"),
        work=answer.get("work"),
        metadata=answer.get("metadata"),
        graph=msgspec.convert(answer.get("graph", {}), Graph),
        seconds=answer["seconds"],
    )
