"""The optimizer of a training step: classes of torch, transformers, bitsandbytes, lion-pytorch and galore-torch.

On fake tensors bitsandbytes' kernels do nothing, which is what they allocate; managed memory, which no allocator of
torch sees, becomes tensors of another device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

GALORE = {"rank": 128, "update_proj_gap": 200, "scale": 0.25, "proj_type": "std"}
LR = 1e-4
#: Optimizers that ask which module a weight belongs to.
BY_MODULE = frozenset({"muon", "galore", "adam8bit", "paged_adam8bit", "lion8bit"})


def optimizer_of(torch: Any, model: Any, setting: dict[str, Any]) -> Any:
    """The setting's optimizer over everything that trains. Raises ValueError for one that isn't simulated."""
    if setting["precision"] == "bf16-fp32-master":
        if setting["optimizer"] in BY_MODULE:
            raise ValueError(f"optimizer {setting['optimizer']} isn't simulated with master copies")
        return Masters(torch, model, setting["optimizer"])
    return _named(torch, model, setting["optimizer"], groups_of(model))


def _named(torch: Any, model: Any, name: str, groups: list[dict[str, Any]]) -> Any:
    ways = {"adamw_fused": {"fused": True}, "adamw_foreach": {"foreach": True}, "adamw_loop": {"foreach": False}}
    if name in ways:
        return torch.optim.AdamW(groups, lr=LR, **ways[name])
    if name in {"sgd", "sgd_momentum"}:
        return torch.optim.SGD(groups, lr=LR, momentum=0.9 if name == "sgd_momentum" else 0.0, foreach=True)
    if name == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(groups, lr=LR, scale_parameter=False, relative_step=False)
    if name == "adafactor_torch":
        return torch.optim.Adafactor(groups, lr=LR)
    makers: dict[str, Callable[..., Any]] = {"muon": _muon, "lion": _lion, "galore": _galore}
    if name in makers:
        return makers[name](torch, model, groups)
    if name in EIGHT_BIT:
        return _bitsandbytes(torch, model, groups, *EIGHT_BIT[name])
    raise ValueError(f"optimizer {name} isn't simulated; the estimate covers it")


def groups_of(model: Any) -> list[dict[str, Any]]:
    """What trains, distributed tensors apart from others: an optimizer can't take both at once."""
    groups: dict[Any, list[Any]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault(hasattr(parameter, "to_local"), []).append(parameter)
    return [{"params": group} for group in groups.values()]


class Masters:
    """Steps an fp32 copy of each weight by its gradient in fp32, and rounds it back; gradients stay until dropped.

    Apex O2 and Megatron's optimizer that isn't distributed do so.
    """

    def __init__(self, torch: Any, model: Any, name: str) -> None:
        self.torch, self.model, self.name = torch, model, name
        self.weights = [parameter for group in groups_of(model) for parameter in group["params"]]
        self.copies: list[Any] = []
        self.optimizer: Any = None

    def step(self) -> None:
        """Cast gradients, step, round. Copies are made in the first step, so that they are counted."""
        torch = self.torch
        if self.optimizer is None:
            self.copies = [torch.nn.Parameter(weight.detach().float()) for weight in self.weights]
            self.optimizer = _named(torch, self.model, self.name, [{"params": self.copies}])
        for weight, copy in zip(self.weights, self.copies, strict=True):
            copy.grad = weight.grad.float()
        self.optimizer.step()
        with torch.no_grad():
            for weight, copy in zip(self.weights, self.copies, strict=True):
                copy.grad = None
                weight.copy_(copy)

    def zero_grad(self, *, set_to_none: bool = True) -> None:
        """Drop all gradients."""
        for weight in self.weights:
            weight.grad = None if set_to_none else self.torch.zeros_like(weight)


class Several:
    """Optimizers that step one after the other."""

    def __init__(self, optimizers: list[Any]) -> None:
        self.optimizers = optimizers

    def step(self) -> None:
        """Step each of them."""
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self, *, set_to_none: bool = True) -> None:
        """Drop all gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=set_to_none)


def _muon(torch: Any, model: Any, groups: list[dict[str, Any]]) -> Any:
    """Muon for the layers' matrices, fused AdamW for everything else (embedding, head, norms, stacked experts)."""
    ends = {id(parameter) for module in ends_of(torch, model) for parameter in module.parameters()}
    every = [parameter for group in groups for parameter in group["params"]]
    matrices = [parameter for parameter in every if parameter.ndim == 2 and id(parameter) not in ends]
    taken = {id(parameter) for parameter in matrices}
    rest = [parameter for parameter in every if id(parameter) not in taken]
    made = [torch.optim.Muon(matrices, lr=LR)] if matrices else []
    return Several([*made, *([torch.optim.AdamW(rest, lr=LR, fused=True)] if rest else [])])


def ends_of(torch: Any, model: Any) -> list[Any]:
    """Tables that are looked up, and the output projection."""
    tables = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return tables if head is None else [*tables, head]


def _lion(_torch: Any, _model: Any, groups: list[dict[str, Any]]) -> Any:
    from lion_pytorch import Lion

    return Lion(groups, lr=LR)


def _galore(torch: Any, model: Any, groups: list[dict[str, Any]]) -> Any:
    """AdamW with projected states for all `nn.Linear`, as the Trainer's `galore_adamw` with `all-linear`."""
    from galore_torch import GaLoreAdamW

    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    every = {id(parameter) for group in groups for parameter in group["params"]}
    named = [(name, parameter) for name, parameter in model.named_parameters() if id(parameter) in every]
    plain = [parameter for name, parameter in named if name not in linear]
    projected = [parameter for name, parameter in named if name in linear]
    return GaLoreAdamW([{"params": plain}, {"params": projected} | GALORE], lr=LR, no_deprecation_warning=True)


#: Name → class of bitsandbytes, bits of its states, whether they are paged.
EIGHT_BIT = {
    "adam8bit": ("AdamW", 8, False), "paged_adamw": ("AdamW", 32, True), "paged_adam8bit": ("AdamW", 8, True),
    "lion8bit": ("Lion", 8, False),
}  # fmt: skip


def _bitsandbytes(torch: Any, model: Any, groups: list[dict[str, Any]], name: str, bits: int, paged: bool) -> Any:
    """An optimizer of bitsandbytes; tables that are looked up keep states of 32 bits, as the Trainer has it."""
    import bitsandbytes
    from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily

    if any(isinstance(parameter, FakeTensor) for group in groups for parameter in group["params"]):
        _without_device(torch)
    manager = bitsandbytes.optim.GlobalOptimManager.get_instance()
    manager.initialize()
    with unset_fake_temporarily():
        made = getattr(bitsandbytes.optim, name)(groups, lr=LR, optim_bits=bits, is_paged=paged)
    for module in model.modules():
        if bits == 8 and isinstance(module, torch.nn.Embedding):
            manager.register_module_override(module, "weight", {"optim_bits": 32})
    return made


def _without_device(torch: Any) -> None:
    """Let bitsandbytes work on fake tensors: nothing to wait for, managed memory outside of the tracked device."""
    from bitsandbytes import functional
    from bitsandbytes.optim import optimizer

    def paged(*shape: int, dtype: Any, device: Any) -> Any:  # noqa: ARG001
        return torch.empty(*shape, dtype=dtype, device="cpu")

    optimizer.sync_gpu = lambda _tensor: None
    functional.get_paged = paged
    functional.fill = lambda *_arguments: None
    functional.is_on_gpu = lambda _tensors: True
