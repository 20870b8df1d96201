"""Answers about a training step: the largest that fits, what saves most for its time, the cheapest device."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.checks import Shape
from sizeup.estimate.training.estimate import training_footprint
from sizeup.estimate.training.process import process_range
from sizeup.estimate.training.settings import TrainSetting
from sizeup.machines.catalogue import Entry, entries

MOST_TOKENS = 2**24


class Saving(msgspec.Struct, frozen=True):
    """One change of the setting. slower: factor on the time of a step, roughly. how: what it costs."""

    change: str
    saved_bytes: int
    peak_bytes: int
    slower: float
    how: str


class CheapestDevice(msgspec.Struct, frozen=True):
    """A device of the catalogue that the step fits on, by its price at launch."""

    name: str
    memory_bytes: int
    price_usd: int


class TrainAdvice(msgspec.Struct, frozen=True):
    """Answers for one setting.

    largest_*: what still fits in the budget with everything else as asked; None without a budget or when nothing
    does. savings: ranked by bytes saved for each part of time lost. seconds: of a step, roughly; None when unknown.
    """

    budget_bytes: int | None
    largest_batch: int | None
    largest_sequence: int | None
    largest_rank: int | None
    savings: tuple[Saving, ...]
    cheapest: CheapestDevice | None
    seconds: float | None = None
    because: str = ""


def largest(fits: Callable[[int], bool], most: int) -> int | None:
    """The largest number from 1 to `most` that fits, by doubling and then halving the gap; None when 1 doesn't."""
    if not fits(1):
        return None
    low, high = 1, 2
    while high <= most and fits(high):
        low, high = high, high * 2
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def process_fits(shape: Shape, setting: TrainSetting, budget: int) -> bool:
    """Whether what the process is expected to take is within the budget."""
    peak = training_footprint(shape, setting).peak_bytes
    return process_range(peak, devices=setting.world).expected <= budget


def largest_value(shape: Shape, setting: TrainSetting, name: str, budget: int, most: int, step: int = 1) -> int | None:
    """The largest multiple of `step` of one field of the setting that fits."""

    def fits(count: int) -> bool:
        return process_fits(shape, msgspec.structs.replace(setting, **{name: count * step}), budget)

    found = largest(fits, max(1, most // step))
    return None if found is None else found * step


#: Change, fields, factor on the time of a step, what it costs. Recomputation repeats the forward pass: a third of 3.
_CHANGES: tuple[tuple[str, dict[str, object], float, str], ...] = (
    ("checkpointing=full", {"checkpointing": "full"}, 1.33, "the forward pass runs twice"),
    ("checkpointing=selective", {"checkpointing": "selective"}, 1.05, "everything but matrix products runs twice"),
    ("checkpointing=2", {"checkpointing": "2"}, 1.17, "every second layer runs twice"),
    ("loss=fused", {"loss": "fused"}, 1.02, "logits are made in parts (Liger kernel)"),
    ("optimizer=adam8bit", {"optimizer": "adam8bit"}, 1.02, "states of one byte (bitsandbytes)"),
    ("optimizer=adafactor", {"optimizer": "adafactor"}, 1.05, "factored states, another optimizer"),
    ("precision=bf16", {"precision": "bf16"}, 0.95, "weights of 16 bits, small updates may be lost"),
    ("method=lora", {"method": "lora"}, 0.8, "only adapters train"),
    (
        "method=qlora",
        {"method": "qlora", "checkpointing": "full"},
        1.6,
        "weights unpacked for each product, recomputed",
    ),
    ("attention=sdpa", {"attention": "sdpa"}, 0.8, "no matrix of scores"),
    ("offload_optimizer", {"offload_optimizer": True}, 1.5, "states cross the host link each step"),
    ("sharding=fsdp over 2", {"sharding": "fsdp", "data_parallel": 2}, 1.1, "two devices"),
    ("sharding=fsdp over 8", {"sharding": "fsdp", "data_parallel": 8}, 1.15, "eight devices"),
    ("batch halved, accumulated", {"batch": None, "accumulating": True}, 1.1, "twice the micro-batches"),
)


def savings(shape: Shape, setting: TrainSetting) -> tuple[Saving, ...]:
    """Single changes that save memory, ranked by bytes saved for the time they cost."""
    now = training_footprint(shape, setting).peak_bytes
    found = []
    for change, fields, slower, how in _CHANGES:
        changed = _changed(setting, fields)
        if changed is None or changed == setting:
            continue
        peak = training_footprint(shape, changed).peak_bytes
        if peak < now:
            found.append(Saving(change, now - peak, peak, slower, how))
    return tuple(sorted(found, key=lambda saving: -saving.saved_bytes / max(0.01, saving.slower - 0.75)))


def _changed(setting: TrainSetting, fields: dict[str, object]) -> TrainSetting | None:
    """The setting with those fields; None where they don't apply."""
    if "batch" in fields:
        if setting.batch == 1:
            return None
        return msgspec.structs.replace(setting, batch=-(-setting.batch // 2), accumulating=True)
    if fields.get("method") == setting.method or (fields.get("method") == "lora" and setting.adapters):
        return None
    if "sharding" in fields and (setting.data_parallel > 1 or setting.method == "qlora"):
        return None
    if "checkpointing" in fields and setting.checkpointing != "none" and "method" not in fields:
        return None
    if fields.get("method") and setting.precision == "bf16-fp32-master":
        fields = {**fields, "precision": "bf16"}
    if fields.get("precision") == "bf16" and setting.weight_item != 4:
        return None
    return msgspec.structs.replace(setting, **fields)


def cheapest_device(shape: Shape, setting: TrainSetting) -> CheapestDevice | None:
    """The device of the catalogue with the lowest price at launch whose memory holds the process."""
    wanted = process_range(training_footprint(shape, setting).peak_bytes, devices=setting.world).expected
    number = "fp8" if setting.precision == "fp8" else "bf16" if "bf16" in setting.precision else ""
    fitting = [entry for entry in entries() if _trains(entry, wanted, number)]
    best = min(fitting, key=lambda entry: (entry.price_usd or 0, entry.memory_bytes or 0), default=None)
    if best is None:
        return None
    return CheapestDevice(best.name, best.memory_bytes or 0, best.price_usd or 0)


def _trains(entry: Entry, wanted: int, number: str) -> bool:
    """Whether it is a GPU with CUDA or ROCm, a price, the memory, and the number format."""
    usable = entry.kind == "gpu" and entry.backend in {"cuda", "rocm"} and entry.price_usd
    return bool(usable) and (entry.memory_bytes or 0) >= wanted and (not number or number in entry.compute)


def parameters_of(shape: Shape, setting: TrainSetting) -> int:
    """Parameters that one token passes through, adapters not counted."""
    from sizeup.estimate.training.estimate import recorded

    plain = TrainSetting(sequence=min(setting.sequence, 128))
    total = 0
    for weight, count in recorded(shape, plain).weights:
        share = 1.0
        if weight.kind == "experts" and isinstance(shape, DecoderShape) and shape.mixture is not None:
            share = shape.mixture.chosen / shape.mixture.experts
        total += round(weight.n * count * share)
    return total


def step_seconds(shape: Shape, setting: TrainSetting, flops: float, utilisation: float = 0.4) -> float:
    """Seconds of a step: 6 FLOP a parameter and token (4 when weights are frozen), a third more when recomputed.

    Source: Kaplan et al. 2020; utilisation: the usual 40 % of dense peak (Chowdhery et al. 2022, appendix B).
    """
    factor = 4 if setting.adapters else 6
    again = 2 if setting.checkpointing == "full" else 0
    tokens = setting.sequences * setting.sequence
    work = (factor + again) * parameters_of(shape, setting) * tokens
    return work / (flops * utilisation * setting.tensor_parallel * setting.pipeline_parallel * setting.context_parallel)
