"""One rank of a pipeline on fake CUDA tensors: torch's own schedules and stages, around parts of a model.

Nothing is sent: what would be received lies in the buffers that the stages make for it. Decoders of Llama's build.
"""

# What is private to torch is the point here.
# ruff: noqa: SLF001

from __future__ import annotations

import contextlib
from importlib import import_module
from typing import Any

#: Chunks of layers that a rank has, where it isn't one.
CHUNKS = {"interleaved": 2}
SCHEDULES = {"gpipe": "ScheduleGPipe", "1f1b": "Schedule1F1B", "interleaved": "ScheduleInterleaved1F1B"}


def piped(config_of: Any, setting: dict[str, Any], rank: int) -> int:
    """The peak of a rank's second step in bytes. config_of: makes a configuration anew."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from sizeup.workers import training_device, training_patches, training_step
    from sizeup.workers.training_optimizers import optimizer_of
    from sizeup.workers.training_tracker import Ledger, tracker

    training_device.install(torch)
    training_patches.applied(torch, padding=False)
    _patched(torch)
    for name in ("_functional_collectives", "_tools.fake_collectives"):
        import_module(f"torch.distributed.{name}")
    stages, micro = setting["pipeline_parallel"], setting["micro_batches"]
    torch.distributed.init_process_group("fake", rank=rank, world_size=stages, store=FakeStore())
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        chunks = CHUNKS.get(setting["schedule"], 1)
        made = [_stage(torch, config_of(), setting, rank + n * stages, stages * chunks) for n in range(chunks)]
        holder = torch.nn.ModuleList([stage.submod for stage in made])
        optimizer = optimizer_of(torch, holder, setting)
        vocabulary = config_of().vocab_size
        schedule = _schedule(setting["schedule"], made, micro, vocabulary)
        shape = (micro * setting["batch"], setting["sequence"])
        ids, labels = (torch.zeros(*shape, dtype=torch.long, device="cuda") for _ in range(2))
        args = (ids,) if rank == 0 else ()
        kwargs = {"target": labels} if any(stage.is_last for stage in made) else {}
        training_step.collected()
        ledger = Ledger("cuda")
        inputs = {str(place): tensor for place, tensor in enumerate((*args, *kwargs.values()))}
        training_step.watched(holder, inputs, ledger, lambda tensor: tensor)
        with tracker(torch, ledger, fake, None):
            for _ in range(2):
                ledger.fresh()
                ledger.category = "temporaries"
                schedule.step(*args, **kwargs, return_outputs=False)
                ledger.category = "optimizer"
                optimizer.step()
                optimizer.zero_grad()
    torch.distributed.destroy_process_group()
    return int(ledger.peak)


def _patched(torch: Any) -> None:
    """Shapes are told, not asked of other ranks; the device has no random numbers to keep."""
    from torch.distributed.pipelining import schedules, stage

    def told(_schedule: Any, stages: list[Any], _backward: bool, _done: bool) -> None:
        for one in stages:
            one._inference_mode = stage.InferenceMode.STATIC

    schedules._PipelineSchedule._warmup_p2p = told
    torch.random.fork_rng = lambda *_args, **_kwargs: contextlib.nullcontext()
    torch.cuda.get_device_capability = lambda *_args: (8, 0)


def _stage(torch: Any, config: Any, setting: dict[str, Any], number: int, count: int) -> Any:
    """A chunk of the model as a stage."""
    from torch.distributed.pipelining import PipelineStage

    from sizeup.workers.training_model import built, dtype_of, without_cache

    without_cache(config)
    layers = config.num_hidden_layers
    held = range(-(-layers * number // count), -(-layers * (number + 1) // count))
    model = built(torch, config, setting, "cuda")
    part = _part(torch, model, held, first=number == 0, last=number == count - 1)
    tokens = (setting["batch"], setting["sequence"])
    dtype = dtype_of(torch, setting)

    def stream(width: int) -> Any:
        return torch.empty(*tokens, width, dtype=dtype, device="meta").requires_grad_()

    ids = torch.zeros(*tokens, dtype=torch.long, device="meta")
    given = ids if number == 0 else stream(config.hidden_size)
    made = stream(config.vocab_size if number == count - 1 else config.hidden_size)
    return PipelineStage(part, number, count, torch.device("cuda"), input_args=(given,), output_args=(made,))


def _part(torch: Any, model: Any, layers: range, *, first: bool, last: bool) -> Any:
    """The model with those layers only, the ends where they belong."""
    inner = model.model
    inner.layers = torch.nn.ModuleList([inner.layers[number] for number in layers])
    model.config.num_hidden_layers = len(layers)
    if not first:
        inner.embed_tokens = None
    if not last:
        inner.norm, model.lm_head = torch.nn.Identity(), None

    class Part(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model if last else inner

        def forward(self, x: Any) -> Any:
            output = self.model(**({"input_ids": x} if first else {"inputs_embeds": x}))
            return output.logits if last else output.last_hidden_state

    return Part()


def _schedule(name: str, stages: list[Any], micro: int, vocabulary: int) -> Any:
    from torch.distributed import pipelining
    from transformers.loss.loss_utils import ForCausalLMLoss

    def loss(logits: Any, labels: Any) -> Any:
        return ForCausalLMLoss(logits, labels, vocabulary)

    kind = getattr(pipelining, SCHEDULES[name])
    return kind(stages if len(stages) > 1 else stages[0], micro, loss_fn=loss)
