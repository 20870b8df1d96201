"""What `train` is asked and what it answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from sizeup.estimate.training.footprint import ProcessBytes, TrainFootprint
from sizeup.estimate.training.settings import TrainSetting

Targets = str | tuple[str, ...] | None
Offload = bool | Literal["cpu", "nvme"]


class TrainRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which model, and how it is trained."""

    model: Annotated[str | dict[str, Any], Meta(description="A catalogue name, Hub id, path, shape.")] = ""
    method: Annotated[str, Meta(description="full, lora, qlora, dora.")] = "full"
    precision: Annotated[
        str, Meta(description="fp32, bf16, fp16, bf16-autocast-fp32-weights, bf16-fp32-master, fp8.")
    ] = "bf16"
    optimizer: Annotated[str, Meta(description="adamw_fused, adamw_foreach, adamw_loop, adam8bit, adafactor …")] = (
        "adamw_fused"
    )
    batch: Annotated[int, Meta(description="Sequences of a micro-batch on one device.")] = 1
    sequence: Annotated[int, Meta(description="Tokens of a sequence.")] = 1024
    target_sequence: Annotated[int, Meta(description="Tokens a decoder writes, not an encoder; 0: as many.")] = 0
    head: Annotated[
        str, Meta(description="lm, classification, tokens, question, embedding; default: the configuration's.")
    ] = ""
    labels: Annotated[int, Meta(description="Labels of a classifier; 0: the configuration's.")] = 0
    checkpointing: Annotated[str | bool, Meta(description="none, full, selective, or n for every n-th layer.")] = "none"
    attention: Annotated[str, Meta(description="sdpa, eager, flash_attention_2.")] = "sdpa"
    loss: Annotated[str, Meta(description="standard, narrow (16-bit), chunked, fused (Liger), tiled.")] = "standard"
    kernels: Annotated[str, Meta(description="Scans: none (in Python) or fast (mamba-ssm, causal-conv1d).")] = "none"
    lora_rank: Annotated[int | None, Meta(description="Rank of the adapters.")] = None
    lora_targets: Annotated[Targets, Meta(description="Modules: q_proj,v_proj; default: all linear ones.")] = None
    modules_to_save: Annotated[Targets, Meta(description="Tables trained whole beside adapters: lm_head.")] = None
    lora_dropout: Annotated[float, Meta(description="Dropout before an adapter.")] = 0.0
    adapter_precision: Annotated[str | None, Meta(description="fp32 (peft's default) or bf16.")] = None
    double_quantization: Annotated[bool, Meta(description="QLoRA: quantize the scales, too.")] = True
    four_bit: Annotated[str, Meta(description="QLoRA's layers: plain, bitsandbytes, gptq.")] = "plain"
    images: Annotated[int, Meta(description="Images in each sequence, their tokens among its own; 0: text alone.")] = 0
    image_size: Annotated[int, Meta(description="Pixels on an image's side; 0: what the tower is made for.")] = 0
    train_vision: Annotated[bool, Meta(description="Whether the vision tower trains, or is frozen.")] = True
    train_embeddings: Annotated[bool, Meta(description="Whether embeddings train.")] = True
    padding: Annotated[bool, Meta(description="The batch is padded, or packed without flash attention.")] = False
    accumulating: Annotated[bool, Meta(description="Gradients of earlier micro-batches are held.")] = False
    keeps_outputs: Annotated[bool, Meta(description="The loop holds the logits through the backward pass.")] = False
    gradient_clip: Annotated[bool, Meta(description="Gradients are clipped by their norm.")] = False
    objective: Annotated[str, Meta(description="causal, sft, dpo, grpo.")] = "causal"
    reference: Annotated[bool, Meta(description="DPO, GRPO: a frozen reference model is held and run.")] = True
    data_parallel: Annotated[int, Meta(description="Data-parallel devices.")] = 1
    replicas: Annotated[int, Meta(description="FSDP2: groups that each hold all shards (HSDP).")] = 1
    sharding: Annotated[str, Meta(description="none, ddp, zero1, zero2, zero3, fsdp.")] = "none"
    fsdp: Annotated[int | None, Meta(description="Short for --data-parallel n --sharding fsdp.")] = None
    fsdp_reshard: Annotated[bool | None, Meta(description="FSDP2: free gathered weights after the forward pass.")] = (
        True
    )
    bucket_views: Annotated[bool, Meta(description="DDP: gradient_as_bucket_view.")] = False
    loss_parallel: Annotated[bool, Meta(description="Tensor parallel: the loss on parts of the vocabulary.")] = False
    tensor_parallel: Annotated[int, Meta(description="Devices that split heads and widths.")] = 1
    sequence_parallel: Annotated[bool, Meta(description="Split the stream along the sequence, too.")] = False
    pipeline_parallel: Annotated[int, Meta(description="Stages of layers.")] = 1
    micro_batches: Annotated[int, Meta(description="Micro-batches of a step.")] = 1
    schedule: Annotated[str, Meta(description="1f1b, gpipe, interleaved.")] = "1f1b"
    expert_parallel: Annotated[int, Meta(description="Devices that deal out the experts.")] = 1
    context_parallel: Annotated[int, Meta(description="Devices that split a sequence.")] = 1
    reduce_bucket: Annotated[int, Meta(description="ZeRO: elements of the bucket (reduce_bucket_size).")] = 500_000_000
    overlap_comm: Annotated[bool, Meta(description="ZeRO: two buckets (overlap_comm).")] = False
    prefetch_bucket: Annotated[int, Meta(description="ZeRO-3: elements gathered ahead.")] = 50_000_000
    live_parameters: Annotated[int, Meta(description="ZeRO-3: most elements gathered (max_live_parameters).")] = (
        1_000_000_000
    )
    reuse_distance: Annotated[int, Meta(description="ZeRO-3: kept if used again so soon (max_reuse_distance).")] = (
        1_000_000_000
    )
    persistence_threshold: Annotated[int, Meta(description="ZeRO-3: smaller weights stay whole.")] = 100_000
    offload_optimizer: Annotated[Offload, Meta(description="Optimizer's masters and states to cpu or nvme.")] = False
    offload_weights: Annotated[Offload, Meta(description="Weights to cpu or nvme.")] = False
    offload_params: Annotated[Offload, Meta(description="DeepSpeed's name for --offload-weights.")] = False
    offload_activations: Annotated[bool, Meta(description="What checkpointing keeps on the host.")] = False
    device: Annotated[str, Meta(description="A device to fit: 'RTX 4090', 'H100 80 GB'.")] = ""
    machine: Annotated[str, Meta(description="A machine to fit: '4x H100 SXM', a TOML file; 'here': this machine.")] = (
        ""
    )
    tokens: Annotated[str, Meta(description="Tokens to train on (50M): how long that takes.")] = ""
    advise: Annotated[bool, Meta(description="Largest batch, ranked savings, cheapest device, configuration.")] = False
    emit: Annotated[
        Literal["", "trl", "accelerate", "fsdp", "deepspeed", "torchtune"],
        Meta(description="Print the settings as a configuration."),
    ] = ""
    simulate: Annotated[bool, Meta(description="Run the real step on fake tensors (needs torch).")] = False
    measure: Annotated[bool, Meta(description="Run the real step on this machine's GPU, else its processor.")] = False
    itemise: Annotated[bool, Meta(description="Name every tensor that is alive at the peak (so does --explain).")] = (
        False
    )
    offline: Annotated[bool, Meta(description="Never use the network.")] = False


class Simulated(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker found. error: the estimate's relative difference.

    reserved_bytes: what the caching allocator reserved, measured or replayed. process: the range that follows from it.
    process_bytes: what the driver booked; resident_bytes: the process's pages, on a processor. device: where it ran,
    `fake cuda` when simulated. stand_ins: packed weights or 8-bit states were tensors of the same bytes.
    """

    peak_bytes: int
    phases: dict[str, int]
    reserved_bytes: int | None = None
    process_bytes: int | None = None
    error: float = 0.0
    versions: dict[str, str] = {}
    kind: str = "simulate"
    process: ProcessBytes | None = None
    resident_bytes: int | None = None
    device: str = "fake cuda"
    stand_ins: bool = False
    seconds_per_step: float | None = None


class TrainReport(msgspec.Struct, frozen=True, kw_only=True):
    """The footprint, what the process takes, and whether it fits the device or machine asked for.

    device_bytes: of a device its memory, of a machine what is free and usable on each GPU in use, the least of them.
    unfit: why it doesn't fit. advice: answers that were asked for. configuration: the settings in the form asked for.
    """

    model: str
    setting: TrainSetting
    footprint: TrainFootprint
    process_bytes: ProcessBytes
    uncertainty: float = 0.0
    device: str = ""
    device_bytes: int | None = None
    fits: bool | None = None
    unfit: str = ""
    advice: msgspec.Struct | None = None
    configuration: str = ""
    simulated: Simulated | None = None
    notes: tuple[str, ...] = ()
    schema: str = "sizeup.train/1"

    @property
    def exit_code(self) -> int:
        """3 when a device or machine was asked for and the step doesn't fit."""
        return 3 if self.fits is False else 0
