"""Worker: the peak of a training step, from the real modules of transformers and peft on fake CUDA tensors.

    job      {"config": config.json, "setting": {the fields of TrainSetting}, "layers": depth (default: the model's),
              "replay": whether the caching allocator is replayed, "real": run real tensors on the CPU instead}
    answer   {"event": "result", "peak_bytes", "phases" {name: bytes}, "categories" {name: bytes at the peak},
              "operation", "kernels", "reserved_bytes", "parameters", "versions", "seconds"}

No GPU, no weights. Covered: full, LoRA, QLoRA, DoRA; every precision and optimizer; checkpointing of every and of
every n-th layer, by operation, with inputs on the host; SDPA and eager; DDP, FSDP2, HSDP, tensor, sequence and expert
parallel. Anything else is refused by name.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from sizeup.workers.protocol import Refused, Say, answer

REFUSED: dict[str, set[object]] = {
    "loss": {"standard", "narrow", "chunked", "tiled"},
    "attention": {"sdpa", "eager"},
    "kernels": {"none", None},
    "sharding": {"none", "ddp", "fsdp"},
    "pipeline_parallel": {1},
    "context_parallel": {1},
    "offload_optimizer": {False},
    "offload_weights": {False},
}


def work(job: dict[str, Any], say: Say) -> None:
    """Build, run two steps, report the second."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    warnings.simplefilter("ignore")
    setting = job.get("setting")
    if not isinstance(setting, dict) or not isinstance(job.get("config"), dict):
        raise Refused("config", "the job needs a config and a setting")
    for name, known in REFUSED.items():
        if setting.get(name) not in known:
            raise Refused("config", f"{name}={setting.get(name)!r} isn't simulated, only estimated")
    if setting["tensor_parallel"] * setting["expert_parallel"] > 1 and setting["method"] != "full":
        raise Refused("config", "tensor_parallel and expert_parallel are simulated with method='full'")
    say("result", **simulated(job, setting))


def simulated(job: dict[str, Any], setting: dict[str, Any]) -> dict[str, Any]:
    """Run the job in this process."""
    began = time.monotonic()
    import torch
    import transformers

    from sizeup.workers import training_device, training_patches, training_step
    from sizeup.workers.training_model import built, dtype_of, without_cache
    from sizeup.workers.training_objective import prepared
    from sizeup.workers.training_optimizers import optimizer_of
    from sizeup.workers.training_plan import split_loss
    from sizeup.workers.training_task import head_of, inputs_of, with_labels
    from sizeup.workers.training_tracker import Ledger, tracker
    from sizeup.workers.training_world import World, axes_of
    from sizeup.workers.transformers_meta import configuration

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    head = head_of(job["config"], setting)
    config = with_labels(depth(configuration(job["config"]), job.get("layers")), job["config"], setting)
    without_cache(config)
    real = bool(job.get("real"))
    kind = "cpu" if real else "cuda"
    attention = None
    if not real:
        training_device.install(torch)
        written = getattr(config, "is_encoder_decoder", False)
        attention = training_patches.applied(torch, padding=setting["padding"], written=written)
    world = World(torch, setting) if axes_of(setting) else None
    from torch._subclasses.fake_tensor import FakeTensorMode

    fake = None if real else FakeTensorMode(allow_non_fake_inputs=True)
    with fake or contextlib.nullcontext():
        model = built(torch, config, setting, kind, head)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        if world is not None:
            model = world.spread(torch, model)
        optimizer = optimizer_of(torch, model, setting)
        inputs = inputs_of(torch, config, setting, head, dtype_of(torch, setting), kind, real=real)
        known = None
        if setting.get("images"):
            known = training_step.with_images(torch, config, setting, inputs, kind, real=real)
        reference, known = prepared(torch, config, model, inputs, setting, kind, known)
        training_step.collected()
        ledger = Ledger(kind, exact=real, events=bool(job.get("replay")))
        training_step.watched(model, inputs, ledger, world.local if world else _itself)
        if reference is not None:
            training_step.watched(reference, {}, ledger, _itself)
        training_step.follow_layers(model, ledger)
        with tracker(torch, ledger, fake, world, known), _resizes(torch, ledger), split_loss(torch, setting):
            for _ in range(2):
                training_step.run_step(torch, model, optimizer, inputs, setting, ledger, kind, reference)
    return _found(ledger) | {
        "kernels": attention.chosen if attention else {},
        "parameters": parameters,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "seconds": round(time.monotonic() - began, 2),
    }


def _found(ledger: Any) -> dict[str, Any]:
    """What the ledger saw of the second step."""
    return {
        "peak_bytes": ledger.peak,
        "phases": ledger.peaks,
        "categories": ledger.at_peak,
        "operation": ledger.operation,
        "reserved_bytes": _reserved(ledger),
    }


def depth(config: Any, layers: int | None) -> Any:
    """The configuration with that many layers (of each stack)."""
    if layers is None:
        return config
    for name in (
        "num_hidden_layers",
        "num_layers",
        "num_decoder_layers",
        "n_layer",
        "encoder_layers",
        "decoder_layers",
    ):
        if getattr(config, name, None) is not None:
            setattr(config, name, layers)
    for name in ("layer_types", "mlp_layer_types"):
        kinds = getattr(config, name, None)
        if kinds:
            setattr(config, name, kinds[:layers])
    return config


def _itself(tensor: Any) -> Any:
    return tensor


@contextlib.contextmanager
def _resizes(torch: Any, ledger: Any) -> Any:
    """Follow storages that FSDP empties and fills."""
    original = torch.UntypedStorage.resize_

    def resize(storage: Any, size: int) -> Any:
        result = original(storage, size)
        ledger.resized(storage)
        return result

    torch.UntypedStorage.resize_ = resize
    try:
        yield
    finally:
        torch.UntypedStorage.resize_ = original


def _reserved(ledger: Any) -> int | None:
    if ledger.events is None:
        return None
    from sizeup.workers.training_allocator import replay

    return replay(ledger.events).peak_reserved


if __name__ == "__main__":
    sys.exit(answer(work))
