"""A training step under the tracker: forward, backward, clipping, optimizer; layers' backwards are phases."""

from __future__ import annotations

import contextlib
import gc
from typing import Any

from sizeup.workers.training_objective import output_of
from sizeup.workers.training_tracker import Ledger


def follow_layers(model: Any, ledger: Ledger) -> None:
    """Name the phase of the backward pass by the layer that it is in."""
    inner = getattr(model, "module", model)
    names = set(getattr(inner, "_no_split_modules", None) or ())
    layers = [module for module in model.modules() if type(module).__name__.removeprefix("FSDP") in names]
    for place, layer in enumerate(layers):
        last, first = place == len(layers) - 1, place == 0
        name = "backward of the last layer" if last else "backward of the first layer" if first else ""
        layer.register_forward_hook(_after(ledger, name or "backward of the layers"))
    if layers:
        layers[0].register_forward_pre_hook(_before(ledger), with_kwargs=True)


def _enter(ledger: Ledger, phase: str) -> Any:
    def hook(_gradient: Any) -> None:
        if ledger.category == "temporaries":
            ledger.phase = phase

    return hook


def _after(ledger: Ledger, phase: str) -> Any:
    def hook(_module: Any, _args: Any, output: Any) -> None:
        tensor = output[0] if isinstance(output, tuple) else output
        if tensor.requires_grad and ledger.category == "activations":
            tensor.register_hook(_enter(ledger, phase))

    return hook


def _before(ledger: Ledger) -> Any:
    def hook(_module: Any, args: Any, kwargs: Any) -> None:
        tensor = args[0] if args else kwargs.get("hidden_states")
        if tensor is not None and tensor.requires_grad and ledger.category == "activations":
            tensor.register_hook(_enter(ledger, "backward of the ends"))

    return hook


def with_images(
    torch: Any, config: Any, setting: dict[str, Any], inputs: dict[str, Any], device: str, *, real: bool = False
) -> Any:
    """Put images into the inputs; returns the values that shapes depend on, None where tensors have all of theirs."""
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    from sizeup.workers.training_images import known_inputs, pixels_of
    from sizeup.workers.training_known import Known

    with unset_fake_temporarily():
        values = known_inputs(torch, config, setting)
    shape = pixels_of(config, setting)
    if real:
        inputs.update({name: value.to(device) for name, value in values.items()})
        inputs["pixel_values"] = torch.randn(shape, device=device)
        return None
    known = Known(torch)
    for name, value in values.items():
        inputs[name] = known.tell(torch.zeros(value.shape, dtype=value.dtype, device=device), value)
    if "pixel_values" not in values:
        inputs["pixel_values"] = torch.zeros(shape, device=device)
    return known


def watched(model: Any, inputs: dict[str, Any], ledger: Ledger, local: Any) -> None:
    """Count what is there before the step, and gradients as they come."""
    for parameter in model.parameters():
        ledger.add(local(parameter), "weights", force=True)
        if parameter.requires_grad:
            hook = lambda found: ledger.add(local(found.grad), "gradients", force=True)  # noqa: E731
            parameter.register_post_accumulate_grad_hook(hook)
    for buffer in model.buffers():
        ledger.add(local(buffer), "buffers", force=True)
    for tensor in inputs.values():
        if hasattr(tensor, "untyped_storage"):
            ledger.add(tensor, "inputs", force=True)


def run_step(
    torch: Any, model: Any, optimizer: Any, inputs: dict[str, Any], setting: dict[str, Any], ledger: Ledger, kind: str,
    reference: Any = None,
) -> None:  # fmt: skip
    """One step; the second is the steady one, since the first has no optimizer states yet."""
    ledger.fresh()
    ledger.category, ledger.phase = "activations", "forward"
    autocast = "autocast" in setting["precision"] or setting["method"] == "qlora"
    with torch.autocast(kind, dtype=torch.bfloat16) if autocast else contextlib.nullcontext():
        output = output_of(torch, model, inputs, setting, reference)
    loss = output.loss
    if not setting["keeps_outputs"]:
        del output
    ledger.category, ledger.phase = "temporaries", "backward of the head"
    loss.backward()
    if setting["keeps_outputs"]:
        del output
    del loss
    if setting["gradient_clip"]:
        ledger.phase = "gradient clipping"
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
    ledger.category, ledger.phase = "optimizer", "optimizer step"
    optimizer.step()
    if not setting["accumulating"]:
        optimizer.zero_grad(set_to_none=True)


def collected() -> None:
    """Let go of what building left behind."""
    gc.collect()
