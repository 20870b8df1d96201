"""The metadata of a GGUF file that llama.cpp needs to build a model's graph, from the model's own description.

Every key that an architecture may ask for is written for all of them: llama.cpp ignores those it doesn't know.
What changes no size (epsilons, scales, rotary bases) gets a plain value. Keys: src/llama-arch.cpp; who reads which:
load_hparams in src/llama-model.cpp and load_arch_hparams in src/models/*.cpp, llama.cpp 0c1e570 (October 2026).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from sizeup.engines.llamacpp.names import EXPANDED
from sizeup.engines.llamacpp.weightless import Value
from sizeup.formats.gguf_tensors import GgufTensor
from sizeup.models.mixers import Attention, LatentAttention, LinearAttention, ShortConvolution, StateSpace
from sizeup.models.model import Block, FeedForward, Model

#: Architectures in which a layer without attention is told by a zero among the KV heads.
ZERO_HEADS = frozenset({"jamba", "plamo2", "granitehybrid", "nemotron_h", "nemotron_h_moe", "lfm2", "lfm2moe",
                        "kimi-linear", "deci"})  # fmt: skip
#: Architectures whose feed-forward length is zero in layers that have none.
ZERO_WIDTHS = frozenset({"nemotron_h", "nemotron_h_moe", "deci"})
#: Architectures that norm by root mean squares when the file has an epsilon for that.
LAYER_NORM_BY_EPSILON = frozenset({"cohere2moe"})
SOFTMAX, SIGMOID, TOPK_SOFTMAX, SQRT_SOFTPLUS = 1, 2, 3, 4
GATING = {"gpt-oss": TOPK_SOFTMAX, "deepseek4": SQRT_SOFTPLUS}

_STACKS = ("text", "encoder", "decoder", "mtp")
#: MiniMax-M3 picks blocks of this many tokens, not single ones.
SPARSE_BLOCK = 128

Mixer = TypeVar("Mixer", Attention, LatentAttention, LinearAttention, ShortConvolution, StateSpace)


class _Layers:
    """The layers of a model in order: a block for each number, whatever stack llama.cpp puts in `blk.`.

    count: `block_count`. Layers of multi-token prediction come last, when the file has them.
    """

    def __init__(self, model: Model, tensors: Sequence[GgufTensor]) -> None:
        stacks = {name: [b for b in model.blocks if b.layers and b.stack == name] for name in _STACKS}
        self.decoders = stacks["decoder"]
        main = stacks["text"] or stacks["encoder"] or self.decoders
        numbered = {number: block for block in main for number in block.layers}
        self.main = len(numbered)
        self.count = self.main if self.decoders else max(self.main, 1 + max((t.layer for t in tensors), default=0))
        further = [block for block in stacks["mtp"] for _ in block.layers]
        every = [*(numbered[number] for number in sorted(numbered)), *further]
        self.blocks: list[Block] = every[: self.count]

    def first(self, kind: type[Mixer]) -> Mixer | None:
        """The first mixer of this kind."""
        return next((m for block in self.blocks for m in block.mixers if isinstance(m, kind)), None)

    def each(self, value: Callable[[Block], int]) -> list[int]:
        """A number for each layer."""
        return [value(block) for block in self.blocks]

    def feed_forward(self, has: Callable[[FeedForward], int]) -> int:
        """The largest size of this sort among the feed-forwards; 0 when none has it."""
        return max((has(b.feed_forward) for b in self.blocks if b.feed_forward), default=0)


def metadata(architecture: str, model: Model, tensors: Sequence[GgufTensor]) -> dict[str, Value]:
    """The metadata for a model whose GGUF tensors are `tensors`, in the architecture's name space."""
    layers = _Layers(model, tensors)
    sizes: dict[str, Value] = {
        **_absent(model.hidden),
        **_general(model, layers, tensors),
        **_attention(architecture, layers),
        **_windows(architecture, layers),
        **_latent(architecture, layers),
        **_compressed(architecture, layers, tensors),
        **_indexer(architecture, layers),
        **_feed_forward(architecture, layers, tensors),
        **_recurrent(layers, tensors),
        **_constants(layers.count, tensors),
    }
    if architecture in LAYER_NORM_BY_EPSILON:
        del sizes["attention.layer_norm_rms_epsilon"]
    return {
        "general.architecture": architecture,
        "general.name": model.name,
        "general.type": "model",
        "general.alignment": 32,
        **{f"{architecture}.{key}": value for key, value in sizes.items()},
        **_per_layer_constants(layers.count),
        "tokenizer.ggml.model": "no_vocab",
        "tokenizer.ggml.token_type_count": _rows("token_types.weight", tensors) or 1,
    }


def _general(model: Model, layers: _Layers, tensors: Sequence[GgufTensor]) -> dict[str, Value]:
    values: dict[str, Value] = {
        "vocab_size": _rows("token_embd.weight", tensors) or model.vocabulary,
        "context_length": _rows("position_embd.weight", tensors) or model.context or 2048,
        "embedding_length": model.hidden,
        "block_count": layers.count,
        "nextn_predict_layers": layers.count - layers.main,
    }
    if layers.decoders:
        values["decoder_block_count"] = sum(len(block.layers) for block in layers.decoders)
    return values


def _attention(architecture: str, layers: _Layers) -> dict[str, Value]:
    """Heads, KV heads and head sizes; arrays where layers differ, 0 in layers without attention."""
    found = [m for block in layers.blocks for m in block.mixers if isinstance(m, Attention) and not m.cross]
    linear = layers.first(LinearAttention)
    if layers.first(LatentAttention) or not found:
        return {} if not linear or layers.first(LatentAttention) else {"attention.head_count": 0}
    zero = architecture in ZERO_HEADS
    keep = layers.each(lambda block: _of(block, lambda m: m.heads, missing=0 if architecture == "deci" else None))
    kept = layers.each(lambda block: _of(block, lambda m: m.kv_heads, missing=0 if zero else None))
    values: dict[str, Value] = {
        "attention.head_count": _scalar(keep, max(m.heads for m in found)),
        "attention.head_count_kv": _scalar(kept, max(m.kv_heads for m in found)),
        "attention.causal": found[0].causal,
    }
    full = next((m for m in found if m.reach is None), found[0])
    sliding = next((m for m in found if m.reach is not None), None)
    values |= {"attention.key_length": full.head_dim, "attention.value_length": full.value_dim}
    if sliding:
        values |= {"attention.key_length_swa": sliding.head_dim, "attention.value_length_swa": sliding.value_dim}
    return values


def _of(block: Block, value: Callable[[Attention], int], *, missing: int | None) -> int:
    """A size of the block's attention; -1 stands for `no attention here, take any` until `_scalar` fills it."""
    for mixer in block.mixers:
        if isinstance(mixer, Attention) and not mixer.cross:
            return value(mixer)
    return -1 if missing is None else missing


def _scalar(values: Iterable[int], largest: int) -> Value:
    """One number when all layers agree, else one for each layer; layers without an opinion take the largest."""
    filled = [largest if value == -1 else value for value in values]
    return filled[0] if len(set(filled)) == 1 else filled


def _windows(architecture: str, layers: _Layers) -> dict[str, Value]:
    reaches = [next((m.reach for m in b.mixers if isinstance(m, Attention) and m.reach), 0) for b in layers.blocks]
    window = max(reaches, default=0)
    shared = sum(any(isinstance(m, Attention) and m.shares_cache for m in b.mixers) for b in layers.blocks)
    values: dict[str, Value] = {"attention.shared_kv_layers": shared} if shared else {}
    if not window:
        return values
    values["attention.sliding_window_pattern"] = [bool(reach) for reach in reaches]
    if architecture != "llama4":
        values["attention.sliding_window"] = window
    return values


def _latent(architecture: str, layers: _Layers) -> dict[str, Value]:
    """Latent attention is stored absorbed: one KV head of kv_rank + rope_dim for keys, kv_rank for values.

    Where it is expanded, and in DeepSeek-V4, which has a plain head for keys and values, sizes are a head's own.
    """
    latent = layers.first(LatentAttention)
    if latent is None:
        return {}
    kda = layers.first(LinearAttention)
    kv_heads = layers.each(lambda b: int(any(isinstance(m, LatentAttention) for m in b.mixers)))
    values: dict[str, Value] = {
        "attention.head_count": latent.heads,
        "attention.head_count_kv": kv_heads if kda else 1,
        "attention.key_length": latent.latent_elements,
        "attention.value_length": latent.kv_rank,
        "attention.key_length_mla": latent.head_dim,
        "attention.value_length_mla": latent.value_dim,
        "attention.kv_lora_rank": latent.kv_rank,
        "rope.dimension_count": latent.rope_dim,
    }
    if latent.q_rank:
        values["attention.q_lora_rank"] = latent.q_rank
    if architecture in EXPANDED or architecture == "deepseek4":
        values |= {
            "attention.head_count_kv": latent.heads if architecture in EXPANDED else 1,
            "attention.key_length": latent.head_dim,
            "attention.value_length": latent.value_dim,
        }
    return values


def _compressed(architecture: str, layers: _Layers, tensors: Sequence[GgufTensor]) -> dict[str, Value]:
    """DeepSeek-V4: a window in every layer, entries for 4 or 128 tokens in most, residual streams, hashed routing."""
    if architecture != "deepseek4":
        return {}
    shape = {tensor.name: tensor.shape for tensor in tensors}
    latents = [[m for m in block.mixers if isinstance(m, LatentAttention)] for block in layers.blocks]
    ratios = [max((m.compress for m in mixers), default=1) for mixers in latents]
    queries = latents[0][0].heads * latents[0][0].head_dim
    groups = queries // shape["blk.0.attn_output_a.weight"][-1]
    return {
        "attention.sliding_window": next((m.window for mixers in latents for m in mixers if m.window), 128),
        "attention.compress_ratios": [0 if ratio == 1 else ratio for ratio in ratios],
        "attention.compress_rope_freq_base": 1e4,
        "attention.output_group_count": groups,
        "attention.output_lora_rank": shape["blk.0.attn_output_a.weight"][0] // groups,
        "hyper_connection.count": shape["output_hc_base.weight"][0],
        "hyper_connection.sinkhorn_iterations": 20,
        "hyper_connection.epsilon": 1e-6,
        "hash_layer_count": sum(name.endswith("ffn_gate_tid2eid.weight") for name in shape),
        "expert_weights_scale": 1.0,
        "expert_weights_norm": True,
        "swiglu_clamp_exp": [10.0] * layers.count,
    }


def _indexer(architecture: str, layers: _Layers) -> dict[str, Value]:
    """Sparse attention's indexer, whichever attention it serves."""
    mixers = [m for b in layers.blocks for m in b.mixers if isinstance(m, Attention | LatentAttention)]
    indexer = next((m.indexer for m in mixers if m.indexer), None)
    if indexer is None:
        return {}
    values: dict[str, Value] = {
        "attention.indexer.head_count": indexer.heads,
        "attention.indexer.key_length": indexer.head_dim,
        "attention.indexer.top_k": indexer.top_k,
        "attention.indexer.types": layers.each(_has_indexer)[: layers.main],
    }
    if architecture == "minimax-m3":
        values["attention.indexer.top_k"] = indexer.top_k // SPARSE_BLOCK
        values |= {"attention.indexer.block_size": SPARSE_BLOCK, "attention.indexer.local_blocks": 1}
    return values


def _has_indexer(block: Block) -> int:
    return int(any(isinstance(m, LatentAttention) and m.indexer and not m.indexer.shares_choice for m in block.mixers))


def _feed_forward(architecture: str, layers: _Layers, tensors: Sequence[GgufTensor]) -> dict[str, Value]:
    experts = layers.feed_forward(lambda f: f.experts)
    expert_width = layers.feed_forward(lambda f: f.expert_width)
    shared = layers.feed_forward(lambda f: f.shared_width)
    dense = layers.feed_forward(lambda f: f.width) or expert_width
    missing = 0 if architecture in ZERO_WIDTHS else -1
    widths = layers.each(lambda b: (b.feed_forward.width or b.feed_forward.expert_width) if b.feed_forward else missing)
    if experts and architecture not in ZERO_WIDTHS:
        widths = [dense]
    if architecture == "qwen":
        widths = [2 * dense]
    values: dict[str, Value] = {"feed_forward_length": _scalar(widths or [dense], dense)}
    if not experts:
        if layers.first(LatentAttention):
            values |= {"leading_dense_block_count": layers.count, "expert_feed_forward_length": dense}
            values |= {"expert_shared_count": 0, "expert_weights_scale": 1.0}
        return values
    mixtures = layers.each(lambda b: int(bool(b.feed_forward and b.feed_forward.experts)))
    biased = any(".exp_probs_b" in tensor.name for tensor in tensors)
    values |= {
        "moe_latent_size": next((t.shape[0] for t in tensors if t.name.endswith("ffn_latent_down.weight")), 0),
        "expert_count": experts,
        "expert_used_count": layers.feed_forward(lambda f: f.experts_per_token),
        "expert_feed_forward_length": expert_width,
        "expert_shared_count": max(1, shared // expert_width) if shared else 0,
        "expert_shared_feed_forward_length": shared,
        "expert_gating_func": GATING.get(architecture, SIGMOID if biased else SOFTMAX),
        "leading_dense_block_count": mixtures.index(1),
        "interleave_moe_layer_step": _step(mixtures),
    }
    return values


def _step(mixtures: Sequence[int]) -> int:
    """Every how many layers a mixture comes."""
    numbers = [number for number, is_mixture in enumerate(mixtures) if is_mixture]
    return numbers[1] - numbers[0] if len(numbers) > 1 else 1


def _recurrent(layers: _Layers, tensors: Sequence[GgufTensor]) -> dict[str, Value]:
    shape = {tensor.name.partition(".")[2].partition(".")[2]: tensor.shape for tensor in tensors if tensor.layer >= 0}
    values: dict[str, Value] = {}
    if space := layers.first(StateSpace):
        rank = shape.get("ssm_dt.weight", (space.heads,))[-1]
        values |= {
            "ssm.conv_kernel": space.conv_kernel,
            "ssm.inner_size": space.inner,
            "ssm.state_size": space.state,
            "ssm.time_step_rank": space.heads if space.version > 1 else rank,
            "ssm.group_count": space.groups if space.version > 1 else 0,
        }
    if short := layers.first(ShortConvolution):
        values["shortconv.l_cache"] = short.conv_kernel
    if linear := layers.first(LinearAttention):
        values |= _linear(linear, layers, shape)
    return values


def _linear(mixer: LinearAttention, layers: _Layers, shape: dict[str, tuple[int, ...]]) -> dict[str, Value]:
    """Gated delta nets use the state-space keys; RWKV's ranks are read off its tensors."""
    recurrent = layers.each(lambda b: int(any(isinstance(m, LinearAttention) for m in b.mixers)))
    if mixer.kind == "rwkv":
        return {
            "attention.head_count": 0,
            "wkv.head_size": mixer.key_dim,
            "token_shift_count": 2,
            "time_mix_extra_dim": shape.get("time_mix_w1.weight", (0, 0))[0] // 5,
            "time_decay_extra_dim": shape.get("time_mix_decay_w1.weight", (0, 0))[0],
            "attention.decay_lora_rank": shape.get("time_mix_w1.weight", (0, 0))[0],
            "attention.iclr_lora_rank": shape.get("time_mix_a1.weight", (0, 0))[0],
            "attention.value_residual_mix_lora_rank": shape.get("time_mix_v1.weight", (0, 0))[0],
            "attention.gate_lora_rank": shape.get("time_mix_g1.weight", (0, 0))[0],
        }
    if mixer.kind == "kda":
        return {"kda.head_dim": mixer.key_dim, "ssm.conv_kernel": mixer.conv_kernel}
    inner = mixer.heads * mixer.value_dim
    keys = (mixer.conv_channels - inner) // 2
    return {
        "attention.recurrent_layers": recurrent,
        "ssm.conv_kernel": mixer.conv_kernel,
        "ssm.inner_size": inner,
        "ssm.state_size": mixer.key_dim,
        "ssm.time_step_rank": mixer.heads,
        "ssm.group_count": max(1, keys // mixer.key_dim),
    }


def _absent(hidden: int) -> dict[str, Value]:
    """What hybrids ask for even where no layer has a state (Granite 4 micro, LFM2 without convolutions)."""
    return {
        "ssm.conv_kernel": 4,
        "ssm.inner_size": 2 * hidden,
        "ssm.state_size": 128,
        "ssm.time_step_rank": max(1, 2 * hidden // 64),
        "ssm.group_count": 1,
        "shortconv.l_cache": 3,
    }


def _constants(layers: int, tensors: Sequence[GgufTensor]) -> dict[str, Value]:
    """Keys that must be there and change no size."""
    return {
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.layer_norm_epsilon": 1e-5,
        "attention.group_norm_epsilon": 1e-5,
        "attention.relative_buckets_count": 32,
        "attention.clamp_kqv": 1.0,
        "use_parallel_residual": True,
        "logit_scale": 1.0,
        "residual_scale": 1.0,
        "embedding_length_per_layer_input": _columns("per_layer_token_embd.weight", tensors) // layers,
        "rope.dimension_sections": [0, 0, 0, 0],
        "attention.max_alibi_bias": 8.0,
    }


def _per_layer_constants(layers: int) -> dict[str, Value]:
    return {f"xielu.{name}": [1.0] * layers for name in ("alpha_n", "alpha_p", "beta", "eps")}


def _rows(name: str, tensors: Sequence[GgufTensor]) -> int:
    return next((tensor.shape[0] for tensor in tensors if tensor.name == name), 0)


def _columns(name: str, tensors: Sequence[GgufTensor]) -> int:
    return next((tensor.shape[-1] for tensor in tensors if tensor.name == name), 0)
