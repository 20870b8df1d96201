"""What a layer remembers: the mixer mixes information between tokens, and pays for it in cache or state.

Each mixer says how many elements it keeps, per token or per sequence. Bytes, paddings and pages are the
engine's business (`sizeup.engines`), number formats are `sizeup.formats`.
"""

from __future__ import annotations

import msgspec


class Indexer(msgspec.Struct, frozen=True):
    """The lightning indexer of sparse attention: it picks `top_k` earlier tokens for each token.

    It keeps one key of `head_dim` elements per token, beside the cache.
    shares_choice: it reuses the choice of an earlier layer and has no weights or keys of its own.
    """

    heads: int
    head_dim: int
    top_k: int
    shares_choice: bool = False


class Attention(msgspec.Struct, frozen=True, tag="attention"):
    """Softmax attention over keys and values, with query heads grouped over `kv_heads`.

    head_dim, value_dim: size of one head's key and value.
    window: how many recent tokens it sees (sliding window); None means all.
    chunk: it sees only tokens of its own chunk of this size (Llama 4); None means all.
    shares_cache: it reads the cache of an earlier layer and keeps none.
    cross: its keys and values come from another sequence (an encoder's output, image tokens).
    causal: whether a token sees only earlier ones.
    softcap: limit of the scores' tanh cap; None means no cap.
    sinks: whether each head has a learned sink.
    indexer: what picks the tokens it looks at (MiniMax-M3); None means all within reach.
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    window: int | None = None
    chunk: int | None = None
    shares_cache: bool = False
    cross: bool = False
    causal: bool = True
    softcap: float | None = None
    sinks: bool = False
    indexer: Indexer | None = None

    @property
    def key_elements(self) -> int:
        """Elements of the keys of one token: kv_heads · head_dim."""
        return 0 if self.shares_cache else self.kv_heads * self.head_dim

    @property
    def value_elements(self) -> int:
        """Elements of the values of one token: kv_heads · value_dim."""
        return 0 if self.shares_cache else self.kv_heads * self.value_dim

    @property
    def reach(self) -> int | None:
        """The most tokens it ever looks back at; None means no limit."""
        return self.window or self.chunk


class LatentAttention(msgspec.Struct, frozen=True, tag="latent"):
    """Multi-head latent attention (DeepSeek-V2): one compressed vector of keys and values for all heads.

    It keeps kv_rank + rope_dim elements per token, whatever the number of heads.
    nope_dim, rope_dim: the parts of a head's key without and with rotary position.
    q_rank: rank of the compressed query; None means a full query projection.
    compress: it keeps one entry for every so many tokens (DeepSeek-V4); 1 means one for each.
    """

    heads: int
    kv_rank: int
    rope_dim: int
    nope_dim: int
    value_dim: int
    q_rank: int | None = None
    window: int | None = None
    indexer: Indexer | None = None
    compress: int = 1

    @property
    def latent_elements(self) -> int:
        """Elements kept per token: kv_rank + rope_dim."""
        return self.kv_rank + self.rope_dim

    @property
    def head_dim(self) -> int:
        """Size of one head's expanded key: nope_dim + rope_dim."""
        return self.nope_dim + self.rope_dim


class StateSpace(msgspec.Struct, frozen=True, tag="state_space"):
    """Mamba: a state of fixed size per sequence, and a short convolution before it.

    version: 1 (state per channel) or 2 (state per head).
    inner: channels of the scan; conv_channels: channels of the convolution (inner, plus 2·groups·state in Mamba 2).
    """

    version: int
    inner: int
    state: int
    conv_kernel: int
    conv_channels: int
    groups: int = 1
    heads: int = 0

    @property
    def state_elements(self) -> int:
        """Elements of the scan's state per sequence: inner · state."""
        return self.inner * self.state

    @property
    def conv_elements(self) -> int:
        """Elements of the convolution's history per sequence: conv_channels · (conv_kernel - 1)."""
        return self.conv_channels * (self.conv_kernel - 1)


class LinearAttention(msgspec.Struct, frozen=True, tag="linear"):
    """Linear attention: a matrix of key_dim × value_dim per head and sequence instead of a cache.

    kind: `gated_delta` (Qwen3-Next), `kda` (Kimi Linear), `lightning` (MiniMax-01), `rwkv` …
    shift_elements: further elements kept per sequence (RWKV's token shift).
    """

    kind: str
    heads: int
    key_dim: int
    value_dim: int
    conv_kernel: int = 1
    conv_channels: int = 0
    shift_elements: int = 0

    @property
    def state_elements(self) -> int:
        """Elements of the state per sequence: heads · key_dim · value_dim."""
        return self.heads * self.key_dim * self.value_dim

    @property
    def conv_elements(self) -> int:
        """Elements of the history per sequence: conv_channels · (conv_kernel - 1) + shift_elements."""
        return self.conv_channels * (self.conv_kernel - 1) + self.shift_elements


class ShortConvolution(msgspec.Struct, frozen=True, tag="convolution"):
    """A gated causal convolution over the last few tokens (LFM2); it keeps channels · (conv_kernel - 1)."""

    channels: int
    conv_kernel: int

    @property
    def state_elements(self) -> int:
        """It has no state beside the convolution's history."""
        return 0

    @property
    def conv_elements(self) -> int:
        """Elements of the history per sequence: channels · (conv_kernel - 1)."""
        return self.channels * (self.conv_kernel - 1)


Mixer = Attention | LatentAttention | StateSpace | LinearAttention | ShortConvolution


def describe(mixer: Mixer) -> str:
    """The mixer in a few words, for people: `sliding window 1,024`, `latent attention`."""
    match mixer:
        case Attention(cross=True):
            return "cross attention"
        case Attention(shares_cache=True):
            return "attention on a shared cache"
        case Attention(window=int(window)):
            return f"sliding window {window:,}"
        case Attention(chunk=int(chunk)):
            return f"chunked attention {chunk:,}"
        case Attention():
            return "full attention" if mixer.causal else "bidirectional attention"
        case LatentAttention():
            return "latent attention" if mixer.indexer is None else "sparse latent attention"
        case StateSpace():
            return f"state space (Mamba {mixer.version})"
        case LinearAttention():
            return f"linear attention ({mixer.kind.replace('_', ' ')})"
    return "short convolution"
