"""What one rank holds when the model is split: heads, widths, vocabulary and experts divided, layers dealt out.

Tensor parallelism after Shoeybi et al. 2019: columns of q, k, v, gate and up, rows of o and down, the vocabulary of
embedding and head; norms and the stream stay whole, or with sequence parallelism are split along the sequence
(Korthikanti et al. 2022). Pipeline: consecutive layers for each stage, embedding first, head last.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.settings import TrainSetting
from sizeup.quantity.units import format_bytes

#: Relative error of what is derived from a library's code or from papers and was never simulated.
DERIVED, PARTED, FUSED = 0.15, 0.1, 0.2


def split_shape(shape: DecoderShape, setting: TrainSetting) -> DecoderShape:
    """The shape of what one tensor- and expert-parallel rank computes."""
    ways, experts = setting.tensor_parallel, setting.expert_parallel
    if ways == 1 and experts == 1:
        return shape
    changes: dict[str, object] = {"ways": ways, "sequence_ways": ways if setting.sequence_parallel else 1}
    sizes = {"head_count": shape.head_count, "kv_heads": shape.kv_heads, "ffn": shape.ffn}
    whole = (*shape.gathered, *unsplit(shape, setting))
    changes |= _split_fields(sizes, ways, whole)
    changes |= {
        "vocabulary": -(-shape.vocabulary // ways),
        "vocabulary_ways": ways,
        "gathers_logits": ways > 1 and not setting.loss_parallel,
    }
    if shape.table_whole or "table" in whole:
        changes["embedding_rows"] = shape.embedding_rows or shape.vocabulary
    changes["varied"] = tuple(_split_fields(fields, ways, whole) for fields in shape.varied)
    if shape.mixture is not None:
        m = shape.mixture
        inner = 1 if experts > 1 or "experts" in whole else ways
        changes["mixture"] = msgspec.structs.replace(
            m,
            experts=m.experts // experts,
            width=-(-m.width // inner),
            shared=m.shared // (1 if "shared" in whole else ways),
        )
    return msgspec.structs.replace(shape, **changes)


def unsplit(shape: DecoderShape, setting: TrainSetting) -> tuple[str, ...]:
    """What transformers' plans leave whole on every rank, though it could be split.

    Latent attention; shared experts with a gate of their own (Qwen2-MoE); everything but the head of GPT-OSS, which
    has no plan for its layers (transformers 5.23, `base_model_tp_plan`).
    """
    if setting.tensor_parallel == 1 or setting.sequence_parallel or setting.loss_parallel:
        return ()
    m = shape.mixture
    if m is not None and m.clamped:
        return ("attention", "mlp", "experts", "shared", "table")
    latent = ("attention",) if shape.latent is not None else ()
    return (*latent, *(("shared",) if m is not None and m.shared_gate else ()))


def _split_fields(fields: dict[str, Any], ways: int, gathered: tuple[str, ...]) -> dict[str, Any]:
    """A rank's part of heads and inner width; those of gathered halves stay whole."""
    names = {"head_count": "attention", "kv_heads": "attention", "ffn": "mlp"}
    split = [name for name, half in names.items() if name in fields and half not in gathered]
    return fields | {name: max(1, fields[name] // ways) for name in split}


def stage_layers(layers: int, stages: int, stage: int) -> range:
    """The layers of a stage: as even as can be, the first stages one more."""
    return range(-(-layers * stage // stages), -(-layers * (stage + 1) // stages))


def derived(setting: TrainSetting, shape: object) -> tuple[float, tuple[str, ...]]:
    """How far off the parallelism may be beyond what was simulated, and why.

    Simulated: DDP, FSDP2, HSDP, ZeRO 1 to 3, tensor and sequence parallel, pipelines.
    """
    found: list[tuple[float, str]] = []
    if setting.sharding.startswith("zero"):
        bucket = format_bytes(setting.reduce_bucket * setting.weight_item)
        kept = "fp32 master copies whatever the precision"
        found.append((0.0, f"{setting.sharding} as DeepSpeed 0.19 runs it: {kept}, gradients in buckets of {bucket}"))
    if "nvme" in {setting.offload_optimizer, setting.offload_weights}:
        found.append((DERIVED, "what the host holds for NVMe is derived from DeepSpeed's code, not simulated"))
    if setting.expert_parallel > 1:
        found.append(
            (PARTED, "expert_parallel is simulated with every token on every rank; an exchange depends on the routing")
        )
    if setting.context_parallel > 1:
        found.append((PARTED, "context_parallel is derived, not simulated"))
    fused = (
        isinstance(shape, DecoderShape)
        and (shape.qkv != "split" or shape.mlp == "fused")
        and not (shape.gathered or shape.table_whole)
    )
    if setting.tensor_parallel > 1 and fused:
        found.append((FUSED, "transformers may have no plan for this model's fused projections; here they are split"))
    return max((size for size, _ in found), default=0.0), tuple(note for _, note in found)
