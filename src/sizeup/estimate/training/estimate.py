"""The memory of a training step: from a model's shape and a setting to every rank's peak."""

from __future__ import annotations

import msgspec

from sizeup.estimate.training import fsdp, zero
from sizeup.estimate.training.alive import Ruler, Tensors, alive, state_terms, terms, weight_terms, widths
from sizeup.estimate.training.architectures.programs import Shape, input_sizes
from sizeup.estimate.training.architectures.shape import DecoderShape
from sizeup.estimate.training.build import Weight
from sizeup.estimate.training.footprint import Rank, TrainFootprint, TrainItem, footprint, item, phases
from sizeup.estimate.training.generation import generation_bytes
from sizeup.estimate.training.optimizers import OPTIMIZERS, Optimizer
from sizeup.estimate.training.outline import Outline
from sizeup.estimate.training.parallel import split_shape, stage_layers
from sizeup.estimate.training.pipeline import chunk_count, chunks_of, stage_of, turns
from sizeup.estimate.training.recordings import ALIKE, OpenRecording, recording_of
from sizeup.estimate.training.settings import TrainSetting
from sizeup.estimate.training.step import (
    Moment,
    Static,
    composition,
    counted_weights,
    gradient_bytes,
    kept_bytes,
    last_moment,
    managed_bytes,
    moments,
    received_bytes,
    state_bytes,
    weight_bytes,
)  # fmt: skip
from sizeup.estimate.training.tape import LABELS, Blocks, rounded
from sizeup.quantity import Term, total

#: Label of the log → component and name of its item.
_ITEMS = {
    "embedding": ("activations", "embeddings"),
    "norm": ("activations", "norms"),
    "attention": ("activations", "attention"),
    "mlp": ("activations", "feed-forward"),
    "experts": ("activations", "experts"),
    "state space": ("activations", "state space"),
    "adapter": ("activations", "adapters' inputs"),
    "residual": ("activations", "residual stream"),
    "positions": ("activations", "positions"),
    "other": ("activations", "residual stream and masks"),
    "recomputation": ("recomputation", "the layer that runs again"),
    "logits and loss": ("logits_and_loss", "logits, log-softmax and their gradients"),
    "weight copies": ("weight_copies", "weights cast, gathered or unpacked for use"),
    "communication": ("communication", "gather and reduce buffers"),
    "temporaries": ("temporaries", "what the moment computes with"),
    "gradients": ("gradients", "gradients so far"),
}


class Step(msgspec.Struct, frozen=True):
    """A recorded step of one shape and setting, whatever its batch and sequence, before it is put together for a rank.

    static: without inputs. host_bytes, disk_bytes: moved to the host, to NVMe. clipping, stepping: temporaries of the
    optimizer. rank: the one that it is of, if others hold less.
    """

    outline: Outline
    weights: list[tuple[Weight, int]]
    static: Static
    host_bytes: int
    clipping: int
    stepping: int
    formula: str
    disk_bytes: int = 0
    rank: str = ""


class Course(msgspec.Struct, frozen=True):
    """A rank's step for a batch and sequence: its phases and the highest of them.

    waiting: bytes that micro-batches in flight keep. received: from other stages, by label.
    """

    step: Step
    blocks: Blocks
    static: Static
    waiting: int
    received: dict[int, int]
    moments: list[Moment]
    best: Moment
    device: str


def training_footprint(shape: Shape, setting: TrainSetting, *, itemised: bool = False) -> TrainFootprint:
    """The footprint of one step. The setting must have passed `checks.check`. itemised: tensor by tensor."""
    courses = _courses(shape, setting)
    ranks = [_rank(course, setting) for course in courses]
    if itemised:
        ranks = [_itemised(rank, course, shape, setting) for rank, course in zip(ranks, courses, strict=True)]
    return footprint(ranks)


def training_peak(shape: Shape, setting: TrainSetting) -> int:
    """The peak of the worst rank alone, for searches."""
    return max([course.best.peak for course in _courses(shape, setting)])


def _courses(shape: Shape, setting: TrainSetting) -> list[Course]:
    """How the memory of every rank that differs goes up and down."""
    made, amounts = recording_of(shape, setting)
    blocks = made.blocks(amounts)
    inputs = sum(map(rounded, input_sizes(shape, setting)))
    stages, count = setting.pipeline_parallel, setting.world
    if stages == 1:
        device = f"each of {count} devices" if count > 1 else "the device"
        course = _course(_step(made, amounts, setting), setting, blocks, inputs, device)
        return [_generating(course, generation_bytes(shape, setting))]
    stream = rounded(stream_bytes(made.shape, setting))
    return [_piped(shape, setting, rank, inputs, stream) for rank in range(stages)]


def _piped(shape: Shape, setting: TrainSetting, rank: int, inputs: int, stream: int) -> Course:
    """The highest course of a pipeline's rank. inputs, stream: bytes of a micro-batch.

    Buffers that stages receive into are there for every micro-batch; the first chunk's log brings one itself. In
    1f1b the gradient that was sent last is held until the next is.
    """
    chunks, stages = chunks_of(setting, rank), setting.pipeline_parallel * chunk_count(setting)
    layers = [stage_layers(shape.layers, stages, chunk) for chunk in chunks]
    device = f"stage {rank + 1} of {setting.pipeline_parallel}"
    ends = (0 in chunks) + (stages - 1 in chunks)
    received = [(chunk > 0) + (chunk < stages - 1) for chunk in chunks]
    found: list[Course] = []
    for turn in turns(setting, rank):
        given = msgspec.structs.replace(setting, accumulating=setting.accumulating or turn.later, keeps_outputs=True)
        made, amounts = recording_of(shape, given)
        blocks = made.blocks(amounts)
        steps = [_step(made, amounts, given, part) for part in layers]
        kept = [kept_bytes(step.outline, blocks) for step in steps]
        waiting = sum(count * size for count, size in zip(turn.waiting, kept, strict=True))
        sent = turn.later and rank > 0 and setting.schedule == "1f1b"
        buffers = setting.micro_batches * sum(received) - (chunks[turn.chunk] == 0) + sent
        step = _together(steps, turn.chunk, buffers * stream)
        held = setting.micro_batches * inputs // 2 * ends
        found.append(_course(step, given, blocks, held, device, waiting))
    return max(found, key=lambda course: course.best.peak)


def _together(steps: list[Step], chunk: int, buffers: int) -> Step:
    """A chunk's step on a rank that holds other chunks, too. buffers: for what other ranks send."""
    sums = {name: sum(getattr(step.static, name) for step in steps) for name in Static.__struct_fields__}
    sums["buckets"] += buffers
    return msgspec.structs.replace(
        steps[chunk],
        weights=[weight for step in steps for weight in step.weights],
        static=Static(**sums),
        host_bytes=sum(step.host_bytes for step in steps),
        disk_bytes=sum(step.disk_bytes for step in steps),
        clipping=sum(step.clipping for step in steps),
        stepping=sum(step.stepping for step in steps),
    )


def stream_bytes(shape: Shape, setting: TrainSetting) -> int:
    """What passes from one stage to the next: a number of the hidden size for each token of a micro-batch."""
    tokens = setting.sequences * setting.sequence // setting.context_parallel
    ways = setting.tensor_parallel if setting.sequence_parallel else 1
    return shape.hidden * tokens * setting.compute_item // ways


def _generating(course: Course, size: int) -> Course:
    """The course with the phase before it that writes what is scored. size: of what that takes; 0 without one."""
    if not size:
        return course
    moment = Moment("generation", "completions", course.static.total + size, 0, 0, backward=False)
    best = max(course.best, moment, key=lambda found: found.peak)
    return msgspec.structs.replace(course, moments=[*course.moments, moment], best=best)


def recorded(shape: Shape, setting: TrainSetting) -> Step:
    """The step of a shape and setting that isn't a pipeline's."""
    return _step(*recording_of(shape, setting), setting)


def _step(made: OpenRecording, amounts: list[int], setting: TrainSetting, layers: range | None = None) -> Step:
    """A recording as the setting has it on one rank; kept beside the recording. layers: those of a pipeline stage."""
    key = (msgspec.structs.replace(setting, batch=1, sequence=1, target_sequence=0), layers)
    found = made.made.get(key)
    if not isinstance(found, Step):
        if len(made.made) >= ALIKE * (setting.pipeline_parallel + 1):
            made.made.clear()
        found = made.made[key] = _made(made, amounts, setting, layers)
    return found


def _made(made: OpenRecording, amounts: list[int], setting: TrainSetting, layers: range | None) -> Step:
    """The step of a recording.

    In a pipeline FSDP2 gathers a stage's weights once and reduces its gradients once, after the last micro-batch
    (torch 2.13, `distributed/pipelining/stage.py`): both stay whole until then, gradients in the type of the reduction.
    """
    recording = made.sized(amounts)
    if layers is not None:
        recording = stage_of(recording, layers, made.shape.layers)
    weights = counted_weights(recording)
    optimizer = OPTIMIZERS[setting.optimizer]
    asked = zero.zero_of(setting)
    if asked is not None:
        return _divided(
            made.shape, zero.divided(asked, recording, weights, optimizer, made.blocks(amounts)), weights, setting
        )
    whole = 0
    if setting.gathers:
        piped = setting.pipeline_parallel > 1 and setting.micro_batches > 1
        policy = fsdp.Policy(
            setting.data_parallel // setting.replicas,
            setting.weight_item,
            4 if setting.weight_item == 4 or setting.compute_item != setting.weight_item else setting.weight_item,
            setting.reshard and not piped,
            setting.accumulating or piped,
        )
        if piped:
            whole = gradient_bytes([(msgspec.structs.replace(w, item=policy.reduce_item), c) for w, c in weights])
        recording, weights = fsdp.sharded(recording, policy), fsdp.shards(weights, policy)
    static, host = _static(made.shape, setting, weights, optimizer, whole)
    trained = [(weight, count) for weight, count in weights if weight.trains]
    clipping = clip_bytes(trained) if setting.gradient_clip else 0
    stepping = _stepping(setting, optimizer, trained)
    outline = Outline(recording) if setting.gathers or layers is not None else made.outline
    return Step(outline, weights, static, host, clipping, stepping, _weights_formula(weights))


def _divided(shape: Shape, made: zero.Divided, weights: list[tuple[Weight, int]], setting: TrainSetting) -> Step:
    """The step of ZeRO's fullest rank; DeepSpeed clips the parts as they are."""
    static = msgspec.structs.replace(
        made.static,
        buffers=sum(map(rounded, shape.buffers)),
        reference=weight_bytes(weights) if setting.has_reference else 0,
    )
    rank = f"rank {made.rank + 1} of {setting.data_parallel}, the fullest" if setting.pipeline_parallel == 1 else ""
    formula = _weights_formula(weights)
    return Step(
        Outline(made.recording), weights, static, made.host_bytes, 0, made.stepping, formula, made.disk_bytes, rank
    )


def _course(step: Step, setting: TrainSetting, blocks: Blocks, inputs: int, device: str, waiting: int = 0) -> Course:
    """The phases of a rank's step. waiting: what micro-batches in flight keep."""
    static = msgspec.structs.replace(step.static, inputs=inputs)
    outline = step.outline
    received = received_bytes(outline, blocks) if setting.pipeline_parallel > 1 else {}
    found, level = moments(outline, blocks, static.total + waiting + sum(received.values()))
    if setting.gradient_clip:
        found.append(Moment("gradient clipping", "norms", level + step.clipping, 0, 0, True))
    found.append(Moment("optimizer step", "optimizer", level + step.stepping, 0, 0, True))
    best = max(found, key=lambda moment: moment.peak)
    return Course(step, blocks, static, waiting, received, found, best, step.rank or device)


def _rank(course: Course, setting: TrainSetting) -> Rank:
    """The rank with everything that is alive at its peak."""
    step, best, outline = course.step, course.best, course.step.outline
    final = best.phase in {"optimizer step", "gradient clipping"}
    sums = composition(outline, course.blocks, last_moment(outline) if final else best)
    for label, size in course.received.items():
        sums[label] = sums.get(label, 0) + size
    items = _items(setting, course.static, best, course.waiting, sums, step.formula)
    found = phases(course.moments)
    return Rank(course.device, best.peak, best.phase, items, found, step.host_bytes, step.disk_bytes)


def _itemised(rank: Rank, course: Course, shape: Shape, setting: TrainSetting) -> Rank:
    """The rank with items whose derivation names the tensors that are alive at its peak."""
    local = split_shape(shape, setting) if isinstance(shape, DecoderShape) else shape
    step, best = course.step, course.best
    final = best.phase in {"optimizer step", "gradient clipping"}
    found = alive(step.outline, course.blocks, last_moment(step.outline) if final else best)
    by_item: dict[tuple[str, str], list[Tensors]] = {}
    for tensors in found:
        by_item.setdefault(_ITEMS[LABELS[tensors.label]], []).append(tensors)
    ruler = Ruler(setting, widths(local, setting.lora_rank), step.weights)
    parts = {key: terms(tensors, ruler) for key, tensors in by_item.items()}
    parts["weights", "weights"] = weight_terms(step.weights)
    parts["optimizer_states", _states(setting)] = state_terms(step.weights, OPTIMIZERS[setting.optimizer])
    return msgspec.structs.replace(rank, items=tuple([_with_parts(entry, parts) for entry in rank.items]))


def _with_parts(entry: TrainItem, parts: dict[tuple[str, str], list[Term]]) -> TrainItem:
    """The item derived from its parts, where they are all of it."""
    whole = total(entry.name, parts.get((entry.component, entry.name), []), entry.derivation.formula)
    return msgspec.structs.replace(entry, derivation=whole) if whole.parts and whole.value == entry.bytes else entry


def _stepping(setting: TrainSetting, optimizer: Optimizer, trained: list[tuple[Weight, int]]) -> int:
    """What the optimizer's step takes while it runs."""
    stepped = [(msgspec.structs.replace(w, item=4), c) for w, c in trained] if setting.master_item else trained
    stepping = 0 if setting.offload_optimizer else optimizer.step(stepped)
    if setting.master_item:
        stepping += sum(count * rounded(4 * weight.n) for weight, count in trained)
    return stepping + (own_rows(trained) if setting.tensor_parallel > 1 else 0)


def own_rows(trained: list[tuple[Weight, int]]) -> int:
    """A rank's rows of the embedding's gradient, which is whole: the optimizer is given a copy of them."""
    return sum(count * rounded(weight.n * weight.item) for weight, count in trained if weight.name == "embed_tokens")


def clip_bytes(trained: list[tuple[Weight, int]]) -> int:
    """`clip_grad_norm_` with foreach: a norm for each gradient, and all of them stacked."""
    tensors = sum(count for _, count in trained)
    return 512 * tensors + rounded(4 * tensors) + 4 * 512


def _static(
    shape: Shape, setting: TrainSetting, weights: list[tuple[Weight, int]], optimizer: Optimizer, gathered: int
) -> tuple[Static, int]:
    """Bytes before the step on the device but its inputs, and those moved to the host.

    gathered: bytes of gradients that FSDP2 holds whole between the micro-batches of a pipeline.
    """
    trained = [(weight, count) for weight, count in weights if weight.trains]
    as_master = [(msgspec.structs.replace(w, item=4), c) for w, c in trained] if setting.master_item else trained
    states = state_bytes(as_master, optimizer)
    masters = gradient_bytes(as_master) if setting.master_item else 0
    gradients = gathered or (gradient_bytes(trained) if setting.accumulating else 0)
    held = weight_bytes(weights)
    buckets = 0
    if setting.replicated:
        buckets = sum(count * weight.n * weight.item for weight, count in trained)
        gradients = 0 if setting.bucket_views else gradients
    host = managed_bytes(as_master, optimizer) + (held if setting.offload_weights else 0)
    if setting.offload_optimizer:
        host += states + masters
    return Static(
        weights=0 if setting.offload_weights else held,
        buffers=sum(map(rounded, shape.buffers)),
        states=0 if setting.offload_optimizer else states,
        inputs=0,
        gradients=gradients,
        masters=0 if setting.offload_optimizer else masters,
        reference=held if setting.has_reference else 0,
        buckets=buckets,
    ), host


def _items(
    setting: TrainSetting, static: Static, best: Moment, waiting: int, sums: dict[int, int], formula: str
) -> tuple[TrainItem, ...]:
    """Everything alive at the peak, largest first; the sum is the peak to the byte."""
    items = [
        item("weights", "weights", static.weights, formula),
        item("optimizer_states", _states(setting), static.states, "of every weight that trains"),
        item("master_copies", "fp32 copies of the weights", static.masters, "4 bytes a trained weight"),
        item("reference_model", "frozen reference", static.reference, "the weights once more, without gradients"),
        item("inputs_and_buffers", "token ids, labels, buffers", static.inputs + static.buffers, "8 bytes an id"),
        item("gradients", "gradients of earlier micro-batches", static.gradients, "one of every weight that trains"),
        item(
            "communication",
            "buckets and buffers",
            static.buckets,
            "what gradients pass through, or stages receive into",
        ),
        item("activations", "micro-batches in flight", waiting, "what the stage keeps of each"),
    ]
    by_component: dict[tuple[str, str], int] = {}
    for label, size in sums.items():
        key = _ITEMS[LABELS[label]]
        by_component[key] = by_component.get(key, 0) + size
    items += [item(component, name, size, f"alive at {best.phase}") for (component, name), size in by_component.items()]
    rest = best.peak - sum(entry.bytes for entry in items)
    if rest:
        items.append(
            item("temporaries", f"{best.phase}: what it computes with", rest, f"temporaries of {best.segment}")
        )
    return tuple(sorted((entry for entry in items if entry.bytes), key=lambda entry: -entry.bytes))


def _states(setting: TrainSetting) -> str:
    return f"{setting.optimizer} states"


def _weights_formula(weights: list[tuple[Weight, int]]) -> str:
    packed = sum(count for weight, count in weights if weight.item != 4 and len(weight.sizes) > 1)
    kinds = sorted({weight.item for weight, _ in weights})
    sizes = " and ".join(f"{kind} bytes" for kind in kinds)
    return f"Σ elements × {sizes}" + (f", {packed} matrices in NF4" if packed else "")
