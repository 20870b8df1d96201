"""The fitted parameters, each with a meaning; `scripts/fit_speed.py` writes them into `parameters.json`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import msgspec

_FILE = Path(__file__).with_name("parameters.json")


class Stack(msgspec.Struct, frozen=True):
    """One set of kernels: ggml's for a backend (`cuda`, `metal`, `cpu` …), `mlx`, or `vllm`.

    streaming: share of the theoretical bandwidth that its matrix-vector kernels reach on weights.
    cache_streaming: the same on keys and values. kernel_seconds: between two kernels, launch and ramp included.
    matrix, plain_matrix: shares of the matrix units' rate that products with packed and with 16 bit weights reach.
    scaling: vector operations for each FLOP with packed weights, to scale the blocks' sums.
    attention: share of the matrix units' rate that attention reaches on a prompt; attention_one: how many times longer
    a FLOP takes for a single token. passing: share of the bandwidth at which activations go in and out of matrices.
    expert_reading, expert_computing: routed experts against dense weights; unpack, rescale: by packing; all where they
    aren't as on GPUs. product: more time a FLOP, by packing. scatter: vector operations that a single token's far
    read of keys costs.
    """

    streaming: float
    cache_streaming: float
    kernel_seconds: float
    matrix: float
    plain_matrix: float
    scaling: float
    attention: float
    passing: float = 1.0
    attention_one: float = 1.0
    expert_reading: float | None = None
    expert_computing: float | None = None
    unpack: dict[str, float] = {}
    rescale: dict[str, float] = {}
    product: dict[str, float] = {}
    scatter: float = 0.0


class Engine(msgspec.Struct, frozen=True):
    """What an engine adds. token_seconds: synchronising, sampling, text, its server, once a pass. factor: on the rest.

    prompt_factor: the same for reading a prompt. processor_seconds: in the place of token_seconds where nothing runs on
    a GPU that would have to be waited for; None where that makes no difference.
    """

    token_seconds: float
    factor: float = 1.0
    prompt_factor: float = 1.0
    processor_seconds: float | None = None

    def once(self, stacks: Iterable[str]) -> float:
        """Seconds that it adds to a pass on devices with these kernels."""
        if self.processor_seconds is None or any(stack != "cpu" for stack in stacks):
            return self.token_seconds
        return self.processor_seconds


class Spread(msgspec.Struct, frozen=True):
    """Residuals on hardware that wasn't fitted: log(predicted / measured). low, high: 5th and 95th percentile."""

    low: float
    high: float
    rows: int


class Parameters(msgspec.Struct, frozen=True):
    """All of them.

    generations: factor on `streaming` of an architecture, prompt_generations on the rate of its matrix units, both
    pulled towards 1. unpack: integer operations a weight, by packing. expert_reading, expert_computing: routed experts
    against dense weights: more time a byte, more time a FLOP (small matrices, gathered rows).
    all_reduce_seconds: one sum over tensor-parallel devices beyond its bytes.
    """

    stacks: dict[str, Stack]
    engines: dict[str, Engine]
    generations: dict[str, float]
    prompt_generations: dict[str, float]
    unpack: dict[str, float]
    rescale: dict[str, float]
    without_flash: float
    expert_reading: float
    expert_computing: float
    all_reduce_seconds: float
    decode_spread: dict[str, Spread]
    prompt_spread: dict[str, Spread]


@lru_cache(maxsize=1)
def parameters() -> Parameters:
    """The fitted parameters of this version."""
    return msgspec.json.decode(_FILE.read_bytes(), type=Parameters)


@lru_cache(maxsize=1)
def digest() -> str:
    """Stands for the fitted parameters: corrections that were measured are factors on what these give."""
    import zlib

    return f"{zlib.crc32(_FILE.read_bytes()):08x}"
