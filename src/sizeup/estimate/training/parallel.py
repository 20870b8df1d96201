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


def split_shape(shape: DecoderShape, setting: TrainSetting) -> DecoderShape:
    """The shape of what one tensor- and expert-parallel rank computes."""
    ways, experts = setting.tensor_parallel, setting.expert_parallel
    if ways == 1 and experts == 1:
        return shape
    changes: dict[str, object] = {
        "head_count": shape.head_count // ways,
        "kv_heads": max(1, shape.kv_heads // ways),
        "ffn": shape.ffn // ways,
        "vocabulary": -(-shape.vocabulary // ways),
        "sequence_ways": ways if setting.sequence_parallel else 1,
        "vocabulary_ways": ways,
        "gathers_logits": ways > 1 and not setting.loss_parallel,
    }
    changes["varied"] = tuple(_split_fields(fields, ways) for fields in shape.varied)
    if shape.mixture is not None:
        m = shape.mixture
        changes["mixture"] = msgspec.structs.replace(
            m, experts=m.experts // experts, width=-(-m.width // (1 if experts > 1 else ways)), shared=m.shared // ways
        )
    return msgspec.structs.replace(shape, **changes)


def _split_fields(fields: dict[str, Any], ways: int) -> dict[str, Any]:
    """A rank's part of the sizes in which a layer differs."""
    shared = {name: max(1, fields[name] // ways) for name in ("head_count", "kv_heads", "ffn") if name in fields}
    return fields | shared


def stage_layers(layers: int, stages: int, stage: int) -> range:
    """The layers of a stage: as even as can be, the first stages one more."""
    return range(-(-layers * stage // stages), -(-layers * (stage + 1) // stages))


def in_flight(setting: TrainSetting, stage: int) -> int:
    """Micro-batches whose activations a stage holds at once.

    gpipe: all of them. 1f1b: stages left to the end, the own one included (Narayanan et al. 2021), never more than
    there are. interleaved: with two chunks a device, half as many again.
    """
    total, stages = setting.micro_batches, setting.pipeline_parallel
    if setting.schedule == "gpipe":
        return total
    depth = stages - stage
    if setting.schedule == "interleaved":
        depth += (stages - 1 + 1) // 2
    return max(1, min(total, depth))
