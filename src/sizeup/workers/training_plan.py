"""Tensor parallelism as torchtitan lays it out: the stream split along the sequence, the loss along the vocabulary.

Norms work on parts of the sequence; attention and feed-forward are given the whole, and their outputs are scattered.
For decoders whose modules have Llama's names. Source: torchtitan, `models/llama3/infra/parallelize.py` (apply_tp).
"""

from __future__ import annotations

import contextlib
from typing import Any

INWARD = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
OUTWARD = ("self_attn.o_proj", "mlp.down_proj")
NORMS = ("input_layernorm", "post_attention_layernorm")


def split_stream(torch: Any, model: Any, mesh: Any, setting: dict[str, Any]) -> None:
    """Split a model over a mesh."""
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        PrepareModuleInput,
        RowwiseParallel,
        SequenceParallel,
        parallelize_module,
    )

    parted, whole = setting.get("sequence_parallel", False), Replicate()
    stream = Shard(1) if parted else whole
    loss = setting.get("loss_parallel", False)
    logits = Shard(-1) if loss else whole
    plan: dict[str, Any] = {
        "model.embed_tokens": RowwiseParallel(input_layouts=whole, output_layouts=stream),
        "lm_head": ColwiseParallel(input_layouts=stream, output_layouts=logits, use_local_output=not loss),
    }
    if parted:
        plan["model.norm"] = SequenceParallel()
    for number in range(len(model.model.layers)):
        layer = f"model.layers.{number}."
        plan |= {layer + name: ColwiseParallel() for name in INWARD}
        plan |= {layer + name: RowwiseParallel(output_layouts=stream) for name in OUTWARD}
        if parted:
            plan |= {layer + name: SequenceParallel() for name in NORMS}
            plan[layer + "self_attn"] = PrepareModuleInput(
                input_kwarg_layouts={"hidden_states": stream}, desired_input_kwarg_layouts={"hidden_states": whole}
            )
            plan[layer + "mlp"] = PrepareModuleInput(input_layouts=(stream,), desired_input_layouts=(whole,))
    parallelize_module(model, mesh, plan)
    if parted:
        model.model.register_forward_pre_hook(_positions(torch, setting["sequence"]), with_kwargs=True)


def _positions(torch: Any, sequence: int) -> Any:
    """Positions of the whole sequence: the model would count those of its part."""

    def given(_module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, kwargs | {"position_ids": torch.arange(sequence, device="cuda").unsqueeze(0)}

    return given


@contextlib.contextmanager
def split_loss(torch: Any, setting: dict[str, Any]) -> Any:
    """The loss of logits that are split. Its backward pass is Python code, which adds out of place."""
    if not setting.get("loss_parallel"):
        yield
        return
    from torch.distributed.tensor.parallel import loss, loss_parallel

    name = "_nll_loss_and_log_softmax_backward"
    original = getattr(loss, name)

    def apart(*args: Any, **kwargs: Any) -> Any:
        with torch.enable_grad():
            return original(*args, **kwargs)

    setattr(loss, name, apart)
    try:
        with loss_parallel():
            yield
    finally:
        setattr(loss, name, original)
