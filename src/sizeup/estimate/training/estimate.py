"""The memory of a training step: from a model's shape and a setting to every rank's peak."""

from __future__ import annotations

import msgspec

from sizeup.errors import BadInput
from sizeup.estimate.training import fsdp, zero
from sizeup.estimate.training.architectures.programs import Shape, input_sizes, segments
from sizeup.estimate.training.architectures.shape import DecoderShape
from sizeup.estimate.training.build import Build, Method, Weight
from sizeup.estimate.training.footprint import Rank, TrainFootprint, TrainItem, footprint, item, phases
from sizeup.estimate.training.optimizers import OPTIMIZERS, Optimizer
from sizeup.estimate.training.parallel import in_flight, split_shape, stage_layers
from sizeup.estimate.training.program import NothingTrains, Recording, record
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.settings import TrainSetting
from sizeup.estimate.training.step import (
    Moment,
    Static,
    composition,
    counted_weights,
    gradient_bytes,
    managed_bytes,
    moments,
    state_bytes,
    weight_bytes,
)  # fmt: skip
from sizeup.estimate.training.tape import (
    COMMUNICATION,
    GRADIENT,
    LABELS,
    WEIGHT_COPIES,
    Tape,
    by_label,
    rounded,
)  # fmt: skip

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


#: Labels of what all micro-batches in flight share.
_SHARED = frozenset({WEIGHT_COPIES, COMMUNICATION, GRADIENT})


class Step(msgspec.Struct, frozen=True):
    """A recorded step of one shape and setting, before it is put together for a rank.

    gathered_gradients: bytes of gradients that FSDP2 holds whole between the micro-batches of a pipeline.
    """

    recording: Recording
    weights: list[tuple[Weight, int]]
    optimizer: Optimizer
    setting: TrainSetting
    shape: Shape
    gathered_gradients: int = 0


def training_footprint(shape: Shape, setting: TrainSetting) -> TrainFootprint:
    """The footprint of one step. The setting must have passed `checks.check`."""
    if setting.pipeline_parallel == 1:
        step = recorded(shape, setting)
        count = setting.world
        return footprint([_rank(step, f"each of {count} devices" if count > 1 else "the device")])
    ranks = []
    for stage in range(setting.pipeline_parallel):
        held = stage_layers(shape.layers, setting.pipeline_parallel, stage)
        step = recorded(shape, setting, held)
        ranks.append(_rank(step, f"stage {stage + 1} of {setting.pipeline_parallel}", in_flight(setting, stage)))
    return footprint(ranks)


def recorded(shape: Shape, setting: TrainSetting, layers: range | None = None) -> Step:
    """Run the step's program dry. layers: those of a pipeline stage.

    In a pipeline FSDP2 gathers a stage's weights once and reduces its gradients once, after the last micro-batch
    (torch 2.13, `distributed/pipelining/stage.py`): both stay whole until then, gradients in the type of the reduction.
    """
    local = split_shape(shape, setting) if isinstance(shape, DecoderShape) else shape
    tape = Tape(
        autocast=setting.autocast,
        accumulating=(setting.accumulating or setting.reduced_as_they_come) and not setting.gathers,
        eight_bit=setting.precision == "fp8",
    )
    tokens = setting.sequence // setting.context_parallel
    build = Build(tape, method_of(setting), setting.sequences, tokens, setting.target_sequence)
    run = run_of(local, setting)
    if isinstance(local, DecoderShape) and setting.tensor_parallel > 1 and not local.gathers_logits:
        run = msgspec.structs.replace(run, split_vocabulary=True)
    try:
        made = record(build, segments(local, run), keeps_outputs=setting.keeps_outputs)
    except NothingTrains as error:
        raise _untrained(setting, build) from error
    if layers is not None:
        made = _stage(made, layers, shape.layers)
    weights = counted_weights(made)
    whole = 0
    if setting.gathers:
        piped = setting.pipeline_parallel > 1 and setting.micro_batches > 1
        policy = fsdp.Policy(
            setting.data_parallel,
            setting.weight_item,
            4 if setting.weight_item == 4 or setting.compute_item != setting.weight_item else setting.weight_item,
            setting.reshard and not piped,
            setting.accumulating or piped,
        )
        if piped:
            whole = gradient_bytes([(msgspec.structs.replace(w, item=policy.reduce_item), c) for w, c in weights])
        made, weights = fsdp.sharded(made, policy), fsdp.shards(weights, policy)
    return Step(made, weights, OPTIMIZERS[setting.optimizer], setting, local, whole)


def _untrained(setting: TrainSetting, build: Build) -> BadInput:
    """What to say when no weight wants a gradient: adapters that name no module of the model."""
    names = dict.fromkeys(name.rpartition("/")[2].rpartition(".")[2] for name in build.modules)
    return BadInput(
        f"lora_targets {','.join(setting.lora_targets)} name no module of this model, so nothing would train",
        hint=f"its linear modules are {', '.join(names)}",
    )


def method_of(setting: TrainSetting) -> Method:
    """How the setting holds and trains weights."""
    return Method(
        item=setting.compute_item,
        train=not setting.adapters,
        four_bit=setting.method == "qlora",
        double_quantization=setting.double_quantization,
        rank=setting.lora_rank if setting.adapters else 0,
        targets=setting.lora_targets,
        adapter_item=4 if setting.adapter_precision == "fp32" else 2,
        adapter_dropout=setting.lora_dropout,
        dora=setting.method == "dora",
        train_embeddings=setting.train_embeddings,
    )


def run_of(shape: Shape, setting: TrainSetting) -> Run:
    """How the setting runs the layers."""
    every = int(setting.checkpointing) if setting.checkpointing.isdecimal() else 1
    again = () if setting.checkpointing == "none" else tuple(n % every == 0 for n in range(shape.layers))
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
    )


def _stage(made: Recording, layers: range, count: int) -> Recording:
    """Only the segments of a stage: its layers, the ends where they belong."""
    seen = -1
    order = []
    for place, key in enumerate(made.order):
        if made.pieces[key].layer:
            seen += 1
            if seen in layers:
                order.append(key)
        elif (place == 0 and 0 in layers) or (place > 0 and count - 1 in layers):
            order.append(key)
    return Recording({key: made.pieces[key] for key in dict.fromkeys(order)}, tuple(order))


def _rank(step: Step, device: str, flights: int = 1) -> Rank:
    setting = step.setting
    static, host = _static(step)
    kept = kept_bytes(step.recording) if flights > 1 else 0
    received = received_bytes(step.recording) if setting.pipeline_parallel > 1 else {}
    waiting = (flights - 1) * kept + sum(received.values())
    found, level = moments(step.recording, static.total + waiting)
    trained = [(weight, count) for weight, count in step.weights if weight.trains]
    if setting.gradient_clip:
        found.append(Moment("gradient clipping", "norms", level + clip_bytes(trained), 0, 0, True))
    stepping = 0 if setting.offload_optimizer else step.optimizer.step(trained)
    if setting.master_item:
        wide = sum(count * rounded(4 * weight.n) for weight, count in trained)
        stepping += zero.share(wide, setting.data_parallel) if setting.sharding in {"zero1", "zero2"} else wide
    if setting.tensor_parallel > 1:
        stepping += own_rows(trained)
    found.append(Moment("optimizer step", "optimizer", level + stepping, 0, 0, True))
    best = max(found, key=lambda moment: moment.peak)
    items = _items(step, static, best, waiting - sum(received.values()), received)
    return Rank(device, best.peak, best.phase, items, phases(found), host)


def kept_bytes(recording: Recording) -> int:
    """What a forward pass leaves for its backward pass: of each micro-batch in flight, unlike gathered weights."""
    sums: dict[int, int] = {}
    for key in recording.order:
        for label, size in by_label(recording.pieces[key].forward).items():
            sums[label] = sums.get(label, 0) + size
    return max(0, sum(size for label, size in sums.items() if label not in _SHARED))


def received_bytes(recording: Recording) -> dict[int, int]:
    """What a pipeline stage gives back without having made it, by label: its input, its output's gradient, tables."""
    sums: dict[int, int] = {}
    for key in recording.order:
        piece = recording.pieces[key]
        for log in (piece.forward, piece.release, piece.backward):
            for label, size in by_label(log).items():
                sums[label] = sums.get(label, 0) + size
    return {label: -size for label, size in sums.items() if size < 0}


def own_rows(trained: list[tuple[Weight, int]]) -> int:
    """A rank's rows of the embedding's gradient, which is whole: the optimizer is given a copy of them."""
    return sum(count * rounded(weight.n * weight.item) for weight, count in trained if weight.name == "embed_tokens")


def clip_bytes(trained: list[tuple[Weight, int]]) -> int:
    """`clip_grad_norm_` with foreach: a norm for each gradient, and all of them stacked."""
    tensors = sum(count for _, count in trained)
    return 512 * tensors + rounded(4 * tensors) + 4 * 512


def _static(step: Step) -> tuple[Static, int]:
    """Bytes before the step on the device, and those moved to the host."""
    setting, weights = step.setting, step.weights
    trained = [(weight, count) for weight, count in weights if weight.trains]
    as_master = [(msgspec.structs.replace(w, item=4), c) for w, c in trained] if setting.master_item else trained
    states = state_bytes(as_master, step.optimizer)
    masters = gradient_bytes(as_master) if setting.master_item else 0
    gradients = step.gathered_gradients or (gradient_bytes(trained) if setting.accumulating else 0)
    held = weight_bytes(weights)
    buckets = 0
    if setting.replicated:
        buckets = sum(count * weight.n * weight.item for weight, count in trained)
        gradients = 0 if setting.bucket_views else gradients
    inputs = sum(map(rounded, input_sizes(step.shape, setting)))
    owners = setting.data_parallel if setting.sharding in {"zero1", "zero2"} else 1
    host = zero.share(managed_bytes(as_master, step.optimizer), owners) + (held if setting.offload_weights else 0)
    if setting.offload_optimizer:
        host += zero.share(states + masters, owners)
    static = Static(
        weights=0 if setting.offload_weights else held,
        buffers=sum(map(rounded, step.shape.buffers)),
        states=0 if setting.offload_optimizer else states,
        inputs=inputs,
        gradients=gradients,
        masters=0 if setting.offload_optimizer else masters,
        reference=held if setting.has_reference else 0,
        buckets=buckets,
    )
    if setting.sharding in {"zero1", "zero2"}:
        static = zero.partitioned(
            static, gradient_bytes(trained), setting.weight_item, int(setting.sharding[-1]), setting.data_parallel
        )
    return static, host


def _items(step: Step, static: Static, best: Moment, waiting: int, received: dict[int, int]) -> tuple[TrainItem, ...]:
    """Everything alive at the peak, largest first; the sum is the peak to the byte."""
    items = [
        item("weights", "weights", static.weights, _weights_formula(step)),
        item("optimizer_states", f"{step.setting.optimizer} states", static.states, "of every weight that trains"),
        item("master_copies", "fp32 copies of the weights", static.masters, "4 bytes a trained weight"),
        item("reference_model", "frozen reference", static.reference, "the weights once more, without gradients"),
        item("inputs_and_buffers", "token ids, labels, buffers", static.inputs + static.buffers, "8 bytes an id"),
        item("gradients", "gradients of earlier micro-batches", static.gradients, "one of every weight that trains"),
        item("communication", "gradient buckets", static.buckets, "gradients pass through buckets"),
        item("activations", "micro-batches in flight", waiting, "what the stage keeps of each"),
    ]
    by_component: dict[tuple[str, str], int] = {}
    final = best.phase in {"optimizer step", "gradient clipping"}
    sums = composition(step.recording, last_moment(step.recording) if final else best)
    for label, size in received.items():
        sums[label] = sums.get(label, 0) + size
    for label, size in sums.items():
        key = _ITEMS[LABELS[label]]
        by_component[key] = by_component.get(key, 0) + size
    setting = step.setting
    items += [
        item(component, name, size, f"{name} at {best.phase}, {setting.sequences} × {setting.sequence} tokens")
        for (component, name), size in by_component.items()
    ]
    rest = best.peak - sum(entry.bytes for entry in items)
    if rest:
        items.append(item("temporaries", f"{best.phase}: what it computes with", rest, "temporaries of the optimizer"))
    return tuple(sorted((entry for entry in items if entry.bytes), key=lambda entry: -entry.bytes))


def last_moment(recording: Recording) -> Moment:
    """The end of the backward pass."""
    first = recording.pieces[recording.order[0]]
    return Moment("end", "", 0, 0, len(first.backward), backward=True)


def _weights_formula(step: Step) -> str:
    packed = sum(count for weight, count in step.weights if weight.item != 4 and len(weight.sizes) > 1)
    kinds = sorted({weight.item for weight, _ in step.weights})
    sizes = " and ".join(f"{kind} bytes" for kind in kinds)
    return f"Σ elements × {sizes}" + (f", {packed} matrices in NF4" if packed else "")
