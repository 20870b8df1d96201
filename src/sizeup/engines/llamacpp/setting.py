"""What llama.cpp is told: the settings that decide what it allocates.

Names follow `llama-server`'s options. Source: common/arg.cpp and include/llama.h, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

import re

import msgspec

from sizeup.errors import BadInput
from sizeup.formats.mixes import mix

#: The llama.cpp that these rules were read from and checked against.
VERSION = "llama.cpp 0.5.0 (0c1e570, llama-cpp-python 0.3.36)"

#: `--cache-type-k`, `--cache-type-v`: what the cache may be stored as.
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
UNQUANTIZED = frozenset({"f32", "f16", "bf16"})
#: `-ngl` takes every layer: a number above any layer count.
ALL_LAYERS = -1
_MAX_SEQUENCES = 256


class Override(msgspec.Struct, frozen=True):
    """One `-ot PATTERN=BUFFER`: tensors whose name matches the regular expression go to `CPU` or to a GPU's number."""

    pattern: str
    buffer: str = "CPU"


class LlamaSetting(msgspec.Struct, frozen=True):
    """One way to start llama.cpp.

    format: a mix (`Q4_K_M`), a plain type (`F16`), or empty for the types that a GGUF header names.
    context: tokens of all sequences together (`-c`).
    gpu_layers: None, as many as fit; -1, all; else that many, the output layer counting as one (`-ngl`);
        0 leaves GPUs alone altogether (`--device none`).
    batch, ubatch: logical and physical batch in tokens (`-b`, `-ub`).
    parallel: sequences (`-np`); unified: they share one cache (`-kvu`).
    outputs: rows of logits that one ubatch may ask for: None, one for each sequence (llama-server);
        0, every token (llama-cpp-python, llama-perplexity, older versions).
    cpu_moe_layers: routed experts of the first so many layers stay on the host (`--n-cpu-moe`).
    tensor_split: shares of the GPUs; None, by free memory. split_mode: `none`, `layer` (`-sm`).
    embeddings: started with `--embeddings`.
    recurrent_snapshots: extra copies of recurrent states that speculation may roll back to.
    projector: encoders of images or sound are loaded too (`--mmproj`), onto the first GPU if there is one.
    mtp: the layers for multi-token prediction are loaded too.
    imatrix: whether the file was made with an importance matrix, which changes a few mixes; None, as the mix needs.
    """

    format: str = "Q4_K_M"
    context: int = 8192
    cache_k: str = "f16"
    cache_v: str = "f16"
    gpu_layers: int | None = None
    batch: int = 2048
    ubatch: int = 512
    parallel: int = 1
    unified: bool = True
    flash_attention: str = "auto"
    full_swa: bool = False
    mmap: bool = True
    repack: bool = True
    cpu_moe_layers: int = 0
    overrides: tuple[Override, ...] = ()
    tensor_split: tuple[float, ...] | None = None
    split_mode: str = "layer"
    main_gpu: int = 0
    offload_kv: bool = True
    outputs: int | None = None
    embeddings: bool = False
    recurrent_snapshots: int = 0
    imatrix: bool | None = None
    mtp: bool = False
    projector: bool = False

    @property
    def batch_tokens(self) -> int:
        """Tokens of one logical batch, no more than the context: min(context, batch)."""
        return min(self.context, self.batch)

    @property
    def ubatch_tokens(self) -> int:
        """Tokens of one physical batch: min(batch, ubatch)."""
        return min(self.batch_tokens, self.ubatch or self.batch)

    @property
    def output_rows(self) -> int:
        """The most rows of logits that one ubatch computes."""
        if self.embeddings or self.outputs == 0:
            return self.ubatch_tokens
        wanted = self.parallel if self.outputs is None else self.outputs
        return max(1, min(self.ubatch_tokens, wanted))


def checked(setting: LlamaSetting) -> LlamaSetting:
    """The setting itself. Raises BadInput where llama.cpp would refuse it, naming what disagrees and the way out."""
    if setting.format:
        mix(setting.format)
    _check_counts(setting)
    _check_overrides(setting)
    for option, value in (("cache_k", setting.cache_k), ("cache_v", setting.cache_v)):
        if value.lower() not in CACHE_TYPES:
            raise BadInput(f"{option} {value[:40]!r} is no cache type", hint=f"one of {', '.join(CACHE_TYPES)}")
    if setting.flash_attention not in {"auto", "on", "off"}:
        raise BadInput(f"flash_attention {setting.flash_attention[:40]!r}", hint="one of auto, on, off")
    if setting.split_mode not in {"none", "layer"}:
        raise BadInput(
            f"split_mode {setting.split_mode[:40]!r} is not estimated", hint="use layer (or none for a single GPU)"
        )
    if setting.cache_v.lower() not in UNQUANTIZED and setting.flash_attention == "off":
        raise BadInput(
            f"cache_v {setting.cache_v} needs flash attention, and flash_attention is off",
            hint="set flash_attention to on, or cache_v to f16",
        )
    return setting


def _check_overrides(setting: LlamaSetting) -> None:
    for override in setting.overrides:
        try:
            re.compile(override.pattern)
        except re.error as wrong:
            raise BadInput(
                f"override pattern {override.pattern[:60]!r}: {wrong}",
                hint="an expression like `blk\\.[0-9]+\\.ffn_.*_exps`",
            ) from wrong
        if override.buffer.upper() != "CPU" and not override.buffer.isdecimal():
            raise BadInput(f"override buffer {override.buffer[:40]!r}", hint="CPU, or the number of a GPU")


def _check_counts(setting: LlamaSetting) -> None:
    for option in ("context", "batch", "parallel"):
        value = getattr(setting, option)
        if value < 1:
            raise BadInput(f"{option} is {value}", hint=f"{option} is 1 or more")
    for option in ("ubatch", "cpu_moe_layers", "recurrent_snapshots"):
        value = getattr(setting, option)
        if value < 0:
            raise BadInput(f"{option} is {value}", hint=f"{option} is 0 or more")
    if setting.gpu_layers is not None and setting.gpu_layers < ALL_LAYERS:
        raise BadInput(f"gpu_layers is {setting.gpu_layers}", hint="-1 for all, 0 for none, or a number of layers")
    if setting.parallel > _MAX_SEQUENCES:
        raise BadInput(f"parallel is {setting.parallel}", hint=f"llama.cpp runs {_MAX_SEQUENCES} sequences at most")
    if not setting.unified and setting.context < setting.parallel:
        raise BadInput(
            f"context {setting.context} is less than one token for each of parallel {setting.parallel} sequences",
            hint="raise context, or set unified",
        )
    if setting.tensor_split is not None and (
        not setting.tensor_split or min(setting.tensor_split) < 0 or sum(setting.tensor_split) <= 0
    ):
        raise BadInput(f"tensor_split {setting.tensor_split}", hint="one share of 0 or more for each GPU, not all 0")
