"""What makes a training step smaller: changes ranked by what they save for their time, and the quickest that fit."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import msgspec

from sizeup.advice.training_time import Rig, step_seconds, weights_of
from sizeup.errors import BadInput
from sizeup.estimate.training.architectures.programs import Shape
from sizeup.estimate.training.checks import check
from sizeup.estimate.training.estimate import training_peak
from sizeup.estimate.training.process import process_range
from sizeup.estimate.training.settings import TrainSetting

Fields = dict[str, object]


class Change(msgspec.Struct, frozen=True):
    """A change of the setting. how: what it means for the person who makes it."""

    name: str
    fields: Fields
    how: str


class Saving(msgspec.Struct, frozen=True):
    """What one change does. slower: factor on the time of as many tokens on a device."""

    change: str
    saved_bytes: int
    peak_bytes: int
    slower: float
    how: str


class Way(msgspec.Struct, frozen=True):
    """Changes that make the step fit together. process_bytes: what the process is then expected to take."""

    changes: tuple[str, ...]
    setting: TrainSetting
    peak_bytes: int
    process_bytes: int
    slower: float


RECOMPUTE = Change("checkpointing=full", {"checkpointing": "full"}, "the forward pass runs twice")
FUSED = Change("loss=fused", {"loss": "fused"}, "logits are made in parts (Liger kernel)")
EIGHT_BIT = Change("optimizer=adam8bit", {"optimizer": "adam8bit"}, "states of one byte (bitsandbytes)")
STATES_AWAY = Change("offload_optimizer", {"offload_optimizer": True}, "the host holds the states and steps")
STREAM_AWAY = Change(
    "checkpointing=full, offload_activations", {"checkpointing": "full", "offload_activations": True},
    "layers' inputs cross the host's link twice",
)  # fmt: skip
LORA = Change("method=lora", {"method": "lora"}, "only adapters train")
QLORA = Change("method=qlora", {"method": "qlora"}, "adapters on 4-bit weights, unpacked at each use")

CHANGES = (
    RECOMPUTE,
    Change("checkpointing=selective", {"checkpointing": "selective"}, "everything but matrix products runs twice"),
    Change("checkpointing=2", {"checkpointing": "2"}, "every second layer runs twice"),
    FUSED,
    EIGHT_BIT,
    Change("optimizer=adafactor", {"optimizer": "adafactor"}, "factored states, another optimizer"),
    Change("precision=bf16", {"precision": "bf16"}, "weights of 16 bits, small updates may be lost"),
    LORA,
    QLORA,
    Change("attention=sdpa", {"attention": "sdpa"}, "no matrix of scores"),
    STATES_AWAY,
    STREAM_AWAY,
    Change("sharding=fsdp over 2", {"sharding": "fsdp", "data_parallel": 2}, "two devices"),
    Change("sharding=fsdp over 8", {"sharding": "fsdp", "data_parallel": 8}, "eight devices"),
)
#: What each further change must gain in time to be preferred.
EACH_CHANGE = 1.02
#: What may be combined; one of each row, or nothing of it.
_COMBINED = ((RECOMPUTE, CHANGES[1], STREAM_AWAY), (FUSED,), (EIGHT_BIT, STATES_AWAY))


def savings(shape: Shape, setting: TrainSetting, rig: Rig | None) -> tuple[Saving, ...]:
    """Single changes that save memory, ranked by bytes saved for the time they cost; without a rig by bytes alone."""
    now = training_peak(shape, setting)
    halved = _halved(setting)
    tried = [*((change, changed(setting, change), 1) for change in CHANGES), (halved[0], halved[1], 2)]
    found = []
    for change, after, passes in tried:
        if after is None or not _possible(after, shape):
            continue
        peak = training_peak(shape, after)
        if peak < now:
            found.append(Saving(change.name, now - peak, peak, _slower(shape, setting, after, passes, rig), change.how))
    return tuple(sorted(found, key=_worth, reverse=True))


def _worth(saving: Saving) -> float:
    """Bytes saved for the time lost; what takes less than 2 % more is taken to take 2 %."""
    return saving.saved_bytes / max(0.02, saving.slower - 1)


def _halved(setting: TrainSetting) -> tuple[Change, TrainSetting | None]:
    change = Change("batch halved, accumulated", {}, "twice the micro-batches")
    if setting.batch == 1:
        return change, None
    return change, msgspec.structs.replace(setting, batch=-(-setting.batch // 2), accumulating=True)


def _slower(shape: Shape, before: TrainSetting, after: TrainSetting, passes: int, rig: Rig | None) -> float:
    """Time of as many tokens after the change; 1.0 where nothing is known of the device."""
    if rig is None:
        return 1.0
    return step_seconds(shape, after, rig, passes) / step_seconds(shape, before, rig)


def changed(setting: TrainSetting, change: Change) -> TrainSetting | None:
    """The setting with that change; None where it says nothing new or undoes what was asked."""
    fields = change.fields
    if "method" in fields and (setting.method == fields["method"] or setting.method in {"qlora", "dora"}):
        return None
    if fields.get("method") == "lora" and setting.adapters:
        return None
    if "sharding" in fields and (setting.world > 1 or setting.method == "qlora"):
        return None
    only_moved = "offload_activations" in fields and setting.checkpointing == "full"
    if "checkpointing" in fields and setting.checkpointing != "none" and not only_moved:
        return None
    if fields.get("precision") == "bf16" and setting.weight_item != 4:
        return None
    if "method" in fields and setting.precision == "bf16-fp32-master":
        fields = {**fields, "precision": "bf16"}
    after = msgspec.structs.replace(setting, **fields)
    return None if after == setting else after


def _possible(setting: TrainSetting, shape: Shape) -> bool:
    """Whether nothing in the setting contradicts the rest (its sequence was checked before)."""
    try:
        check(setting, shape, None)
    except BadInput:
        return False
    return True


def ways(shape: Shape, setting: TrainSetting, budget: int, rig: Rig) -> tuple[Way, ...]:
    """The quickest combination that fits for each method, from the one asked for to those that train less."""
    found = []
    for change in (None, LORA, QLORA):
        start = setting if change is None else changed(setting, change)
        if start is not None:
            way = _quickest(shape, setting, start, () if change is None else (change.name,), budget, rig)
            found += [way] if way is not None else []
    return tuple(found)


def _quickest(
    shape: Shape, asked: TrainSetting, start: TrainSetting, names: tuple[str, ...], budget: int, rig: Rig
) -> Way | None:
    """The quickest combination of changes to `start` whose process fits; None when none does."""
    base = step_seconds(shape, asked, rig)
    tried = [entry for entry in _combinations(start) if _possible(entry[0], shape)]
    weights = {name: weights_of(shape, msgspec.structs.replace(start, optimizer=name))
               for name in {after.optimizer for after, _, _ in tried}}  # fmt: skip
    timed = [
        (step_seconds(shape, after, rig, passes, weights[after.optimizer]) / base, (*names, *made), after)
        for after, passes, made in tried
    ]
    for slower, made, after in sorted(timed, key=lambda entry: entry[0] * EACH_CHANGE ** len(entry[1])):
        peak = training_peak(shape, after)
        process = process_range(peak, devices=after.world).expected
        if made and process <= budget:
            return Way(made, after, peak, process, slower)
    return None


def _combinations(start: TrainSetting) -> Iterator[tuple[TrainSetting, int, tuple[str, ...]]]:
    """Settings with passes for a step of as many tokens, and the names of what was changed."""
    for chosen in product(*((None, *row) for row in _COMBINED)):
        after: TrainSetting | None = start
        for change in filter(None, chosen):
            after = None if after is None else changed(after, change)
        if after is None:
            continue
        made = tuple(change.name for change in chosen if change is not None)
        yield after, 1, made
        batch, passes = after.batch, 1
        while batch > 1:
            batch, passes = -(-batch // 2), passes * 2
            smaller = msgspec.structs.replace(after, batch=batch, accumulating=True)
            yield smaller, passes, (*made, f"batch={batch}, {passes} accumulated")
