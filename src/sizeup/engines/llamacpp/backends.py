"""How llama.cpp's backends lay out buffers, and what they take besides: alignment, row padding, contexts.

Sources: get_alignment and get_alloc_size of the buffer types in ggml/src/ggml-{cpu,cuda,metal,vulkan,sycl},
ggml_repack_get_optimal_repack_type in ggml/src/ggml-cpu/repack.cpp, llama.cpp 0.5.0 (0c1e570); contexts: as published,
each with its source below.
"""

from __future__ import annotations

import msgspec

from sizeup.machines.device import Device
from sizeup.quantity.units import MIB


class Backend(msgspec.Struct, frozen=True):
    """One backend's rules.

    alignment: every tensor in a buffer is padded to it. row_padding: quantized rows are padded to this many values
    (the last row only: CUDA reads past it). pinned: it offers host memory that weights of layers on the CPU and
    transfers use, which rules out repacking there.
    offloads: large batches of layers on the host are computed on the device, weights copied there for the while.
    halves_cache: its fused attention wants keys and values in half precision, a copy where they are stored otherwise;
    halves_always: room for it even where they are. keeps_experts: its fused sum of experts reads them in the end.
    context_bytes: taken on the device by the driver's context and kernels; known_error: of that, as a share.
    """

    name: str
    alignment: int
    context_bytes: int
    context_source: str
    known_error: float = 0.5
    row_padding: int = 0
    pinned: bool = False
    offloads: bool = False
    halves_cache: bool = False
    halves_always: bool = False
    keeps_experts: bool = False


CPU = Backend("cpu", 32, 0, "")
_CUDA = Backend(
    name="cuda",
    alignment=128,
    context_bytes=450 * MIB,
    context_source="ggml-org/llama.cpp#15860: unaccounted memory per NVIDIA GPU",
    known_error=0.4,
    row_padding=512,
    pinned=True,
    offloads=True,
    halves_cache=True,
    keeps_experts=True,
)


def _like_cuda(name: str, source: str) -> Backend:
    return msgspec.structs.replace(_CUDA, name=name, context_source=source, known_error=0.7)


BACKENDS = {
    "cpu": CPU,
    "cuda": _CUDA,
    "rocm": _like_cuda("rocm", "assumed as CUDA: the same code, built for HIP"),
    "musa": _like_cuda("musa", "assumed as CUDA: the same code, built for MUSA"),
    "vulkan": Backend(
        "vulkan", 64, 200 * MIB, "assumed: pipelines and staging buffers", 0.8, pinned=True, offloads=True
    ),
    "sycl": Backend(
        "sycl", 128, 400 * MIB, "assumed: Level Zero context and kernels", 0.8, 512, pinned=True, offloads=True
    ),
    "metal": Backend(
        "metal",
        32,
        100 * MIB,
        "assumed: command queues and pipeline states",
        0.8,
        offloads=True,
        halves_cache=True,
        halves_always=True,
    ),
}


def backend_of(device: Device) -> Backend:
    """The rules of a device's backend; CUDA's for one that isn't known, being the most careful."""
    return BACKENDS.get(device.backend, BACKENDS["cuda"])


#: GGML type → (rows must be a multiple of, one of these instruction sets is needed), x86 then Arm.
_REPACK_X86 = {"Q4_0": "avx2", "Q4_K": "avx2", "IQ4_NL": "avx2", "MXFP4": "avx2", "Q2_K": "avx512"}
_REPACK_DOT = {"Q4_0": 4, "Q4_K": 8, "Q5_K": 8, "Q6_K": 8, "IQ4_NL": 4, "MXFP4": 4, "Q8_0": 4, "Q1_0": 4}


class RepackRule(msgspec.Struct, frozen=True):
    """Which weights a CPU keeps rearranged: type → rows must be a multiple of this."""

    multiples: dict[str, int] = {}

    def covers(self, kind: str, rows: int) -> bool:
        """Whether a matrix of that type and number of rows is repacked."""
        multiple = self.multiples.get(kind)
        return multiple is not None and rows % multiple == 0


NO_REPACK = RepackRule()


def repack_rule(cpu: Device) -> RepackRule:
    """What llama.cpp's CPU backend rearranges on this processor, by its instruction sets (`features`).

    Without any known features an x86 with AVX2 is assumed, or an Arm with dot products for Apple and Arm vendors.
    """
    features = {feature.lower() for feature in cpu.features}
    arm = features & {"neon", "asimd", "dotprod", "asimddp", "i8mm"} or cpu.vendor.lower() in {"apple", "arm"}
    if arm:
        return RepackRule(_REPACK_DOT)
    has = features or {"avx2"}
    wide = any(feature.startswith("avx512") for feature in has)
    fits = {"avx2": "avx2" in has, "avx512": wide}
    return RepackRule({kind: 8 for kind, need in _REPACK_X86.items() if fits[need]})
