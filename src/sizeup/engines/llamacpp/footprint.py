"""The whole footprint of a model under llama.cpp: weights, cache, compute, overhead, on each device."""

from __future__ import annotations

from sizeup.engines.llamacpp.backends import Backend, backend_of, repack_rule
from sizeup.engines.llamacpp.cache import PlacedCache, cache_sizes, layer_memories, placed_cache
from sizeup.engines.llamacpp.companions import projector_bytes
from sizeup.engines.llamacpp.compute import PlacedCompute, compute_buffers
from sizeup.engines.llamacpp.names import layer_count
from sizeup.engines.llamacpp.output import output_bytes
from sizeup.engines.llamacpp.overhead import device_overhead, host_overhead
from sizeup.engines.llamacpp.setting import ALL_LAYERS, VERSION, LlamaSetting, checked
from sizeup.engines.llamacpp.weights import HOST, Assignment, PlacedWeights, assign, placed_weights
from sizeup.estimate.footprint import DeviceFootprint, Footprint, Item, device_footprint, item
from sizeup.estimate.footprint import footprint as total_footprint
from sizeup.machines.budget import Budget, machine_budget
from sizeup.machines.device import Machine
from sizeup.models.model import Model
from sizeup.quantity import Term, leaf


def footprint(model: Model, setting: LlamaSetting, machine: Machine, budget: Budget | None = None) -> Footprint:
    """What the model takes on each device of the machine under this setting: GPUs in order, then the host.

    `gpu_layers=None` counts as all of them; `sizeup.engines.llamacpp.placement.place` finds how many fit.
    budget: of the machine, when it is known already.
    Raises BadInput for a setting that llama.cpp refuses, NotFound for a family that it doesn't load.
    """
    checked(setting)
    budget = budget or machine_budget(machine)
    backends = tuple(backend_of(gpu) for gpu in machine.gpus)
    places = assignment_of(model, setting, machine, budget)
    weights = placed_weights(model, setting, places, backends, repack_rule(machine.cpu))
    cache = placed_cache(model, setting, places, backends)
    compute = compute_buffers(model, setting, places, backends)
    used = gpus_in_use(setting, machine)
    devices = [
        _gpu(gpu, machine, backends[gpu], (weights, cache, compute), model, setting, places, budget) for gpu in used
    ]
    devices.append(_host(machine, (weights, cache, compute), model, setting, budget))
    return total_footprint(devices)


def assignment_of(model: Model, setting: LlamaSetting, machine: Machine, budget: Budget) -> Assignment:
    """Where each layer goes: `-ngl` layers over the GPUs by `--tensor-split`, else by their free memory."""
    used = gpus_in_use(setting, machine)
    if not used:
        return assign(layer_count(model), 0, ())
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
    experts = weights.gpu_experts[gpu]
    items = [
        _item(
            "weights",
            "weights",
            weights.gpus[gpu] - experts,
            f"{layers} of {len(places.layers) + 1} layers, {_kind(setting)}",
        ),
        _item("weights", "routed experts", experts, f"merged experts of these layers, {_kind(setting)}"),
        *_projector(model, setting, here=gpu == gpus_in_use(setting, machine)[0]),
        _item("cache", "KV cache", cache.kv[gpu], _cache_formula(model, setting)),
        _item("cache", "recurrent state", cache.state[gpu], _state_formula(setting)),
        _item("compute", "compute buffer", compute.gpus[gpu], _compute_formula(setting)),
        item("overhead", device_overhead(backend)),
    ]
    return device_footprint(_name(machine, gpu), (i for i in items if i.bytes), budget.gpus[gpu].usable_bytes)


def _host(machine: Machine, parts: Parts, model: Model, setting: LlamaSetting, budget: Budget) -> DeviceFootprint:
    weights, cache, compute = parts
    how = "mapped file: pages that the system may drop and read again" if setting.mmap else "read into memory"
    items = [
        _item("weights", "weights on the host", weights.plain, f"{_kind(setting)}, {how}"),
        _item("weights", "repacked weights", weights.repacked, "rearranged for this processor, anonymous memory"),
        *_projector(model, setting, here=not gpus_in_use(setting, machine)),
        _item("cache", "KV cache", cache.host_kv, _cache_formula(model, setting)),
        _item("cache", "recurrent state", cache.host_state, _state_formula(setting)),
        _item("compute", "compute buffer", compute.host, _compute_formula(setting)),
        _item("compute", "output buffer", output_bytes(model, setting), f"{setting.parallel} × vocabulary × 4 B"),
        item("overhead", host_overhead(model)),
    ]
    return device_footprint(machine.cpu.name, (i for i in items if i.bytes), budget.host.usable_bytes)


def _projector(model: Model, setting: LlamaSetting, *, here: bool) -> list[Item]:
    amount = projector_bytes(model) if setting.projector and here else 0
    return [_item("weights", "projector", amount, "encoders of images and sound, matrices × 2 B, vectors × 4 B")]


def _item(component: str, name: str, amount: int, formula: str) -> Item:
    return item(component, _term(name, amount, formula))


def _term(name: str, amount: int, formula: str) -> Term:
    return leaf(name, amount, formula, source=VERSION)


def _kind(setting: LlamaSetting) -> str:
    return setting.format or "as stored"


def _name(machine: Machine, gpu: int) -> str:
    """The device's name, numbered where there are several."""
    return machine.gpus[gpu].name if len(machine.gpus) == 1 else f"{machine.gpus[gpu].name} #{gpu}"


def _cache_formula(model: Model, setting: LlamaSetting) -> str:
    layers = layer_memories(model)
    if not layers:
        return ""
    sizes = cache_sizes(model, setting)
    full = sum(1 for m in layers if m.keys and m.window is None)
    windowed = sum(1 for m in layers if m.keys and m.window is not None)
    parts = [f"{full} layers × {sizes.full:,} cells"] if full else []
    parts += [f"{windowed} layers × {sizes.windowed:,} cells (window {sizes.window:,})"] if windowed else []
    caches = f", {sizes.streams} separate caches" if sizes.streams > 1 else ""
    return f"{' + '.join(parts)}, keys {setting.cache_k}, values {setting.cache_v}{caches}; the layers of this device"


def _state_formula(setting: LlamaSetting) -> str:
    return f"{setting.parallel} sequences × (convolution + state) × 4 B; the layers of this device"


def _compute_formula(setting: LlamaSetting) -> str:
    return f"largest set of intermediate results alive at once for {setting.ubatch_tokens} tokens"


__all__ = ["HOST", "assignment_of", "footprint", "gpus_in_use"]
