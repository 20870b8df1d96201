"""One look at the machine: processors, memory, GPUs, servers of models, and who holds the memory."""

from __future__ import annotations

import msgspec


class Gpu(msgspec.Struct, frozen=True):
    """A GPU now, in bytes, watts and °C; None where its driver doesn't say. busy: share of the time, 0 to 1."""

    name: str
    used_bytes: int | None = None
    total_bytes: int | None = None
    busy: float | None = None
    watts: float | None = None
    celsius: float | None = None


class Holder(msgspec.Struct, frozen=True):
    """A process and what it holds. bytes: its resident memory, files it has mapped included. gpu_bytes: on GPUs."""

    pid: int
    name: str
    bytes: int
    gpu_bytes: int = 0


class ServerLoad(msgspec.Struct, frozen=True):
    """A server of models, by what it says itself; None where it doesn't.

    tokens_per_s: generated since the sample before. cache_used: share of the KV cache, 0 to 1.
    """

    url: str
    engine: str
    model: str = ""
    pid: int | None = None
    running: int | None = None
    waiting: int | None = None
    slots: int | None = None
    cache_used: float | None = None
    tokens_per_s: float | None = None
    prompt_tokens_per_s: float | None = None
    memory_bytes: int | None = None
    gpu_bytes: int | None = None


class Sample(msgspec.Struct, frozen=True):
    """The machine at one moment.

    cpu: share of all processors in use, 0 to 1. memory: what programs hold, not what is cache; its limit is that of
    the container, where there is one. headroom_bytes: what is left when a run reaches its predicted peak; negative
    when it won't fit. None without a prediction.
    """

    at: str
    cpu: float
    memory_used_bytes: int
    memory_total_bytes: int
    swap_used_bytes: int
    cpu_celsius: float | None = None
    gpus: tuple[Gpu, ...] = ()
    servers: tuple[ServerLoad, ...] = ()
    holders: tuple[Holder, ...] = ()
    headroom_bytes: int | None = None

    @property
    def memory_share(self) -> float:
        """Memory in use, 0 to 1."""
        return self.memory_used_bytes / self.memory_total_bytes if self.memory_total_bytes else 0.0
