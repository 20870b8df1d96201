"""The demo model: a Llama as a handful of tensors, its loss, its checkpoint, and the optimizer of its matrices.

Weights of all layers are stacked: `q` is (layers, heads · head_dim, hidden). It is written out by hand because
training it takes minutes: a third faster than the class of transformers, whose names and order the checkpoint has.
tests/quality/test_demo_model.py holds it to that class, logit by logit.
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch.nn import functional

Weights = dict[str, torch.Tensor]

EPSILON, ROPE_THETA = 1e-5, 10_000.0
MOMENTUM = 0.95
#: Coefficients of the quintic Newton-Schulz iteration, and how often it is applied (Jordan 2024, "Muon").
_QUINTIC, _ITERATIONS = (3.4445, -4.7750, 2.0315), 5
#: Names in a checkpoint of transformers, by name here.
_IN_LAYERS = {
    "attention_norm": "input_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "feed_forward_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


class Shape:
    """The sizes of a Llama, from its config.json. Embeddings are tied."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.vocabulary: int = config["vocab_size"]
        self.hidden: int = config["hidden_size"]
        self.feed_forward: int = config["intermediate_size"]
        self.layers: int = config["num_hidden_layers"]
        self.heads: int = config["num_attention_heads"]
        self.kv_heads: int = config["num_key_value_heads"]
        self.head_dim = self.hidden // self.heads


def fresh(shape: Shape, seed: int) -> Weights:
    """Weights to begin with: small normal values; zero where a layer writes, so that each starts as doing nothing."""
    generator = torch.Generator().manual_seed(seed)
    wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim

    def normal(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, generator=generator) / math.sqrt(sizes[-1])

    layers, hidden, feed_forward = shape.layers, shape.hidden, shape.feed_forward
    return {
        "embedding": normal(shape.vocabulary, hidden) * 0.3,
        "norm": torch.ones(hidden),
        "attention_norm": torch.ones(layers, hidden),
        "q": normal(layers, wide, hidden),
        "k": normal(layers, narrow, hidden),
        "v": normal(layers, narrow, hidden),
        "o": torch.zeros(layers, hidden, wide),
        "feed_forward_norm": torch.ones(layers, hidden),
        "gate": normal(layers, feed_forward, hidden),
        "up": normal(layers, feed_forward, hidden),
        "down": torch.zeros(layers, hidden, feed_forward),
    }


def logits(weights: Weights, shape: Shape, ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Logits for the token after each of `ids` (batch, length), computed in `dtype`."""
    length = ids.shape[1]
    embedding = weights["embedding"].to(dtype)
    into_attention = torch.cat([weights[name].to(dtype) for name in ("q", "k", "v")], 1).unbind(0)
    into_feed_forward = torch.cat([weights[name].to(dtype) for name in ("gate", "up")], 1).unbind(0)
    out_of_attention, out_of_feed_forward = (weights[name].to(dtype).unbind(0) for name in ("o", "down"))
    turns = _turns(length, shape.head_dim, dtype)
    mask = torch.full((length, length), float("-inf")).triu(1).to(dtype).repeat(shape.heads // shape.kv_heads, 1)
    found = functional.embedding(ids, embedding)
    for layer in range(shape.layers):
        seen = functional.linear(_normed(found, weights["attention_norm"][layer]), into_attention[layer])
        found = found + functional.linear(_attended(seen, shape, turns, mask), out_of_attention[layer])
        inner = functional.linear(_normed(found, weights["feed_forward_norm"][layer]), into_feed_forward[layer])
        gate, up = inner.chunk(2, -1)
        found = found + functional.linear(functional.silu(gate) * up, out_of_feed_forward[layer])
    return functional.linear(_normed(found, weights["norm"]), embedding)


def loss_of(weights: Weights, shape: Shape, ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Mean cross entropy of each next token, in nats."""
    predicted = logits(weights, shape, ids[:, :-1], dtype).float()
    return functional.cross_entropy(predicted.flatten(0, 1), ids[:, 1:].flatten())


def _normed(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(values, (values.shape[-1],), weight.to(values.dtype), EPSILON)


def _turns(length: int, head_dim: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of the rotary embedding; the sines of the first half have their sign already."""
    rates = ROPE_THETA ** (-torch.arange(0, head_dim, 2) / head_dim)
    angles = torch.outer(torch.arange(length), rates)
    cosines, sines = angles.cos(), angles.sin()
    return torch.cat((cosines, cosines), -1).to(dtype), torch.cat((-sines, sines), -1).to(dtype)


def _turned(values: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    first, second = values.chunk(2, -1)
    return values * turns[0] + torch.cat((second, first), -1) * turns[1]


def _attended(
    seen: torch.Tensor, shape: Shape, turns: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor
) -> torch.Tensor:
    """Causal attention of grouped queries; written out, it is faster on CPUs than the fused kernel."""
    batch, length = seen.shape[:2]
    by_head = seen.view(batch, length, -1, shape.head_dim).transpose(1, 2)
    q, k, v = by_head.split((shape.heads, shape.kv_heads, shape.kv_heads), 1)
    groups = batch * shape.kv_heads
    scaled = (turns[0] / math.sqrt(shape.head_dim), turns[1] / math.sqrt(shape.head_dim))
    queries = _turned(q, scaled).reshape(groups, -1, shape.head_dim)
    keys = _turned(k, turns).reshape(groups, length, shape.head_dim)
    shares = torch.baddbmm(mask, queries, keys.transpose(1, 2)).softmax(-1)
    mixed = torch.bmm(shares, v.reshape(groups, length, shape.head_dim))
    return mixed.view(batch, shape.heads, length, shape.head_dim).transpose(1, 2).reshape(batch, length, -1)


def is_matrix(name: str) -> bool:
    """Whether Muon trains it: the matrices inside the layers. Embeddings and norms are AdamW's."""
    return name != "embedding" and "norm" not in name


def orthogonal(matrices: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Each of a stack of matrices with its singular values moved to about 1 (0.7 to 1.2)."""
    upright = matrices.shape[1] > matrices.shape[2]
    found = (matrices.transpose(1, 2) if upright else matrices).to(dtype)
    found = found / (found.norm(dim=(1, 2), keepdim=True) + 1e-7)
    first, second, third = _QUINTIC
    for _ in range(_ITERATIONS):
        square = torch.bmm(found, found.transpose(1, 2))
        inner = torch.baddbmm(square, square, square, beta=second, alpha=third)
        found = torch.baddbmm(found, inner, found, beta=first)
    return (found.transpose(1, 2) if upright else found).to(matrices.dtype)


def muon(weights: Weights, momenta: Weights, rate: float, decay: float, dtype: torch.dtype) -> None:
    """One step of Muon with Nesterov momentum; updates have the size that AdamW's usually have (Liu 2025)."""
    with torch.no_grad():
        for name, momentum in momenta.items():
            weight, gradient = weights[name], weights[name].grad
            if gradient is None:
                continue
            momentum.lerp_(gradient, 1 - MOMENTUM)
            update = orthogonal(gradient.lerp(momentum, MOMENTUM), dtype)
            weight.mul_(1 - rate * decay).add_(update, alpha=-rate * 0.2 * math.sqrt(max(weight.shape[1:])))


def checkpoint(weights: Weights) -> Weights:
    """The weights as transformers names them, in half precision."""
    halves = {name: weight.detach().half() for name, weight in weights.items()}
    found = {"model.embed_tokens.weight": halves["embedding"], "model.norm.weight": halves["norm"]}
    for name, theirs in _IN_LAYERS.items():
        for layer, weight in enumerate(halves[name].unbind(0)):
            found[f"model.layers.{layer}.{theirs}.weight"] = weight.contiguous()
    return found


def fastest_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it faster than single precision."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        one, other = torch.ones(1024, 256, dtype=dtype), torch.ones(256, 768, dtype=dtype)
        for _ in range(3):
            began = time.perf_counter()
            one @ other
            seconds[dtype] = time.perf_counter() - began
    return min(seconds, key=seconds.__getitem__)
