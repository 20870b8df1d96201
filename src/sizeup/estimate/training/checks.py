"""Settings that contradict each other or the model: an error that names both and the way out."""

from __future__ import annotations

from sizeup.errors import BadInput
from sizeup.estimate.training.architectures.programs import Shape
from sizeup.estimate.training.architectures.shape import DecoderShape
from sizeup.estimate.training.heads import HEADS
from sizeup.estimate.training.image_checks import check_images
from sizeup.estimate.training.method_checks import check_methods
from sizeup.estimate.training.optimizers import OPTIMIZERS
from sizeup.estimate.training.settings import (
    ADAPTER_PRECISIONS,
    ATTENTIONS,
    KERNELS,
    LOSSES,
    METHODS,
    OBJECTIVES,
    PRECISIONS,
    SCHEDULES,
    SHARDINGS,
    TrainSetting,
)  # fmt: skip

_CHOICES = {
    "method": METHODS, "precision": PRECISIONS, "objective": OBJECTIVES, "sharding": SHARDINGS,
    "attention": ATTENTIONS, "loss": LOSSES, "kernels": KERNELS, "schedule": SCHEDULES, "optimizer": tuple(OPTIMIZERS),
    "adapter_precision": ADAPTER_PRECISIONS, "head": ("", *HEADS),
}  # fmt: skip
_POSITIVE = (
    "batch", "sequence", "lora_rank", "data_parallel", "tensor_parallel", "pipeline_parallel", "micro_batches",
    "expert_parallel", "context_parallel", "reduce_bucket", "replicas",
)  # fmt: skip
MOST = 2**40
#: Rotary positions run beyond the context, and fine-tuning for longer contexts does so; a learned table doesn't.
STRETCH = 4


def check(setting: TrainSetting, shape: Shape, context: int | None) -> None:
    """Raise BadInput for a setting that can't be."""
    for name, known in _CHOICES.items():
        value = getattr(setting, name)
        if value not in known:
            raise BadInput(f"{name} {value!r} isn't known", hint=f"one of {', '.join(known)}")
    for name in _POSITIVE:
        if not 1 <= getattr(setting, name) < MOST:
            raise BadInput(f"{name} is {getattr(setting, name)}; it must be 1 or more", hint=f"give {name}=1 or more")
    for name in ("target_sequence", "labels"):
        if not 0 <= getattr(setting, name) < MOST:
            raise BadInput(f"{name} is {getattr(setting, name)}", hint=f"give {name}=1 or more, or leave it out")
    if setting.head and setting.head != getattr(shape, "head", "lm") and not hasattr(shape, "head"):
        raise BadInput(f"head {setting.head!r} isn't estimated for this architecture", hint="leave head out")
    _check_checkpointing(setting)
    _check_method(setting, shape)
    check_methods(setting, shape)
    _check_sequence(setting, shape, context)
    check_images(setting, shape)
    _check_parallel(setting, shape)


def _check_checkpointing(setting: TrainSetting) -> None:
    value = setting.checkpointing
    if value not in {"none", "full", "selective"} and not (value.isdecimal() and int(value) >= 1):
        raise BadInput(
            f"checkpointing {value!r} isn't known", hint="none, full, selective, or 2 for every second layer"
        )
    if setting.offload_activations and value == "none":
        raise BadInput(
            "offload_activations moves what checkpointing keeps, but checkpointing is none",
            hint="set checkpointing=full, or offload_activations=False",
        )


def _check_method(setting: TrainSetting, shape: Shape) -> None:
    if setting.adapters and setting.lora_rank > shape.hidden:
        raise BadInput(
            f"lora_rank {setting.lora_rank} is above the model's hidden size {shape.hidden}",
            hint=f"set lora_rank to {shape.hidden} or less, or method=full",
        )
    if setting.adapters and setting.precision == "bf16-fp32-master":
        raise BadInput(
            f"precision bf16-fp32-master copies trained weights, but method {setting.method} freezes them",
            hint="set precision=bf16, or method=full",
        )
    if setting.attention == "flash_attention_2" and setting.precision == "fp32" and not setting.gathers:
        raise BadInput(
            "attention flash_attention_2 needs 16-bit numbers, but precision is fp32",
            hint="set attention=sdpa, or precision=bf16",
        )
    if not 0 <= setting.lora_dropout < 1:
        raise BadInput(f"lora_dropout is {setting.lora_dropout}", hint="give a share from 0 to below 1")
    if setting.offload_optimizer and OPTIMIZERS[setting.optimizer].paged:
        raise BadInput(
            f"offload_optimizer moves states to the host, where optimizer {setting.optimizer} keeps them anyway",
            hint="drop offload_optimizer, or set optimizer=adam8bit",
        )
    if setting.offload_optimizer and setting.optimizer == "sgd":
        raise BadInput(
            "offload_optimizer has nothing to move: optimizer sgd keeps no state", hint="drop offload_optimizer"
        )


def _check_sequence(setting: TrainSetting, shape: Shape, context: int | None) -> None:
    heard = getattr(shape, "audio", None) is not None and setting.target_sequence > 0
    for name in ("target_sequence",) if heard else ("sequence", "target_sequence"):
        tokens = getattr(setting, name)
        if context is not None and tokens > context * (1 if _has_position_table(shape) else STRETCH):
            raise BadInput(
                f"{name} {tokens:,} is beyond the model's context of {context:,}",
                hint=f"set {name} to {context:,} or less, or extend max_position_embeddings in the configuration",
            )
    if setting.sequence % setting.context_parallel:
        raise BadInput(
            f"context_parallel {setting.context_parallel} doesn't divide sequence {setting.sequence}",
            hint="make the sequence a multiple of context_parallel",
        )


def _has_position_table(shape: Shape) -> bool:
    return bool(getattr(shape, "position_table", 0) or getattr(shape, "positions", 0))


def beyond_context(setting: TrainSetting, context: int | None) -> str:
    """A note for a sequence that is longer than what the model was made for; empty otherwise."""
    if context is None or setting.sequence <= context:
        return ""
    return f"sequence {setting.sequence:,} is beyond the model's context of {context:,}: positions are extrapolated"


def _check_parallel(setting: TrainSetting, shape: Shape) -> None:
    ways = setting.tensor_parallel
    for name, count in (("attention heads", shape.head_count), ("feed-forward width", shape.ffn)):
        if count % ways:
            raise BadInput(
                f"tensor_parallel {ways} doesn't divide the model's {count} {name}",
                hint=f"set tensor_parallel to a divisor of {count}",
            )
    if setting.sequence_parallel and ways == 1:
        raise BadInput(
            "sequence_parallel splits what tensor_parallel leaves whole, but tensor_parallel is 1",
            hint="set tensor_parallel=2 or more, or sequence_parallel=False",
        )
    if setting.sequence_parallel and (setting.sequence // setting.context_parallel) % ways:
        raise BadInput(
            f"sequence_parallel over tensor_parallel {ways} doesn't divide sequence {setting.sequence}",
            hint=f"make the sequence a multiple of {ways}",
        )
    if setting.pipeline_parallel > shape.layers:
        raise BadInput(
            f"pipeline_parallel {setting.pipeline_parallel} is more than the model's {shape.layers} layers",
            hint=f"set pipeline_parallel to {shape.layers} or less",
        )
    if setting.schedule == "interleaved" and setting.pipeline_parallel > 1:
        _check_interleaved(setting, shape.layers)
    if setting.replicas > 1 and (setting.sharding != "fsdp" or setting.data_parallel % setting.replicas):
        raise BadInput(
            f"replicas {setting.replicas} are groups of data_parallel ranks under fsdp, but data_parallel is "
            f"{setting.data_parallel} and sharding {setting.sharding}",
            hint="make data_parallel a multiple of replicas, with sharding=fsdp",
        )
    if setting.sharding != "none" and setting.data_parallel == 1:
        raise BadInput(
            f"sharding {setting.sharding} spreads over data_parallel ranks, but data_parallel is 1",
            hint="set data_parallel to the number of devices, or sharding=none",
        )
    if setting.sharding in {"zero2", "zero3"} and setting.pipeline_parallel > 1:
        raise BadInput(
            f"sharding {setting.sharding} splits gradients that pipeline_parallel {setting.pipeline_parallel} adds up "
            "over micro-batches, and DeepSpeed refuses both together",
            hint="set sharding=zero1 or fsdp, or pipeline_parallel=1",
        )
    _check_experts(setting, shape)
    _check_offload(setting)


def _check_interleaved(setting: TrainSetting, layers: int) -> None:
    """Two chunks of layers a stage, and micro-batches in equal rounds, as torch asks."""
    stages, micro = setting.pipeline_parallel, setting.micro_batches
    if 2 * stages > layers:
        raise BadInput(
            f"schedule interleaved needs two layers for each of {stages} stages, but the model has {layers} layers",
            hint="set schedule=1f1b, or fewer stages",
        )
    if micro % max(1, micro // stages):
        raise BadInput(
            f"schedule interleaved can't make equal rounds of {micro} micro_batches on {stages} stages",
            hint=f"set micro_batches to a multiple of {stages}",
        )


def _check_offload(setting: TrainSetting) -> None:
    """What only DeepSpeed's stage 3 can: weights away from the device in ZeRO, anything on NVMe."""
    for name in ("offload_optimizer", "offload_weights"):
        value = getattr(setting, name)
        if value not in {False, True, "", "cpu", "nvme"}:
            raise BadInput(f"{name} {value!r} isn't known", hint=f"set {name}=cpu or nvme, or leave it out")
        if value == "nvme" and setting.sharding != "zero3":
            raise BadInput(
                f"{name} is nvme, which DeepSpeed does in stage 3, but sharding is {setting.sharding}",
                hint=f"set sharding=zero3, or {name}=cpu",
            )
    if setting.offload_weights and setting.sharding in {"zero1", "zero2"}:
        raise BadInput(
            f"offload_weights needs parts of weights, but sharding {setting.sharding} keeps them whole",
            hint="set sharding=zero3, or drop offload_weights",
        )


def _check_experts(setting: TrainSetting, shape: Shape) -> None:
    ways = setting.expert_parallel
    if ways == 1:
        return
    experts = shape.mixture.experts if isinstance(shape, DecoderShape) and shape.mixture is not None else 0
    if not experts:
        raise BadInput(f"expert_parallel is {ways}, but the model has no experts", hint="set expert_parallel=1")
    if experts % ways:
        raise BadInput(
            f"expert_parallel {ways} doesn't divide the model's {experts} experts",
            hint=f"set expert_parallel to a divisor of {experts}",
        )


def check_device(setting: TrainSetting, device: str, compute: dict[str, int]) -> None:
    """Raise BadInput for a number format that a device doesn't compute in."""
    wanted = "fp8" if setting.precision == "fp8" else "bf16" if "bf16" in setting.precision else ""
    if wanted and compute and wanted not in compute:
        raise BadInput(
            f"precision {setting.precision} needs {wanted}, which {device} doesn't compute in",
            hint="set precision=fp16-autocast-fp32-weights" if wanted == "bf16" else "set precision=bf16",
        )
