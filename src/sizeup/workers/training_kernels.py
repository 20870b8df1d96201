"""Attention on fake CUDA tensors as a GPU would run it, and what kernels allocate where no dispatcher sees it.

torch's own choice of kernel looks at the device; without one every attention would be `math`. The choice here follows
torch 2.13, `aten/src/ATen/native/transformers/cuda/sdp_utils.cpp`, for capability 8.0: flash, efficient, math.
"""

# What is private to torch is the point here.
# ruff: noqa: SLF001

from __future__ import annotations

import math
from typing import Any

ROUND = 512
#: Strides of an additive mask that the efficient kernel takes as it is (`preprocess_mask`: padded, then expanded).
ALIGNED = 8


def rounded(size: int) -> int:
    """The allocator's rounding."""
    return -(-size // ROUND) * ROUND


class Attention:
    """Stands in for `torch.nn.functional.scaled_dot_product_attention` and counts the kernels it chose."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.own = torch.nn.functional.scaled_dot_product_attention
        self.chosen: dict[str, int] = {}

    def __call__(
        self, query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
        scale: float | None = None, enable_gqa: bool = False,
    ) -> Any:  # fmt: skip
        """Attention by the kernel that a GPU would take."""
        if query.device.type != "cuda":
            return self.own(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
        query, key, value, attn_mask = self._autocast(query, key, value, attn_mask)
        kernel = self._kernel(query, key, value, attn_mask, causal=is_causal, grouped=enable_gqa)
        self.chosen[kernel] = self.chosen.get(kernel, 0) + 1
        factor = scale if scale is not None else 1.0 / math.sqrt(query.shape[-1])
        if kernel == "flash":
            return self._flash(query, key, value, dropout_p, is_causal, factor)
        if kernel == "efficient":
            return self._efficient(query, key, value, attn_mask, dropout_p, is_causal, factor)
        return self._math(query, key, value, attn_mask, dropout_p, is_causal, factor, grouped=enable_gqa)

    def _autocast(self, query: Any, key: Any, value: Any, mask: Any) -> tuple[Any, Any, Any, Any]:
        torch = self.torch
        if torch.is_autocast_enabled("cuda"):
            dtype = torch.get_autocast_dtype("cuda")
            query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
            if mask is not None and mask.is_floating_point():
                mask = mask.to(dtype)
        return query, key, value, mask

    def _kernel(self, query: Any, key: Any, value: Any, mask: Any, *, causal: bool, grouped: bool) -> str:
        torch = self.torch
        half = query.dtype in {torch.bfloat16, torch.float16}
        dim, wide = query.shape[-1], value.shape[-1]
        same = query.shape[1] == key.shape[1] == value.shape[1]
        square = query.shape[2] == key.shape[2]
        if (
            half
            and mask is None
            and dim == key.shape[-1] == wide <= 256
            and (not causal or square)
            and (same or grouped)
        ):
            return "flash"
        multiple = 8 if half else 4
        if (half or query.dtype == torch.float32) and dim % multiple == 0 and wide % multiple == 0 and same:
            return "efficient"
        return "math"

    def _flash(self, query: Any, key: Any, value: Any, p: float, causal: bool, factor: float) -> Any:
        torch = self.torch
        dim = query.shape[-1]
        spare = -dim % 8
        if spare:
            query, key, value = (torch.nn.functional.pad(x, (0, spare)) for x in (query, key, value))
        kernel = torch.ops.aten._scaled_dot_product_flash_attention
        output = kernel(query, key, value, p, causal, False, scale=factor)[0]
        return output[..., :dim] if spare else output

    def _additive(self, mask: Any, query: Any) -> Any:
        torch = self.torch
        lowest = torch.full((), -math.inf, dtype=query.dtype, device=query.device)
        return torch.where(mask, 0.0, lowest)

    def _efficient(self, query: Any, key: Any, value: Any, mask: Any, p: float, causal: bool, factor: float) -> Any:
        torch = self.torch
        wanted = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
        if mask is not None:
            mask = self._additive(mask, query) if mask.dtype == torch.bool else mask
            columns = mask.shape[-1]
            if any(step % ALIGNED for step in mask.stride()[:-1]):
                mask = torch.nn.functional.pad(mask, (0, ALIGNED - columns % ALIGNED))[..., :columns]
            mask = mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
        kernel = torch.ops.aten._scaled_dot_product_efficient_attention
        return kernel(query, key, value, mask, wanted, p, causal, scale=factor)[0]

    def _math(
        self, query: Any, key: Any, value: Any, mask: Any, p: float, causal: bool, factor: float, *, grouped: bool
    ) -> Any:
        torch = self.torch
        dtype = query.dtype
        if dtype in {torch.bfloat16, torch.float16}:
            query, key, value = query.float(), key.float(), value.float()
        root = math.sqrt(factor)
        with torch.autocast("cuda", enabled=False):
            query = query * root
            if causal:
                shape = (query.shape[-2], key.shape[-2])
                mask = self._additive(torch.ones(shape, dtype=torch.bool, device=query.device).tril(), query)
            elif mask is not None and mask.dtype == torch.bool:
                mask = self._additive(mask, query)
            if grouped and key.shape[1] != query.shape[1]:
                times = query.shape[1] // key.shape[1]
                key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
            scores = torch.matmul(query, key.transpose(-2, -1) * root)
            if mask is not None:
                scores.add_(mask)
            weights = torch.ops.aten._safe_softmax(scores, -1)
            if p > 0:
                weights = torch.dropout(weights, p, True)
            return torch.matmul(weights, value).to(dtype)


def hidden_bytes(torch: Any, operation: Any, arguments: Any, output: Any) -> int:
    """Temporaries that a CUDA kernel allocates by itself (torch 2.13, the kernels' sources)."""
    aten = torch.ops.aten
    if operation is aten._scaled_dot_product_flash_attention_backward.default:
        return _flash_backward(arguments)
    if operation is aten._scaled_dot_product_efficient_attention_backward.default:
        batch, heads, rows, dim = arguments[1].shape
        sums = rounded(4 * batch * heads * rows * dim) if arguments[1].element_size() == 2 else 0
        return rounded(4 * batch * heads * rows) + sums
    if operation.name().startswith("bitsandbytes::gemm_4bit"):
        outputs, inputs = arguments[2]
        return rounded(arguments[0].element_size() * outputs * inputs) + rounded(4 * -(-outputs * inputs // 64))
    if operation is aten._safe_softmax.default:
        return 2 * rounded(output.numel() * output.element_size()) + rounded(output.numel())
    if operation in {aten.sort.default, aten.sort.stable, aten.topk.default}:
        return 2 * rounded(8 * arguments[0].numel())
    if operation is aten.masked_scatter.default:
        return rounded(8 * output.numel()) + rounded(output.numel())
    if operation is aten.embedding_dense_backward.default:
        return 5 * rounded(8 * arguments[1].numel())
    return 0


def _flash_backward(arguments: Any) -> int:
    query, key = arguments[1], arguments[2]
    batch, heads, rows, dim = query.shape
    padded = -(-rows // 128) * 128
    width = -(-dim // 32) * 32 if dim <= 192 else 256
    size = rounded(4 * batch * heads * padded) + rounded(4 * batch * padded * heads * width)
    if key.shape[1] != heads:
        size += 2 * rounded(batch * key.shape[2] * heads * dim * query.element_size())
    return size
