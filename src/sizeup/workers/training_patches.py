"""What must be replaced in torch and transformers so that a step on fake tensors does what a real one does.

Each entry names the symptom that it cures: see `applied`.
"""

# What is private to torch is the point here.
# ruff: noqa: SLF001

from __future__ import annotations

import importlib
from typing import Any

_libraries: list[Any] = []
_state: dict[str, Any] = {"padding": False, "attention": None}


def applied(torch: Any, *, padding: bool, written: bool = False) -> Any:
    """Replace, and return the attention that stands in.

    SiLU's and Mish's backward fall apart into seven operations without a CUDA kernel. Attention would be `math`.
    transformers takes fake tensors for tracing and then makes masks it wouldn't make; it looks into masks for
    padding. Optimizers take the loop for tensors of an unknown type, and read the step counter. `Module.to` swaps
    tensors. Distributions look at their parameters' values. The threads of the backward pass make tensors on a
    device that isn't there, when a layer that is recomputed makes one of a number. written: an encoder may read
    padding, its decoder writes none.
    """
    from sizeup.workers.training_kernels import Attention

    _state["padding"], _state["padded"] = padding and not written, padding
    if _state["attention"] is not None:
        _state["attention"].chosen.clear()
        return _state["attention"]
    if not torch.backends.cuda.is_built():
        library = torch.library.Library("aten", "IMPL")
        for name in ("silu_backward", "mish_backward"):
            library.impl(name, lambda _gradient, x: torch.empty_like(x), "CUDA")
        _libraries.append(library)
    attention = _state["attention"] = Attention(torch)
    torch.nn.functional.scaled_dot_product_attention = attention
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda *_args, **_kwargs: True
    torch.cuda.is_current_stream_capturing = lambda: False
    torch.distributions.Distribution.set_default_validate_args(False)
    recomputing = importlib.import_module("torch.utils.checkpoint")
    run = recomputing._run_fn_with_dynamo_disabled
    recomputing._run_fn_with_dynamo_disabled = _as_in_the_first_thread(run, torch)  # type: ignore[attr-defined]
    _masks()
    _optimizers(torch)
    _module_conversion(torch)
    return attention


def _as_in_the_first_thread(original: Any, torch: Any) -> Any:
    """Recomputation in a thread of the backward pass: numbers become tensors on the host first, as under fake mode."""

    def run(function: Any, *args: Any) -> Any:
        torch._C._set_only_lift_cpu_tensors(True)
        return original(function, *args)

    return run


def _needs_no_mask(padding: Any, keys: int, window: int | None = None) -> bool:
    """Whether every token may look at every other: nothing is padded, and the window is wider than the sequence."""
    return (padding is None or not _state["padded"]) and (window is None or keys < window)


def _masks() -> None:
    masks = importlib.import_module("transformers.masking_utils")
    masks.is_tracing = lambda *_args, **_kwargs: False  # type: ignore[attr-defined]
    masks.find_packed_sequence_indices = lambda _positions: None  # type: ignore[attr-defined]
    masks._ignore_bidirectional_mask_sdpa = _needs_no_mask  # type: ignore[attr-defined]
    masks.fast_all = lambda _tensor: not _state["padding"]  # type: ignore[attr-defined]
    masks.create_recurrent_attention_mask = _recurrent_mask  # type: ignore[attr-defined]
    experts = importlib.import_module("transformers.integrations.moe")
    torch = importlib.import_module("torch")
    experts._can_use_grouped_mm = lambda _x, weight, _offsets: weight.dtype == torch.bfloat16  # type: ignore[attr-defined]


def _recurrent_mask(*_given: Any, attention_mask: Any = None, **_others: Any) -> Any:
    """The mask of layers that scan, which is none unless something is padded."""
    return attention_mask if _state["padding"] else None


def _optimizers(torch: Any) -> None:
    for name in ("optimizer", "adam", "adamw", "sgd"):
        module = importlib.import_module(f"torch.optim.{name}")
        if hasattr(module, "_get_value"):
            module._get_value = lambda value: 1.0 if isinstance(value, torch.Tensor) else value  # type: ignore[attr-defined]


def _module_conversion(torch: Any) -> None:
    from torch._subclasses.fake_tensor import FakeTensor

    original = torch.nn.Module._apply

    def convert(module: Any, function: Any, recurse: bool = True) -> Any:
        if not any(isinstance(parameter, FakeTensor) for parameter in module.parameters()):
            return original(module, function, recurse)
        if recurse:
            for child in module.children():
                convert(child, function)
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                with torch.no_grad():
                    made = function(parameter)
                if made is not parameter and made.untyped_storage() is not parameter.untyped_storage():
                    module._parameters[name] = torch.nn.Parameter(made, requires_grad=parameter.requires_grad)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = function(buffer)
        return module

    torch.nn.Module._apply = convert
