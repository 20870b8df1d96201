"""One rank of a fake world on fake CUDA tensors: no other process, the same allocations.

Data parallel by DDP or FSDP2, also with replicas (HSDP); tensor parallel by the plan that transformers has for the
model, and by torchtitan's with a stream or a loss that is split (`training_plan`); experts by transformers' plan; and
all of them together.
"""

# What is private to torch is the point here.
# ruff: noqa: SLF001

from __future__ import annotations

import contextlib
import math
import os
import types
from collections.abc import Iterator
from importlib import import_module
from typing import Any

AXES = ("replicas", "data", "expert", "tensor")


def axes_of(setting: dict[str, Any]) -> dict[str, int]:
    """The dimensions of the world that are more than one: replicas are some of the data-parallel ranks."""
    replicas = setting.get("replicas", 1)
    ways = {axis: setting.get(f"{axis}_parallel", 1) for axis in AXES}
    ways |= {"replicas": replicas, "data": setting["data_parallel"] // replicas}
    return {axis: ways[axis] for axis in AXES if ways[axis] > 1}


class _Event:
    """A CUDA event that has always happened."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None: ...

    def record(self, *_args: Any) -> _Event:
        return self

    def wait(self, *_args: Any) -> None: ...

    def synchronize(self) -> None: ...

    def query(self) -> bool:
        return True


class _Stream:
    """A CUDA stream without work."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None: ...

    def wait_event(self, *_args: Any) -> None: ...

    def wait_stream(self, *_args: Any) -> None: ...

    def record_event(self, *_args: Any) -> _Event:
        return _Event()

    def synchronize(self) -> None: ...


@contextlib.contextmanager
def _no_stream(_stream: Any) -> Iterator[None]:
    yield


def _handle() -> types.ModuleType:
    """What torch takes for its module of the device."""
    handle = types.ModuleType("fake_cuda")
    current = _Stream()
    members: dict[str, Any] = {
        "Stream": _Stream, "Event": _Event, "stream": _no_stream,
        "current_stream": lambda *_args: current, "current_device": lambda: 0, "device_count": lambda: 8,
        "is_initialized": lambda: True, "is_available": lambda: True, "set_device": lambda *_args: None,
        "synchronize": lambda *_args: None, "manual_seed": lambda *_args: None,
    }  # fmt: skip
    vars(handle).update(members)
    return handle


class _Reducer:
    """DDP's reducer, which doesn't sort its buckets anew after the first step: that reads numbers back."""

    def __init__(self, reducer: Any) -> None:
        self._own = reducer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def _rebuild_buckets(self) -> bool:
        return False


class World:
    """The mesh, and what the tracker must know of distributed tensors.

    propagating: above 0 while torch works out how shards flow: it computes with whole tensors then, which no rank has.
    """

    def __init__(self, torch: Any, setting: dict[str, Any], rank: int = 0) -> None:
        from torch import distributed
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor import DTensor
        from torch.testing._internal.distributed.fake_pg import FakeStore

        for name in ("_functional_collectives", "_tools.fake_collectives"):
            import_module(f"torch.distributed.{name}")
        os.environ["LOCAL_RANK"] = "0"
        if not torch.cuda.is_available():
            self._replace_handles()
        torch.cuda.get_device_capability = lambda *_args: (8, 0)
        axes = axes_of(setting)
        count = math.prod(axes.values())
        distributed.init_process_group("fake", rank=rank, world_size=count, store=FakeStore())
        self._real_meshes()
        self.mesh = init_device_mesh("cuda", tuple(axes.values()), mesh_dim_names=tuple(axes))
        self.setting = setting
        self.tensor_type = DTensor
        self.wait = torch.ops._c10d_functional.wait_tensor.default
        self.propagating = 0
        self._watch_propagation()

    @staticmethod
    def _replace_handles() -> None:
        handle = _handle()
        inside = "torch.distributed.fsdp._fully_shard"
        for name in (
            "torch.distributed.device_mesh", f"{inside}._fsdp_collectives", f"{inside}._fsdp_init",
            f"{inside}._fsdp_param_group", f"{inside}._fsdp_state",
        ):  # fmt: skip
            vars(import_module(name))["_get_device_handle"] = lambda *_args: handle

    @staticmethod
    def _real_meshes() -> None:
        """A mesh of devices looks its rank up in numbers, which fake ones don't have."""
        from torch._subclasses.fake_tensor import unset_fake_temporarily
        from torch.distributed.device_mesh import DeviceMesh

        for name in ("_concatenate", "__init__", "__getitem__"):
            kind, original = vars(DeviceMesh).get(name), getattr(DeviceMesh, name, None)
            if original is None or getattr(original, "real", False):
                continue

            def run(*args: Any, original: Any = original, **kwargs: Any) -> Any:
                with unset_fake_temporarily():
                    return original(*args, **kwargs)

            run.real = True  # type: ignore[attr-defined]
            setattr(DeviceMesh, name, staticmethod(run) if isinstance(kind, staticmethod | classmethod) else run)

    def _watch_propagation(self) -> None:
        from torch.distributed.tensor._sharding_prop import ShardingPropagator

        name = "_propagate_tensor_meta_non_cached"
        original = getattr(ShardingPropagator, name)

        def watched(propagator: Any, *args: Any, **kwargs: Any) -> Any:
            self.propagating += 1
            try:
                return original(propagator, *args, **kwargs)
            finally:
                self.propagating -= 1

        setattr(ShardingPropagator, name, watched)

    def local(self, tensor: Any) -> Any:
        """The part of a tensor that this rank holds."""
        return tensor._local_tensor if isinstance(tensor, self.tensor_type) else tensor

    def spread(self, torch: Any, model: Any) -> Any:
        """The model as this rank holds it: split, then sharded or wrapped."""
        setting = self.setting
        if setting["tensor_parallel"] > 1:
            self._split(torch, model)
        if setting.get("expert_parallel", 1) > 1:
            self._deal_experts(model)
        if setting["sharding"] == "fsdp":
            self._shard(torch, model)
        elif setting["data_parallel"] > 1:
            return self._copied(torch, model)
        return model

    def _copied(self, torch: Any, model: Any) -> Any:
        """Under DDP, whose reductions are over as soon as they are asked for."""
        wrapped = torch.nn.parallel.DistributedDataParallel(
            model,
            process_group=self.mesh["data"].get_group(),
            init_sync=False,
            gradient_as_bucket_view=self.setting["bucket_views"],
        )

        def reduced(_state: object, bucket: Any) -> Any:
            future = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future

        reduced.__annotations__.clear()
        wrapped.register_comm_hook(None, reduced)
        wrapped.reducer = _Reducer(wrapped.reducer)
        wrapped.logger = types.SimpleNamespace(set_runtime_stats_and_log=lambda: None)
        return wrapped

    def _split(self, torch: Any, model: Any) -> None:
        """Tensor parallelism by the model's own plan, or torchtitan's; what is tied is tied anew."""
        from transformers.distributed.configuration_utils import DistributedConfig
        from transformers.distributed.tensor_parallel import apply_tensor_parallelism

        from sizeup.workers.training_plan import split_stream

        mesh = self.mesh["tensor"]
        if self.setting.get("sequence_parallel") or self.setting.get("loss_parallel"):
            split_stream(torch, model, mesh, self.setting)
            return
        plan = model._resolve_parallel_plans(DistributedConfig(tp_size=mesh.size()))[0]
        there = {name for name, _ in model.named_parameters()} | {name for name, _ in model.named_modules()}
        apply_tensor_parallelism(model, mesh, {name: style for name, style in plan.items() if name in there})
        model.tie_weights()

    def _deal_experts(self, model: Any) -> None:
        """Every rank sees all tokens and computes its own experts; their outputs are summed."""
        from transformers.distributed.configuration_utils import DistributedConfig
        from transformers.distributed.tensor_parallel import apply_expert_parallelism

        mesh = self.mesh["expert"]
        plan = model._resolve_parallel_plans(DistributedConfig(fsdp_size=mesh.size(), ep_size=mesh.size()))[1]
        apply_expert_parallelism(model, mesh, mesh, plan, ep_implementation="all_reduce")

    def _shard(self, torch: Any, model: Any) -> None:
        """`fully_shard` on every layer and on the whole; gathered in bf16 and reduced in fp32 unless all is bf16."""
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        mixed = self.setting["precision"] != "bf16"
        types_ = {"param_dtype": torch.bfloat16, "reduce_dtype": torch.float32} if mixed else {}
        policy = MixedPrecisionPolicy(**types_)
        names = set(getattr(model, "_no_split_modules", None) or ())
        layers = [module for module in model.modules() if type(module).__name__ in names]
        mesh = self.mesh["replicas", "data"] if self.setting.get("replicas", 1) > 1 else self.mesh["data"]
        for module in (*layers, model):
            fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=self.setting["reshard"])
