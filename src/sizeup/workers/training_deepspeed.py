"""One rank of DeepSpeed on fake CUDA tensors in a fake world: its own engine and ZeRO optimizers, unchanged.

An accelerator without streams stands in for the GPU, so that what DeepSpeed frees is gone at once. Numbers that it
reads back (norms, overflows) are 1 and 0. Checked with DeepSpeed 0.19.8.
"""

from __future__ import annotations

import gc
from importlib import import_module
from typing import Any


def partitioned(config: Any, setting: dict[str, Any], wanted: dict[str, Any], rank: int = 0) -> dict[str, int]:
    """The peaks of the third step in bytes, on the device and what the host holds. wanted: DeepSpeed's settings."""
    import deepspeed
    import torch
    from deepspeed.accelerator import set_accelerator
    from torch._subclasses.fake_tensor import FakeTensorMode

    from sizeup.workers import training_device, training_patches, training_step
    from sizeup.workers.training_model import built, without_cache
    from sizeup.workers.training_optimizers import optimizer_of
    from sizeup.workers.training_tracker import Ledger, tracker
    from sizeup.workers.training_world import World

    without_cache(config)
    training_device.install(torch)
    training_patches.applied(torch, padding=False)
    world = World(torch, setting, rank)
    set_accelerator(_accelerator(torch))
    _patched(torch)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        model = built(torch, config, setting, "cuda")
        ids = torch.zeros(setting["batch"], setting["sequence"], dtype=torch.long, device="cuda")
        inputs = {"input_ids": ids, "labels": ids.clone()}
        optimizer = optimizer_of(torch, model, setting)
        engine = deepspeed.initialize(model=model, optimizer=optimizer, config=_configuration(setting, wanted))[0]
        device, host = Ledger("cuda"), Ledger("cpu")
        for tensor in _alive(torch):
            device.add(tensor, "buffers")
            host.add(tensor, "buffers")
        training_step.collected()
        with tracker(torch, device, fake, world), tracker(torch, host, fake, world):
            for _ in range(3):
                device.fresh()
                loss = engine(**inputs).loss
                engine.backward(loss)
                del loss
                engine.step()
    return {"peak_bytes": int(device.peak), "host_bytes": int(host.total)}


def _configuration(setting: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    precision = setting["precision"]
    return {
        "train_micro_batch_size_per_gpu": setting["batch"],
        "zero_optimization": {"stage": int(setting["sharding"][-1])} | wanted,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
        "bf16": {"enabled": precision.startswith("bf16") and "autocast" not in precision},
    }


def _accelerator(torch: Any) -> Any:
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    class FakeCuda(CPU_Accelerator):  # type: ignore[misc]
        """DeepSpeed's processor, whose tensors say that they lie on a GPU with plenty of room."""

        def __init__(self) -> None:
            super().__init__()
            self._name, self._communication_backend_name = "cuda", "fake"

        def device_name(self, device_index: Any = None) -> str:  # noqa: ARG002
            return "cuda"

        def device(self, device_index: Any = None) -> Any:  # noqa: ARG002
            return torch.device("cuda")

        def current_device_name(self) -> str:
            return "cuda"

        def current_device(self) -> int:
            return 0

        def device_count(self) -> int:
            return 8

        def available_memory(self, device_index: Any = None) -> int:  # noqa: ARG002
            return 1 << 50

        def total_memory(self, device_index: Any = None) -> int:  # noqa: ARG002
            return 1 << 50

        def on_accelerator(self, tensor: Any) -> bool:
            return bool(tensor.device.type == "cuda")

    return FakeCuda()


def _patched(torch: Any) -> None:
    """Answers for what a fake tensor can't say: its address, its number; other ranks agree with this one."""
    torch.cuda.get_device_capability = lambda *_args: (8, 0)
    torch.Tensor.data_ptr = lambda _tensor: 0
    torch.Tensor.item = lambda tensor: 1.0 if tensor.is_floating_point() else 0
    torch.Tensor.__bool__ = lambda _tensor: False
    torch.Tensor.__float__ = lambda _tensor: 1.0
    torch.Tensor.__int__ = lambda _tensor: 1
    for module in ("partitioned_param_coordinator", "partition_parameters"):
        inside = vars(import_module(f"deepspeed.runtime.zero.{module}"))
        for name in ("assert_ints_same_as_other_ranks", "assert_lst_len_same_as_other_ranks"):
            if name in inside:
                inside[name] = lambda *_args: None


def _alive(torch: Any) -> list[Any]:
    """Every tensor that is there."""
    gc.collect()
    return [found for found in gc.get_objects() if issubclass(type(found), torch.Tensor)]
