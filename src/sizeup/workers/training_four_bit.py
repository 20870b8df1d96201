"""Linear modules in NF4: a plain one of the same bytes, or bitsandbytes' own.

The plain one computes in 16 bits and leaves its results so under autocast. bitsandbytes' gives results in the type of
its input, which is fp32 where peft has prepared the model, and peft copies them before it adds to them.
"""

from __future__ import annotations

from typing import Any

SCALE_BLOCK, WEIGHT_BLOCK = 256, 64


def pack(torch: Any, model: Any, setting: dict[str, Any]) -> None:
    """Replace the linear modules (`Conv1D`, too) that transformers would; hold all else in fp32 as peft prepares it.

    transformers leaves the head, what is tied to it, and what a model keeps in fp32 (T5's `wo`).
    """
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.base import get_keys_to_not_convert
    from transformers.quantizers.quantizers_utils import should_convert_module

    own = setting.get("four_bit") == "bitsandbytes"
    packed = _bitsandbytes(torch) if own else _plain(torch)
    left = [*get_keys_to_not_convert(model), *(model._keep_in_fp32_modules or ())]  # noqa: SLF001  as its quantizers do
    for path, module in list(model.named_modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear | Conv1D) and should_convert_module(
                f"{path}.{name}".lstrip("."), left
            ):
                setattr(module, name, packed(child, setting["double_quantization"]))
    model.is_loaded_in_4bit = own
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        if parameter.dtype in {torch.float16, torch.bfloat16}:
            parameter.data = parameter.data.to(torch.float32)


def shape_of(torch: Any, linear: Any) -> tuple[int, int]:
    """Outputs and inputs."""
    outputs, inputs = linear.weight.shape if isinstance(linear, torch.nn.Linear) else linear.weight.shape[::-1]
    return outputs, inputs


def _bitsandbytes(torch: Any) -> Any:
    """The module of bitsandbytes around packed tensors; making one from a weight would look at the weight."""
    import bitsandbytes
    from bitsandbytes.functional import QuantState
    from bitsandbytes.nn import modules

    modules.fix_4bit_weight_quant_state_from_module = lambda _module: None

    def packed(linear: Any, double: bool) -> Any:
        outputs, inputs = shape_of(torch, linear)
        n, device = outputs * inputs, linear.weight.device
        blocks = -(-n // WEIGHT_BLOCK)
        made = bitsandbytes.nn.Linear4bit.__new__(bitsandbytes.nn.Linear4bit)
        torch.nn.Module.__init__(made)
        made.in_features, made.out_features, made.bias = inputs, outputs, linear.bias
        made.compute_dtype, made.compute_type_is_set = torch.bfloat16, True
        made.quant_state, made.support_avx512bf16_for_cpu = None, False
        weight = torch.nn.Parameter(torch.empty(((n + 1) // 2, 1), dtype=torch.uint8, device=device), False)
        made.register_buffer("absmax", torch.empty(blocks, dtype=torch.uint8 if double else None, device=device))
        inner = None
        if double:
            made.register_buffer("absmax2", torch.empty(-(-blocks // SCALE_BLOCK), device=device))
            table = torch.empty(SCALE_BLOCK, device=device)
            inner = QuantState(absmax=made.absmax2, code=table, blocksize=SCALE_BLOCK, dtype=torch.float32)
        weight.quant_state = QuantState(
            absmax=made.absmax, shape=torch.Size((outputs, inputs)), dtype=torch.bfloat16, blocksize=WEIGHT_BLOCK,
            quant_type="nf4", code=torch.empty(16, device=device), state2=inner,
            offset=torch.empty((), device=device) if double else None,
        )  # fmt: skip
        weight.compress_statistics, weight.quant_type = double, "nf4"
        made.weight = weight
        return made

    return packed


def _plain(torch: Any) -> Any:
    """A module with NF4's bytes: half a byte a weight, a scale for each 64, and theirs for each 256."""
    nn, functional = torch.nn, torch.nn.functional

    class Product(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any, packed: Any, scales: Any, shape: Any, dtype: Any, bias: Any) -> Any:
            weight = torch.empty(shape, dtype=dtype, device=x.device)
            ctx.save_for_backward(packed, scales)
            ctx.shape, ctx.dtype = shape, dtype
            return functional.linear(x.to(dtype), weight, None if bias is None else bias.to(dtype))

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            ctx.saved_tensors  # noqa: B018 - unpacking is what recomputation waits for
            weight = torch.empty(ctx.shape, dtype=ctx.dtype, device=gradient.device)
            return gradient.to(ctx.dtype) @ weight, None, None, None, None, None

    class FourBit(nn.Linear):  # type: ignore[misc, name-defined]
        def __init__(self, linear: Any, double: bool) -> None:
            nn.Module.__init__(self)
            outputs, inputs = shape_of(torch, linear)
            n, device = outputs * inputs, linear.weight.device
            blocks = -(-n // WEIGHT_BLOCK)
            self.in_features, self.out_features, self.bias = inputs, outputs, linear.bias
            packed = torch.empty(((n + 1) // 2, 1), dtype=torch.uint8, device=device)
            self.weight = nn.Parameter(packed, requires_grad=False)
            kind = torch.uint8 if double else torch.float32
            self.register_buffer("absmax", torch.empty(blocks, dtype=kind, device=device))
            if double:
                scales = torch.empty(-(-blocks // SCALE_BLOCK), dtype=torch.float32, device=device)
                self.register_buffer("absmax2", scales)

        def forward(self, x: Any) -> Any:
            kind = x.device.type
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
            with torch.autocast(kind, enabled=False):
                shape = (self.out_features, self.in_features)
                return Product.apply(x, self.weight, self.absmax, shape, torch.bfloat16, self.bias).to(dtype)

    return FourBit
