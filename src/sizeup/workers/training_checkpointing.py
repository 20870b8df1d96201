"""Recomputation of layers as a setting asks for it: all of them, every n-th, by operation, with inputs on the host."""

from __future__ import annotations

import functools
import re
from typing import Any

#: Modules of a tower, without what leads from it into the text; its layers are counted apart.
TOWER = r".*\b(vision_tower|vision_model|vision_encoder|visual\.(?!merger|deepstack_merger|downsample)).*"


def recompute(torch: Any, model: Any, setting: dict[str, Any]) -> None:
    """Switch on `torch.utils.checkpoint` for the model's layers, without reentrance."""
    kind = setting["checkpointing"]
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if kind == "selective":
        options["context_fn"] = functools.partial(_contexts, torch)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    kinds = set(model._no_split_modules or ())  # noqa: SLF001
    stacks: dict[bool, list[Any]] = {True: [], False: []}
    for name, module in model.named_modules():
        if getattr(module, "gradient_checkpointing", None) is True and type(module).__name__ in kinds:
            stacks[bool(re.fullmatch(TOWER, name))].append(module)
    every = int(kind) if kind.isdecimal() else 1
    for repeated in stacks.values():
        for place, layer in enumerate(repeated):
            layer.gradient_checkpointing = place % every == 0
            if setting["offload_activations"]:
                again = layer._gradient_checkpointing_func  # noqa: SLF001
                layer._gradient_checkpointing_func = _offloaded(torch, again)  # noqa: SLF001


def _contexts(torch: Any) -> Any:
    """Results of matrix products and of attention are kept; everything else is computed again."""
    aten = torch.ops.aten
    names = (
        "mm", "addmm", "bmm", "_grouped_mm", "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention", "_scaled_mm",
    )  # fmt: skip
    kept = [getattr(aten, name).default for name in names]
    return torch.utils.checkpoint.create_selective_checkpoint_contexts(kept)


def _offloaded(torch: Any, run: Any) -> Any:
    """What recomputation starts from goes to the host, and comes back when it is needed."""

    @functools.wraps(run)
    def saved(*arguments: Any, **named: Any) -> Any:
        with torch.autograd.graph.save_on_cpu():
            return run(*arguments, **named)

    return saved
