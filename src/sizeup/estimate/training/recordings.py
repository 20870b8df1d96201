"""Steps recorded with open sizes, kept by what makes their recordings differ.

A recording answers for every batch, sequence, target and rank of adapters for which the step would run alike. What
changes nothing in a pass (the optimizer, clipping, replicas, sharding) shares it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import msgspec

from sizeup.errors import BadInput
from sizeup.estimate.training.architectures.programs import Shape, segments
from sizeup.estimate.training.architectures.shape import DecoderShape
from sizeup.estimate.training.build import Build, Method, Weight
from sizeup.estimate.training.open_sizes import OPEN, Formulas, OpenSize, Sheet
from sizeup.estimate.training.outline import Outline
from sizeup.estimate.training.parallel import split_shape
from sizeup.estimate.training.program import NothingTrains, Recording, record
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.settings import ENDS, TrainSetting
from sizeup.estimate.training.tape import Blocks, Tape

#: Recordings that are kept (0.1 to 0.5 MiB each), of all models and of one kind.
LIMIT, ALIKE = 256, 8

#: Batch, sequence, target and rank; a size that a step hasn't got is 0 and not open.
Values = tuple[int, int, int, int]


class OpenRecording:
    """A recording, formulas of its open sizes (None: it is for `values` alone), and what was made of it by setting."""

    __slots__ = ("_outline", "formulas", "made", "recording", "shape", "values")

    def __init__(self, recording: Recording, formulas: Formulas | None, values: Values, shape: Shape) -> None:
        self.recording, self.formulas, self.values, self.shape = recording, formulas, values, shape
        self.made: dict[Hashable, object] = {}
        self._outline: Outline | None = None

    @property
    def outline(self) -> Outline:
        """The recording in short, for all settings that leave its logs as they are."""
        if self._outline is None:
            self._outline = Outline(self.recording)
        return self._outline

    def amounts(self, values: Values) -> list[int] | None:
        """Every size for these values; None where the step would run otherwise."""
        if self.formulas is None:
            return [] if values == self.values else None
        return self.formulas.amounts(tuple([value for value in values if value]))

    def blocks(self, amounts: list[int]) -> Blocks:
        """What the numbers in the logs stand for."""
        stored = [] if self.formulas is None else self.formulas.blocks(amounts)
        return Blocks(enumerate(stored, OPEN))

    def sized(self, amounts: list[int]) -> Recording:
        """The recording with plain sizes of weights."""
        if self.formulas is None or not self.values[3]:
            return self.recording
        pieces = {
            key: msgspec.structs.replace(piece, weights=tuple([_sized(weight, amounts) for weight in piece.weights]))
            for key, piece in self.recording.pieces.items()
        }
        return Recording(pieces, self.recording.order)


def _sized(weight: Weight, amounts: list[int]) -> Weight:
    """The weight with plain sizes: those of an adapter depend on the rank."""
    if type(weight.n) is int:
        return weight
    n, rows, *sizes = (_plain(size, amounts) for size in (weight.n, weight.rows, *weight.sizes))
    return msgspec.structs.replace(weight, n=n, rows=rows, sizes=tuple(sizes))


def _plain(size: int, amounts: list[int]) -> int:
    return amounts[size.number] if isinstance(size, OpenSize) else size


#: Recordings by what makes them differ, the newest of each kind first.
kept: dict[Hashable, list[OpenRecording]] = {}


def recording_of(shape: Shape, setting: TrainSetting) -> tuple[OpenRecording, list[int]]:
    """A recording that holds for the setting, with its sizes."""
    method, run, values = method_of(setting), run_of(shape, setting), values_of(setting)
    key = (
        id(shape), method, run, setting.autocast, _accumulating(setting), setting.precision == "fp8",
        setting.keeps_outputs, setting.pipeline_parallel > 1, values[2] > 0, setting.tensor_parallel,
        setting.expert_parallel, setting.sequence_parallel, setting.loss_parallel,
    )  # fmt: skip
    known = kept.get(key, [])
    for recording in known:
        amounts = recording.amounts(values)
        if amounts is not None:
            return recording, amounts
    made = new_recording(shape, setting, opened=all(recording.formulas for recording in known))
    kept[key] = [made, *known[: ALIKE - 1]]
    while sum(map(len, list(kept.values()))) > LIMIT:
        kept.pop(next(iter(kept)), None)
    return made, made.amounts(values) or []


def values_of(setting: TrainSetting) -> Values:
    """The sizes of a setting that may stay open."""
    rank = setting.lora_rank if setting.adapters else 0
    return setting.sequences, setting.sequence // setting.context_parallel, setting.target_sequence, rank


def new_recording(shape: Shape, setting: TrainSetting, *, opened: bool = True) -> OpenRecording:
    """A recording with open sizes, unless the program does something with them that only integers can."""
    values = values_of(setting)
    if opened:
        sheet = Sheet(tuple([value for value in values if value]))
        open_sizes: Iterator[Any] = iter(sheet.open)
        batch, sequence, target, rank = (next(open_sizes) if value else 0 for value in values)
        try:
            made = _run_dry(shape, setting, (batch, sequence, target, rank), sheet)
        except (TypeError, AttributeError):
            pass
        else:
            return OpenRecording(made, sheet.closed(), values, shape)
    return OpenRecording(_run_dry(shape, setting, values), None, values, shape)


def _run_dry(shape: Shape, setting: TrainSetting, sizes: Values, sheet: Sheet | None = None) -> Recording:
    batch, sequence, target, rank = sizes
    method, run = msgspec.structs.replace(method_of(setting), rank=rank), run_of(shape, setting)
    local = split_shape(shape, setting) if isinstance(shape, DecoderShape) else shape
    tape = Tape(
        autocast=setting.autocast,
        accumulating=_accumulating(setting),
        eight_bit=setting.precision == "fp8",
        sheet=sheet,
    )
    build = Build(tape, method, batch, sequence, target)
    if isinstance(local, DecoderShape) and local.vocabulary_ways > 1 and not local.gathers_logits:
        run = msgspec.structs.replace(run, split_vocabulary=True)
    try:
        piped = setting.pipeline_parallel > 1
        return record(build, segments(local, run), keeps_outputs=setting.keeps_outputs, piped=piped)
    except NothingTrains as error:
        raise _untrained(setting, build) from error


def _accumulating(setting: TrainSetting) -> bool:
    divided = setting.gathers or setting.sharding.startswith("zero")
    return (setting.accumulating or setting.reduced_as_they_come) and not divided


def _untrained(setting: TrainSetting, build: Build) -> BadInput:
    """What to say when no weight wants a gradient: adapters that name no module of the model."""
    names = dict.fromkeys(name.rpartition("/")[2].rpartition(".")[2] for name in build.modules)
    return BadInput(
        f"lora_targets {','.join(setting.lora_targets)} name no module of this model, so nothing would train",
        hint=f"its linear modules are {', '.join(names)}",
    )


def method_of(setting: TrainSetting) -> Method:
    """How the setting holds and trains weights; the rank is left out."""
    return Method(
        item=setting.compute_item,
        train=not setting.adapters,
        four_bit=setting.method == "qlora",
        wide_results=setting.four_bit == "bitsandbytes",
        gptq=setting.four_bit == "gptq",
        half=setting.precision == "fp16",
        saved=tuple([ENDS.get(name, name) for name in setting.modules_to_save]),
        double_quantization=setting.double_quantization,
        targets=tuple([ENDS.get(name, name) for name in setting.lora_targets]),
        adapter_item=setting.adapter_item,
        adapter_dropout=setting.lora_dropout,
        dora=setting.method == "dora",
        train_embeddings=setting.train_embeddings,
    )


def run_of(shape: Shape, setting: TrainSetting) -> Run:
    """How the setting runs the layers."""
    every = int(setting.checkpointing) if setting.checkpointing.isdecimal() else 1
    again = () if setting.checkpointing == "none" else tuple([n % every == 0 for n in range(shape.layers)])
    return Run(
        eager=setting.attention == "eager",
        flash=setting.attention == "flash_attention_2",
        padding=setting.padding,
        checkpoint=again,
        selective=setting.checkpointing == "selective",
        offload=setting.offload_activations,
        input_gradients=setting.adapters and bool(again),
        divided=setting.accumulating,
        loss=setting.loss,
        kernels=setting.kernels == "fast",
        objective=setting.objective,
        reference=setting.reference,
        images=setting.images,
        image_size=setting.image_size,
        train_vision=setting.train_vision,
        head=setting.head or getattr(shape, "head", "lm"),
        labels=setting.labels or getattr(shape, "labels", 2),
    )
