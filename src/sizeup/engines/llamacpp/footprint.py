"""The whole footprint of a model under llama.cpp: weights, cache, compute, overhead, on each device."""

from __future__ import annotations

from collections.abc import Iterable

from sizeup.engines.llamacpp.backends import Backend, RepackRule, backend_of, repack_rule
from sizeup.engines.llamacpp.cache import PlacedCache, cache_sizes, layer_memories, placed_cache
from sizeup.engines.llamacpp.companions import projector_bytes
from sizeup.engines.llamacpp.compute import PlacedCompute, compute_buffers
from sizeup.engines.llamacpp.memo import by_model
from sizeup.engines.llamacpp.names import layer_count
from sizeup.engines.llamacpp.output import output_bytes
from sizeup.engines.llamacpp.overhead import device_overhead, host_overhead
from sizeup.engines.llamacpp.setting import ALL_LAYERS, VERSION, LlamaSetting, checked
from sizeup.engines.llamacpp.weights import HOST, Assignment, PlacedWeights, assign, placed_weights
from sizeup.estimate.footprint import DeviceFootprint, Footprint, Item, device_footprint, item
from sizeup.estimate.footprint import footprint as total_footprint
from sizeup.machines.budget import Budget, machine_budget
from sizeup.machines.device import Device, Machine
from sizeup.models.model import Model
from sizeup.quantity import leaf


def footprint(model: Model, setting: LlamaSetting, machine: Machine, budget: Budget | None = None) -> Footprint:
    """What the model takes on each device of the machine under this setting: GPUs in order, then the host.

    `gpu_layers=None` counts as all of them; `sizeup.engines.llamacpp.placement.place` finds how many fit.
    budget: of the machine, when it is known already.
    Raises BadInput for a setting that llama.cpp refuses, NotFound for a family that it doesn't load.
    """
    checked(setting)
    budget = budget or _budget(machine)
    backends = tuple([backend_of(gpu) for gpu in machine.gpus])
    places = assignment_of(model, setting, machine, budget)
    weights = _weights(model, _of_weights(setting), places, backends, _repacked(machine.cpu))
    cache = placed_cache(model, setting, places, backends)
    compute = compute_buffers(model, setting, places, backends)
    used = gpus_in_use(setting, machine)
    devices = [
        _gpu(gpu, machine, backends[gpu], (weights, cache, compute), model, setting, places, budget) for gpu in used
    ]
    devices.append(_host(machine, (weights, cache, compute), model, setting, budget))
    return total_footprint(devices)


_budget = by_model(machine_budget)
_overhead = by_model(host_overhead)


@by_model
def _repacked(cpu: Device) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(repack_rule(cpu).multiples.items()))


def _of_weights(setting: LlamaSetting) -> LlamaSetting:
    """Only what decides about weights: the same for any context, cache and batch."""
    return LlamaSetting(
        format=setting.format,
        imatrix=setting.imatrix,
        mtp=setting.mtp,
        repack=setting.repack,
        mmap=setting.mmap,
        cpu_moe_layers=setting.cpu_moe_layers,
        overrides=setting.overrides,
    )


@by_model
def _weights(
    model: Model,
    setting: LlamaSetting,
    places: Assignment,
    backends: tuple[Backend, ...],
    repacked: tuple[tuple[str, int], ...],
) -> PlacedWeights:
    return placed_weights(model, setting, places, backends, RepackRule(dict(repacked)))


def assignment_of(model: Model, setting: LlamaSetting, machine: Machine, budget: Budget) -> Assignment:
    """Where each layer goes: `-ngl` layers over the GPUs by `--tensor-split`, else by their free memory."""
    used = gpus_in_use(setting, machine)
    if not used:
        return _on_the_host(model)
    if setting.split_mode == "none" or len(used) == 1:
        shares = tuple(1.0 if gpu == used[0] else 0.0 for gpu in range(len(machine.gpus)))
    elif setting.tensor_split:
        padded = (*setting.tensor_split, *([0.0] * len(machine.gpus)))
        shares = padded[: len(machine.gpus)]
    else:
        shares = tuple(
            float(b.usable_bytes or gpu.memory_bytes or 1) for b, gpu in zip(budget.gpus, machine.gpus, strict=True)
        )
    wanted = ALL_LAYERS if setting.gpu_layers is None else setting.gpu_layers
    return assign(layer_count(model), wanted, shares)


@by_model
def _on_the_host(model: Model) -> Assignment:
    return assign(layer_count(model), 0, ())


def gpus_in_use(setting: LlamaSetting, machine: Machine) -> tuple[int, ...]:
    """The GPUs that llama.cpp opens: none with `gpu_layers=0`, for which the command says `--device none`."""
    if not machine.gpus or setting.gpu_layers == 0:
        return ()
    if setting.split_mode == "none":
        return (min(setting.main_gpu, len(machine.gpus) - 1),)
    return tuple(range(len(machine.gpus)))


Parts = tuple[PlacedWeights, PlacedCache, PlacedCompute]


def _gpu(
    gpu: int,
    machine: Machine,
    backend: Backend,
    parts: Parts,
    model: Model,
    setting: LlamaSetting,
    places: Assignment,
    budget: Budget,
) -> DeviceFootprint:
    weights, cache, compute = parts
    layers = sum(place == gpu for place in places.layers) + (places.output == gpu)
    experts, kind = weights.gpu_experts[gpu], _kind(setting)
    dense = weights.gpus[gpu] - experts
    here = gpu == gpus_in_use(setting, machine)[0]
    rows = (
        ("weights", "weights", dense, f"{layers} of {len(places.layers) + 1} layers, {kind}"),
        ("weights", "routed experts", experts, f"merged experts of these layers, {kind}"),
        _projector(model, setting, here=here),
        ("cache", "KV cache", cache.kv[gpu], _cache_formula(model, setting)),
        ("cache", "recurrent state", cache.state[gpu], _state_formula(setting)),
        ("compute", "compute buffer", compute.gpus[gpu], _compute_formula(setting)),
    )
    overhead = item("overhead", device_overhead(backend))
    items = [*_items(rows), *([overhead] if overhead.bytes else [])]
    return device_footprint(_name(machine, gpu), items, budget.gpus[gpu].usable_bytes)


def _host(machine: Machine, parts: Parts, model: Model, setting: LlamaSetting, budget: Budget) -> DeviceFootprint:
    weights, cache, compute = parts
    how = "mapped file: pages that the system may drop and read again" if setting.mmap else "read into memory"
    rows = (
        ("weights", "weights on the host", weights.plain, f"{_kind(setting)}, {how}"),
        ("weights", "repacked weights", weights.repacked, "rearranged for this processor, anonymous memory"),
        _projector(model, setting, here=not gpus_in_use(setting, machine)),
        ("cache", "KV cache", cache.host_kv, _cache_formula(model, setting)),
        ("cache", "recurrent state", cache.host_state, _state_formula(setting)),
        ("compute", "compute buffer", compute.host, _compute_formula(setting)),
        ("compute", "output buffer", output_bytes(model, setting), f"{setting.parallel} × vocabulary × 4 B"),
    )
    items = [*_items(rows), item("overhead", _overhead(model, setting.ubatch_tokens, setting.format))]
    return device_footprint(machine.cpu.name, items, budget.host.usable_bytes)


#: Component, name, bytes, formula.
Row = tuple[str, str, int, str]


def _items(rows: Iterable[Row]) -> list[Item]:
    """What there is any of."""
    return [
        Item(component, name, amount, leaf(name, amount, formula, source=VERSION))
        for component, name, amount, formula in rows
        if amount
    ]


def _projector(model: Model, setting: LlamaSetting, *, here: bool) -> Row:
    amount = projector_bytes(model) if setting.projector and here else 0
    return "weights", "projector", amount, "encoders of images and sound, matrices × 2 B, vectors × 4 B"


def _kind(setting: LlamaSetting) -> str:
    return setting.format or "as stored"


def _name(machine: Machine, gpu: int) -> str:
    """The device's name, numbered where there are several."""
    return machine.gpus[gpu].name if len(machine.gpus) == 1 else f"{machine.gpus[gpu].name} #{gpu}"


def _cache_formula(model: Model, setting: LlamaSetting) -> str:
    full, windowed = _cached_layers(model)
    if not full and not windowed:
        return ""
    sizes = cache_sizes(model, setting)
    parts = [f"{full} layers × {sizes.full:,} cells"] if full else []
    parts += [f"{windowed} layers × {sizes.windowed:,} cells (window {sizes.window:,})"] if windowed else []
    caches = f", {sizes.streams} separate caches" if sizes.streams > 1 else ""
    return f"{' + '.join(parts)}, keys {setting.cache_k}, values {setting.cache_v}{caches}; the layers of this device"


@by_model
def _cached_layers(model: Model) -> tuple[int, int]:
    """(layers that keep all cells, layers with a window)."""
    windows = [m.window for m in layer_memories(model) if m.keys]
    return windows.count(None), len(windows) - windows.count(None)


def _state_formula(setting: LlamaSetting) -> str:
    return f"{setting.parallel} sequences × (convolution + state) × 4 B; the layers of this device"


def _compute_formula(setting: LlamaSetting) -> str:
    return f"largest set of intermediate results alive at once for {setting.ubatch_tokens} tokens"


__all__ = ["HOST", "assignment_of", "footprint", "gpus_in_use"]
