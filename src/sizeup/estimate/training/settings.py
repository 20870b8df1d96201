"""What a training step is asked to be: method, precision, optimizer, sizes, parallelism."""

from __future__ import annotations

import msgspec

METHODS = ("full", "lora", "qlora", "dora")
PRECISIONS = (
    "fp32", "bf16", "fp16", "bf16-autocast-fp32-weights", "fp16-autocast-fp32-weights", "bf16-fp32-master", "fp8",
)  # fmt: skip
OBJECTIVES = ("causal", "sft", "dpo", "grpo")
SHARDINGS = ("none", "ddp", "zero1", "zero2", "zero3", "fsdp")
ATTENTIONS = ("sdpa", "eager", "flash_attention_2")
KERNELS = ("none", "fast")
LOSSES = ("standard", "narrow", "chunked", "fused", "tiled")
#: What families call the tables at both ends → what they are called here.
ENDS = {
    "embed_tokens": "embed_tokens", "wte": "embed_tokens", "word_embeddings": "embed_tokens",
    "embed_in": "embed_tokens", "lm_head": "lm_head", "embed_out": "lm_head",
}  # fmt: skip
FOUR_BITS = ("plain", "bitsandbytes", "gptq")
ADAPTER_PRECISIONS = ("fp32", "bf16", "fp16")
SCHEDULES = ("1f1b", "gpipe", "interleaved")


class TrainSetting(msgspec.Struct, frozen=True, kw_only=True):
    """One training step.

    batch, sequence: of a micro-batch on one device. images: in each sequence, whose tokens are among its tokens (0:
    text alone); image_size: their sides in pixels (0: what the tower is made for); train_vision: the tower isn't
    frozen. target_sequence: tokens that a decoder writes, where an encoder reads others (0: as many as it reads).
    head: what is trained on top (`heads.HEADS`; empty: what the model's configuration says), with so many labels
    (0: the configuration's). An embedding's batch is of pairs. checkpointing: `none`, `full`, `selective` (matrix
    products are kept), or a number n: every n-th layer is recomputed. padding: the batch carries a mask with padded
    tokens, or several packed sequences. accumulating: parameters hold gradients of an earlier micro-batch.
    keeps_outputs: the loop holds the logits through the backward pass (the Trainer drops them). reshard: FSDP2 frees
    gathered weights after the forward pass. replicas: groups of the data-parallel ranks that each hold all shards
    (HSDP). bucket_views: gradients lie in DDP's buckets
    (`gradient_as_bucket_view`) and not beside them. loss_parallel: with tensor parallelism, the loss is computed on
    parts of the vocabulary (Megatron, torchtitan); transformers gathers the logits. reduce_bucket: elements of
    ZeRO's bucket of gradients (`reduce_bucket_size`); overlap_comm: it has two. prefetch_bucket, live_parameters,
    reuse_distance, persistence_threshold: elements, of what stage 3 gathers ahead, has whole at most, keeps for a
    use that is so near, and never gives back (DeepSpeed's `stage3_` settings and their defaults).
    offload_optimizer, offload_weights: to the host (`cpu`, or true), to `nvme`. kernels: of layers that scan, `none`
    (written out in Python) or `fast` (mamba-ssm and causal-conv1d).
    """

    method: str = "full"
    precision: str = "bf16"
    optimizer: str = "adamw_fused"
    batch: int = 1
    sequence: int = 1024
    target_sequence: int = 0
    head: str = ""
    labels: int = 0
    checkpointing: str = "none"
    attention: str = "sdpa"
    loss: str = "standard"
    kernels: str = "none"
    lora_rank: int = 16
    lora_targets: tuple[str, ...] = ()
    lora_dropout: float = 0.0
    images: int = 0
    image_size: int = 0
    train_vision: bool = True
    adapter_precision: str = "fp32"
    modules_to_save: tuple[str, ...] = ()
    double_quantization: bool = True
    four_bit: str = "plain"
    train_embeddings: bool = True
    padding: bool = False
    accumulating: bool = False
    keeps_outputs: bool = False
    gradient_clip: bool = False
    objective: str = "causal"
    reference: bool = True
    data_parallel: int = 1
    replicas: int = 1
    sharding: str = "none"
    reshard: bool = True
    bucket_views: bool = False
    loss_parallel: bool = False
    tensor_parallel: int = 1
    sequence_parallel: bool = False
    pipeline_parallel: int = 1
    micro_batches: int = 1
    schedule: str = "1f1b"
    expert_parallel: int = 1
    context_parallel: int = 1
    reduce_bucket: int = 500_000_000
    overlap_comm: bool = False
    prefetch_bucket: int = 50_000_000
    live_parameters: int = 1_000_000_000
    reuse_distance: int = 1_000_000_000
    persistence_threshold: int = 100_000
    offload_optimizer: bool | str = False
    offload_weights: bool | str = False
    offload_activations: bool = False

    @property
    def gathers(self) -> bool:
        """Whether a rank holds shards of the weights and gathers a layer at a time (FSDP2)."""
        return self.sharding == "fsdp"

    @property
    def replicated(self) -> bool:
        """Whether every rank holds the whole model and gradients are reduced in buckets (DDP)."""
        return self.data_parallel > 1 and self.sharding in {"none", "ddp"}

    @property
    def reduced_as_they_come(self) -> bool:
        """Whether a gradient goes from where backward made it to a bucket as soon as it is there."""
        return self.replicated and self.bucket_views

    @property
    def autocast(self) -> int:
        """Bytes of the type that autocast computes in; 0 without autocast."""
        return 2 if self.prepared or "autocast" in self.precision else 0

    @property
    def prepared(self) -> bool:
        """Whether peft has prepared a packed model: fp32 where nothing is packed, computed under autocast."""
        return self.method == "qlora" and self.four_bit != "gptq"

    @property
    def weight_item(self) -> int:
        """Bytes of a weight that isn't packed. QLoRA holds what it doesn't pack in fp32 (peft's preparation)."""
        return 4 if self.prepared or self.precision == "fp32" or "autocast" in self.precision else 2

    @property
    def compute_item(self) -> int:
        """Bytes of a weight while it is computed with: FSDP gathers fp32 shards in 16 bits (mixed-precision policy)."""
        return 2 if self.gathers and self.method != "qlora" else self.weight_item

    @property
    def master_item(self) -> int:
        """Bytes of a weight's master copy; 0 without one."""
        return 4 if self.precision == "bf16-fp32-master" and not self.adapters else 0

    @property
    def adapters(self) -> bool:
        """Whether low-rank adapters train instead of the model's weights."""
        return self.method in {"lora", "qlora", "dora"}

    @property
    def adapter_item(self) -> int:
        """Bytes of an adapter's weight. DeepSpeed casts the whole model to the 16 bits that it is trained in."""
        cast = self.sharding.startswith("zero") and self.weight_item < 4
        return 4 if self.adapter_precision == "fp32" and not cast else 2

    @property
    def sequences(self) -> int:
        """Sequences that pass the model at once: DPO's chosen and rejected answers, and an embedding's pairs."""
        return self.batch * 2 if self.objective == "dpo" or self.head == "embedding" else self.batch

    @property
    def has_reference(self) -> bool:
        """Whether a second, frozen model is held: with adapters the base model itself is the reference."""
        return self.reference and self.objective in {"dpo", "grpo"} and not self.adapters

    @property
    def world(self) -> int:
        """Devices in all; experts are dealt out over those that are there, or over as many as they need."""
        ways = self.data_parallel * self.tensor_parallel * self.context_parallel
        return self.pipeline_parallel * max(ways, self.expert_parallel)
