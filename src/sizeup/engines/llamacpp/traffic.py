"""What each device reads for one token: its layers' weights (of the experts that are used), and the cache so far."""

from __future__ import annotations

from sizeup.engines.llamacpp.backends import CPU
from sizeup.engines.llamacpp.cache import LayerMemory, cache_sizes, layer_memories
from sizeup.engines.llamacpp.memo import by_model
from sizeup.engines.llamacpp.names import layer_count
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.weights import HOST, Amount, Assignment, layer_table
from sizeup.estimate.cache import token_cache_bytes
from sizeup.estimate.speed import Stage
from sizeup.machines.device import Device, Machine
from sizeup.models.model import Model


def stages(model: Model, setting: LlamaSetting, machine: Machine, places: Assignment, depth: int) -> tuple[Stage, ...]:
    """One stage for each device that does something for a token, at `depth` tokens already in the cache.

    A mixture reads experts_per_token of its experts. Of the embedding one row is read, which is nothing; the head is
    read whole. A window reads no more than its cells. A device without a known bandwidth raises ValueError.
    """
    table = layer_table(model, setting.format, setting.imatrix, setting.mtp, CPU, ())
    shares = _expert_shares(model)
    memories = layer_memories(model)
    weight, cache, layers = (
        [0.0] * (len(machine.gpus) + 1),
        [0] * (len(machine.gpus) + 1),
        [0] * (len(machine.gpus) + 1),
    )
    for number, place in enumerate(places.layers[: model.layers]):
        weight[place] += _all(table.dense[number])
        at_host = place == HOST or number < setting.cpu_moe_layers
        weight[HOST if at_host else place] += _all(table.experts[number]) * shares[number]
        layers[place] += 1
        if at_host and place != HOST:
            layers[HOST] += 1
        if number < len(memories):
            home = place if setting.offload_kv else HOST
            cache[home] += _read(memories[number], setting, cache_sizes(model, setting).cells(memories[number]), depth)
    weight[places.output] += _all(table.output) + (_all(table.tied) if table.tied else 0)
    flops = 2 * model.active_parameters
    whole = sum(weight) or 1.0
    found = []
    for place, device in [*enumerate(machine.gpus), (HOST, machine.cpu)]:
        if weight[place] or layers[place]:
            found.append(
                _stage(device, round(weight[place]), cache[place], layers[place], round(flops * weight[place] / whole))
            )
    return tuple(found)


def _stage(device: Device, weight: int, cache: int, layers: int, flops: int) -> Stage:
    if device.bandwidth is None:
        raise ValueError(f"the memory bandwidth of {device.name} is unknown")
    compute = max(device.compute.values(), default=None)
    return Stage(device.name, device.backend, weight, cache, flops, layers, device.bandwidth, compute)


@by_model
def _expert_shares(model: Model) -> tuple[float, ...]:
    """For each layer, the share of its routed experts that one token uses; 0 where there are none."""
    shares = [0.0] * layer_count(model)
    for block in model.blocks:
        forward = block.feed_forward
        if forward and forward.experts and block.stack != "mtp":
            for layer in block.layers:
                shares[layer] = forward.experts_per_token / forward.experts
    return tuple(shares)


def _all(amount: Amount) -> int:
    return amount.plain + amount.repacked


def _read(memory: LayerMemory, setting: LlamaSetting, cells: int, depth: int) -> int:
    """Bytes of one layer's cache that one token reads: keys and values so far, the state twice (read and written)."""
    token = token_cache_bytes(memory.keys, memory.values, setting.cache_k, setting.cache_v)
    return min(depth, cells) * token + 2 * 4 * (memory.state + memory.convolution)
