"""What each device reads and computes in one pass: its layers' weights (of the experts that are used), its cache.

Placement follows `sizeup.engines.llamacpp.weights`: layers on their GPU, experts of the first layers on the host with
`--n-cpu-moe`, of the embedding only rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from sizeup.engines.llamacpp.backends import RepackRule, repack_rule
from sizeup.engines.llamacpp.cache import LayerMemory, layer_memories, stack_of_layers
from sizeup.engines.llamacpp.memo import by_model
from sizeup.engines.llamacpp.names import layer_count
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.weights import HOST, Assignment, Typed, is_repacked, tied_head, typed_tensors
from sizeup.estimate.cache import token_cache_bytes
from sizeup.estimate.speed.ceilings import Ceilings, ceilings
from sizeup.estimate.speed.decode import Stage
from sizeup.estimate.speed.demand import NOTHING, Demand, Reach, Share, pass_work
from sizeup.estimate.speed.kernels import layer_kernels
from sizeup.estimate.speed.links import handover_seconds, weights_seconds
from sizeup.estimate.speed.reaches import attention_flops
from sizeup.estimate.speed.work import PACKINGS, Work
from sizeup.machines.device import Machine
from sizeup.models.model import Block, Model

_PACKINGS = {
    "F16": "plain", "BF16": "bf16", "F32": "f32", "F64": "f32", "Q8_0": "q8_0", "Q2_K": "q2_k", "Q3_K": "q3_k",
    "Q4_K": "q4_k", "Q5_K": "q5_k", "Q6_K": "q6_k", "IQ4_NL": "iq4", "IQ4_XS": "iq4", "MXFP4": "float4",
    "NVFP4": "float4",
}  # fmt: skip
_REPACKED = {"q8_0": "r_legacy", "legacy": "r_legacy", "q2_k": "r_q2_k", "q4_k": "r_q4_k", "q5_k": "r_k",
             "q6_k": "r_k", "iq4": "r_iq4", "float4": "r_float4"}  # fmt: skip
RuleKey = tuple[tuple[str, int], ...]
_OUTPUT_KERNELS = 4.0
#: In the names of a layer's feed-forward.
_FEED_FORWARD = ".ffn_"
#: Batches of so many tokens are computed on a GPU although the weights are on the host: they are copied for each pass.
#: Source: ggml_backend_*_device_offload_op, min_batch_size in ggml-cuda.cu, llama.cpp 0.5.0 (0c1e570).
OFFLOADED_TOKENS = 32


def packing(kind: str, repacked: bool = False) -> int:
    """The place in PACKINGS of a GGML type, as the file has it or as the host rearranged it."""
    name = _PACKINGS.get(kind) or ("codebook" if kind.startswith(("IQ", "TQ")) else "legacy")
    return PACKINGS.index(_REPACKED[name] if repacked else name)


class Traffic(msgspec.Struct, frozen=True):
    """The demands of a model in one format: the kinds of its layers, which layer is of which kind, and the output.

    tail: the last layer's feed-forward, which is computed for tokens that get logits only, so that of a prompt it is
    one (`inp_out_ids` in src/models/*.cpp); its kind in kinds is without it.
    """

    kinds: tuple[Demand, ...]
    kind_of_layer: tuple[int, ...]
    output: Demand
    tail: Demand


@by_model
def traffic(
    model: Model,
    mix: str,
    imatrix: bool | None,
    cache_k: str,
    cache_v: str,
    full_swa: bool,
    mtp: bool,
    rule_key: RuleKey = (),
) -> Traffic:
    """What the layers of a model ask for in that mix and with those cache types.

    rule_key: what the host repacks; empty when weights are on GPUs.
    """
    rule = RepackRule(dict(rule_key))
    count = layer_count(model)
    weights: list[list[Any]] = [[0.0, NOTHING, 0.0, 0.0, NOTHING, 0.0] for _ in range(count)]
    output: list[Any] = [0.0, NOTHING, 0.0]
    tail: list[Any] = [0.0, NOTHING, 0.0, 0.0, NOTHING, 0.0]
    last = model.layers - 1
    tied = tied_head(model, mix, imatrix)
    for tensor in (*typed_tensors(model, mix, imatrix, mtp), *((tied,) if tied else ())):
        if tensor.zone == "layer":
            late = tensor.layer == last and _FEED_FORWARD in tensor.name
            row, at = tail if late else weights[tensor.layer], 3 if tensor.expert else 0
        elif tensor.zone == "output":
            row, at = output, 0
        else:
            continue
        row[at] += tensor.bytes
        if len(tensor.shape) > 1:
            row[at + 1] = _with_values(row[at + 1], tensor, rule)
            row[at + 2] += sum(tensor.shape[-2:])
    blocks = _blocks_by_layer(model)
    memories = layer_memories(model)
    places: dict[Demand, int] = {}
    numbers = []
    for number in range(count):
        memory = memories[number] if number < len(memories) else LayerMemory()
        demand = _demand(weights[number], blocks.get(number), memory, cache_k, cache_v, full_swa=full_swa)
        if number == last:
            demand = msgspec.structs.replace(demand, experts=0, chosen=0, expert_kernels=0.0)
        numbers.append(places.setdefault(demand, len(places)))
    head = Demand(weight_bytes=output[0], values=output[1], kernels=_OUTPUT_KERNELS)
    return Traffic(tuple(places), tuple(numbers), head, _weighed(tail, blocks.get(last)))


def _with_values(values: tuple[float, ...], tensor: Typed, rule: RepackRule) -> tuple[float, ...]:
    elements = 1
    for extent in tensor.shape:
        elements *= extent
    at = packing(tensor.kind, is_repacked(tensor, rule))
    return (*values[:at], values[at] + elements, *values[at + 1 :])


def _blocks_by_layer(model: Model) -> dict[int, Block]:
    stack = stack_of_layers(model)
    return {layer: block for block in model.blocks if block.stack == stack for layer in block.layers}


def _weighed(weights: list[Any], block: Block | None) -> Demand:
    """What those weights of a layer ask for: all of them, or its feed-forward; of its kernels only the experts'."""
    dense, values, widths, expert, expert_values, expert_widths = weights
    forward = block.feed_forward if block else None
    return Demand(
        dense, values, expert, expert_values,
        experts=forward.experts if forward else 0,
        chosen=forward.experts_per_token if forward else 0,
        widths=widths,
        expert_widths=expert_widths,
        expert_kernels=layer_kernels(block)[1] if block else 0.0,
    )  # fmt: skip


def _demand(
    weights: list[Any], block: Block | None, memory: LayerMemory, cache_k: str, cache_v: str, *, full_swa: bool
) -> Demand:
    flops = sum(attention_flops(mixer) for mixer in block.mixers) if block else 0.0
    reaches: tuple[Reach, ...] = ()
    if flops:
        kept = token_cache_bytes(memory.keys, memory.values, cache_k, cache_v) if memory.keys else 0
        heads = max((getattr(mixer, "heads", 0) for mixer in block.mixers), default=0) if block else 0
        reaches = (Reach(None if full_swa else memory.window, float(kept), flops, heads),)
    return msgspec.structs.replace(
        _weighed(weights, block),
        reaches=reaches,
        state_bytes=2.0 * 4 * (memory.state + memory.convolution),
        kernels=layer_kernels(block)[0] if block else 0.0,
    )


class Placed(msgspec.Struct, frozen=True):
    """What one pass asks of one place: a GPU's number, or HOST."""

    place: int
    work: Work


def placed_work(
    model: Model,
    setting: LlamaSetting,
    places: Assignment,
    *,
    tokens: int = 1,
    depth: float = 0,
    sequences: int = 1,
    rule_key: RuleKey = (),
) -> tuple[Placed, ...]:
    """The work of one pass by place, in the order in which the places are passed through: the host's layers first.

    tokens: new tokens of each of `sequences`, after `depth` tokens that are in their caches.
    """
    found = traffic(
        model,
        setting.format,
        setting.imatrix,
        setting.cache_k,
        setting.cache_v,
        setting.full_swa,
        setting.mtp,
        rule_key,
    )
    shares: dict[int, list[Share]] = {}
    layers = places.layers[: model.layers]
    hosted = setting.cpu_moe_layers
    for (place, kind, at_host), count in Counter(
        (place, kind, number < hosted)
        for number, (place, kind) in enumerate(zip(layers, found.kind_of_layer, strict=False))
    ).items():
        demand = found.kinds[kind]
        if at_host and place != HOST and demand.experts:
            shares.setdefault(place, []).append(Share(demand, count, experts=False))
            shares.setdefault(HOST, []).append(Share(demand, count, dense=False))
        else:
            shares.setdefault(place, []).append(Share(demand, count))
    _add_tail(shares, found.tail, layers, hosted)
    shares.setdefault(places.output, [])
    return tuple(
        Placed(
            place,
            pass_work(
                shares[place], tokens=tokens, depth=depth, sequences=sequences,
                layers=sum(share.count for share in shares[place] if share.dense and not share.outputs),
                output=found.output if place == places.output else None,
            ),
        )
        for place in sorted(shares)
    )  # fmt: skip


def _add_tail(shares: dict[int, list[Share]], tail: Demand, layers: tuple[int, ...], hosted: int) -> None:
    """The last layer's feed-forward, where that layer is; its experts on the host when all layers' are."""
    place = layers[-1]
    if tail.experts and hosted >= len(layers) and place != HOST:
        shares.setdefault(place, []).append(Share(tail, 1, experts=False, outputs=True))
        shares.setdefault(HOST, []).append(Share(tail, 1, dense=False, outputs=True))
    else:
        shares.setdefault(place, []).append(Share(tail, 1, outputs=True))


def host_rule(setting: LlamaSetting, machine: Machine) -> RuleKey:
    """What the host repacks: nothing beside a GPU, whose pinned memory llama.cpp prefers."""
    if machine.gpus or not setting.repack:
        return ()
    return tuple(sorted(repack_rule(machine.cpu).multiples.items()))


def stages(
    model: Model,
    setting: LlamaSetting,
    machine: Machine,
    places: Assignment,
    depth: float,
    *,
    tokens: int = 1,
    sequences: int = 1,
    measured: Mapping[str, Ceilings] | None = None,
) -> tuple[Stage, ...]:
    """One stage for each device that does something in a pass of `tokens` tokens a sequence, after `depth` tokens.

    measured: ceilings that calibration found, by device name. Raises ValueError when a device's bandwidth is unknown.
    """
    found = []
    placed = placed_work(
        model, setting, places, tokens=tokens, depth=depth, sequences=sequences, rule_key=host_rule(setting, machine)
    )
    for number, item in enumerate(placed):
        lent = item.place == HOST and bool(machine.gpus) and tokens * sequences >= OFFLOADED_TOKENS
        device = machine.cpu if item.place == HOST and not lent else machine.gpus[max(0, item.place)]
        ceiling = (measured or {}).get(device.name) or ceilings(device)
        handed = 0.0
        if len(placed) > 1:
            crossings = 2 * setting.cpu_moe_layers if item.place == HOST and setting.cpu_moe_layers else int(number > 0)
            bus = device if item.place != HOST else machine.gpus[max(0, places.output)]
            handed = handover_seconds(model.hidden, tokens * sequences, bus, crossings)
        if lent:
            handed += weights_seconds(item.work.weight_bytes, device)
        found.append(Stage(device.name, ceiling, item.work, handed))
    return tuple(found)
