"""What each layer of a GGUF model remembers, from its metadata and from which tensors it has.

Source: src/llama-hparams.cpp and load_arch_hparams in src/models/*.cpp, llama.cpp 0c1e570 (October 2026).
"""

from __future__ import annotations

import msgspec

from sizeup.models.gguf_metadata import GgufMetadata
from sizeup.models.gguf_names import is_linear
from sizeup.models.gguf_windows import is_chunked, windows
from sizeup.models.mixers import (
    Attention,
    Indexer,
    LatentAttention,
    LinearAttention,
    Mixer,
    ShortConvolution,
    StateSpace,
)

#: Encoders: all their layers look both ways, and they write nothing.
ENCODERS = frozenset(
    {
        "bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert",
        "t5encoder",
    }
)  # fmt: skip

#: Others whose attention looks both ways although the file may not say so.
_BIDIRECTIONAL = frozenset(
    {
        "gemma-embedding", "llama-embed", "dream", "llada", "llada-moe", "rnd1",
    }
)  # fmt: skip

#: Layers from this one on read the cache of earlier ones (llama.cpp fixes it for Gemma 3n).
_GEMMA3N_OWN_CACHE = 20

_ATTENTION_STEMS = frozenset({"attn_q", "attn_qkv", "attn_q_a", "attn_kv_a_mqa", "attn_kv"})


class GgufMixers:
    """The mixers of a GGUF model's layers."""

    def __init__(self, meta: GgufMetadata) -> None:
        self.meta = meta
        own = meta.own
        self.hidden = own.int("embedding_length", min=0, default=0)
        self.heads = meta.by_layer("attention.head_count")
        self.kv_heads = meta.by_layer("attention.head_count_kv", default=-1)
        self.windows = windows(
            meta.architecture,
            meta.layers,
            own.optional_int("attention.sliding_window", min=0),
            meta.flags("attention.sliding_window_pattern"),
        )
        self.causal = own.bool("attention.causal", default=True) and meta.architecture not in ENCODERS | _BIDIRECTIONAL
        self.own_cache = self._layers_with_cache()

    def of(self, stack: str, layer: int, stems: frozenset[str], key_rows: int = 0) -> tuple[Mixer, ...]:
        """The mixers of one layer; a layer may have two side by side (Falcon-H1), or none (a feed-forward layer).

        key_rows: rows of its key projection, for files that give an attention layer no key heads.
        """
        found: list[Mixer] = []
        if not stems.isdisjoint(_ATTENTION_STEMS) and not self.is_linear_layer(layer, stems):
            found.append(self._attention(stack, layer, stems, key_rows))
        if any(stem.startswith("cross_attn") for stem in stems):
            found.append(self._plain(layer, cross=True, causal=False))
        recurrent = self._recurrent(layer, stems)
        return (*found, recurrent) if recurrent else tuple(found)

    def is_linear_layer(self, layer: int, stems: frozenset[str]) -> bool:
        """Whether the layer's attention tensors belong to a linear attention."""
        if is_linear(stems):
            return True
        return self.meta.architecture == "minimax-01" and self._lightning(layer)

    def _attention(self, stack: str, layer: int, stems: frozenset[str], key_rows: int) -> Mixer:
        if "attn_kv_a_mqa" in stems:
            return self._latent(layer, stems)
        plain = self._plain(layer, causal=self.causal and stack != "encoder", sinks="attn_sinks" in stems)
        if self._at(self.kv_heads, layer) == 0 and key_rows:
            return msgspec.structs.replace(plain, kv_heads=max(1, key_rows // plain.head_dim))
        return plain

    def _plain(self, layer: int, *, cross: bool = False, causal: bool = True, sinks: bool = False) -> Attention:
        own = self.meta.own
        window = None if cross else self.windows[layer] if layer < len(self.windows) else None
        heads = self._at(self.heads, layer) or 1
        given = self._at(self.kv_heads, layer)
        default = max(1, self.hidden // heads)
        key = own.int("attention.key_length", default=default)
        value = own.int("attention.value_length", default=default)
        if window:
            key = own.int("attention.key_length_swa", default=key)
            value = own.int("attention.value_length_swa", default=value)
        chunked = is_chunked(self.meta.architecture)
        return Attention(
            heads=heads,
            kv_heads=heads if given < 0 else max(1, given),
            head_dim=key,
            value_dim=value,
            window=None if chunked else window,
            chunk=window if chunked else None,
            shares_cache=self.own_cache is not None and layer >= self.own_cache,
            cross=cross,
            causal=causal,
            softcap=own.optional_float("attn_logit_softcapping") or None,
            sinks=sinks,
        )

    def _latent(self, layer: int, stems: frozenset[str]) -> LatentAttention:
        own = self.meta.own
        window = self.windows[layer]
        suffix = "_swa" if window and own.has("attention.kv_lora_rank_swa") else ""
        rope = own.int("rope.dimension_count", min=0, default=0)
        key = own.int(f"attention.key_length_mla{suffix}", "attention.key_length")
        return LatentAttention(
            heads=self._at(self.heads, layer) or 1,
            kv_rank=own.int(f"attention.kv_lora_rank{suffix}"),
            rope_dim=rope,
            nope_dim=max(0, key - rope),
            value_dim=own.int(f"attention.value_length_mla{suffix}", "attention.value_length"),
            q_rank=own.optional_int("attention.q_lora_rank") if "attn_q_a" in stems else None,
            window=window,
            indexer=self._indexer(layer, stems),
        )

    def _indexer(self, layer: int, stems: frozenset[str]) -> Indexer | None:
        own = self.meta.own
        if not own.has("attention.indexer.top_k"):
            return None
        full = self.meta.flags("attention.indexer.types")
        shares = isinstance(full, tuple) and layer < len(full) and not full[layer]
        if not shares and not any(stem.startswith("indexer.") for stem in stems):
            return None
        return Indexer(
            heads=own.int("attention.indexer.head_count"),
            head_dim=own.int("attention.indexer.key_length"),
            top_k=own.int("attention.indexer.top_k"),
            shares_choice=shares,
        )

    def _recurrent(self, layer: int, stems: frozenset[str]) -> Mixer | None:
        own = self.meta.own
        if any(stem.startswith("time_mix_") for stem in stems):
            size = own.int("wkv.head_size")
            shifts = own.int("token_shift_count", min=0, default=2)
            return LinearAttention("rwkv", self.hidden // size, size, size, shift_elements=shifts * self.hidden)
        if "shortconv.conv" in stems:
            return ShortConvolution(self.hidden, own.int("shortconv.l_cache"))
        if "ssm_conv1d_q" in stems:
            size, heads = own.int("kda.head_dim"), max(self.heads, default=1)
            return LinearAttention("kda", heads, size, size, own.int("ssm.conv_kernel"), 3 * heads * size)
        if self.is_linear_layer(layer, stems) and not is_linear(stems):
            size = own.int("attention.key_length", default=max(1, self.hidden // max(self.heads, default=1)))
            return LinearAttention("lightning", self._at(self.heads, layer) or 1, size, size)
        if "ssm_conv1d" in stems:
            return self._scan(stems)
        return None

    def _scan(self, stems: frozenset[str]) -> Mixer:
        own = self.meta.own
        inner, state = own.int("ssm.inner_size"), own.int("ssm.state_size")
        groups = own.int("ssm.group_count", min=0, default=0)
        kernel, rank = own.int("ssm.conv_kernel"), own.int("ssm.time_step_rank", min=0, default=0)
        channels = inner + 2 * groups * state
        if is_linear(stems):
            heads = rank or 1
            return LinearAttention("gated_delta", heads, state, inner // heads, kernel, channels)
        version = 1 if "ssm_x" in stems and not groups else 2
        return StateSpace(version, inner, state, kernel, channels, groups or 1, 0 if version == 1 else rank)

    def _lightning(self, layer: int) -> bool:
        flags = self.meta.flags("attention.recurrent_layers")
        if isinstance(flags, tuple):
            return layer < len(flags) and flags[layer]
        return (layer + 1) % self.meta.own.int("full_attention_interval", default=8) != 0

    def _layers_with_cache(self) -> int | None:
        if self.meta.architecture == "gemma3n":
            return _GEMMA3N_OWN_CACHE
        shared = self.meta.own.int("attention.shared_kv_layers", min=0, default=0)
        return max(0, self.meta.layers - shared) if shared else None

    @staticmethod
    def _at(values: list[int], layer: int) -> int:
        return values[layer] if layer < len(values) else (values[-1] if values else 0)
