"""What a decoder is made of: its sizes, and the habits in which it differs from Llama."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from sizeup.estimate.training.architectures.blocks import Blocks
from sizeup.estimate.training.architectures.experts import Mixture
from sizeup.estimate.training.architectures.indexer import Index
from sizeup.estimate.training.architectures.latent import Latent
from sizeup.estimate.training.architectures.row_experts import RowExperts
from sizeup.estimate.training.architectures.state_space import Scan
from sizeup.estimate.training.architectures.streams import Streams
from sizeup.estimate.training.architectures.task_heads import TaskHead
from sizeup.estimate.training.architectures.vision_shape import Tower
from sizeup.estimate.training.attention import Way
from sizeup.estimate.training.idle import Idle
from sizeup.estimate.training.tape import Value


class DecoderShape(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes and habits of a decoder.

    Norms. norm: `rms`, `rms_fp32` (the weight multiplies in fp32), `rms_offset` (1 + weight in fp32, Gemma),
    `rms_plain` (no weight), `rms_wide` (the weight is cast to fp32), `rms_power` (so, 1/rms as a power, Gemma 4),
    `layer`, `layer_plain` (no weights), `layer_lowered` (follows autocast), `wide` (Cohere's). order: where norms
    stand, see `orders`. qk_norm: `head`, `per_head` (a weight for each), `whole`, `turned` (after the rotation),
    `plain` (so, without weights) or none. sub_norms: norms before the output and the down projection.

    Attention. qkv: `split`, or one matrix: `sliced` (three slices), `selected`, `indexed` and `grouped` (of heads,
    Falcon), others (cut in three). qkv_clipped: clamped. product_bias: biases are added after the product. value_dim:
    of a value, where it isn't a key's. value_scale: values times a number. way: how eager attention is written.
    eager_only: it always is. always_masked: a mask even where none is needed. triangle: rows of a kept one that every
    layer has, so that only padding needs a mask. windows: of each layer, None where it sees all. caches: keys and
    values are for later layers (`store`), or those of an earlier one (`reuse`). same_values: values are the keys before
    their norm. output_gate: what multiplies the attention's output: a `sigmoid` of each channel, a `softplus` of each
    or of each head (`softplus of heads`). alibi: numbers for each head and key (of
    `alibi_positions`, where the model makes them for all it can take) are added to the scores, `cast` to the
    stream's type or `wide` in fp32, or are a `mask` of each head (falcon-rw).

    Positions. rotary: share of a head that turns (0: none). rotary_back: turned in the table's type, cast back.
    rotary_cast: cast to fp32, both turned, both cast back. rotary_joined: the turned part is joined to the rest even if
    there is none. rotary_wide: tables in fp32; rotary_wide_full: that of the layers that see all. rotary_repeats: each
    `layer`, or each `tensor`, spreads the tables to pairs anew. rotary_halved: halves turn apart, by tables of half a
    head (GPT-OSS). rotary_tables: kinds of tables; rotary_dims: each one's length of a head. still: layers whose heads
    aren't turned. position_table: rows of a learned table. positions_apart: looked up for each sequence anew. sines:
    rows of a frozen one. zero_added: and a zero beside (token types that aren't given).

    Feed-forward. mlp: `gated`, `fused` (gate and up in one matrix; `clamped` as well), `plain`, `channel mix` (RWKV).
    inner_dropout: of its inner width.

    Around them. embedding_scale: who multiplies the embeddings, their `module`, the `model`, or it `in place`.
    residual_dropout: of what is added to the stream, by the layer; half_dropout: by the half's own module. others:
    elements of a layer's weights that no part here has (of a model that isn't known). varied: of each layer, the fields
    in which it differs. layer_width, layer_rows: of the table with an embedding for every layer (Gemma 4).
    sequence_ways: ranks that split the stream. scan: what a state-space half keeps. idle: weights that take no part in
    a step of text alone. tower: what turns images into tokens; masks_images: their tokens see each other, so that masks
    are made. axes: positions have an axis for time, height and width each, and tables a row for each sequence's token.
    embedding_rows: of the embedding, where it has more than the head. own_loss: logits are shifted, not labels, and the
    loss takes them in their own type (Qwen2-Audio). transposed: linear modules are `Conv1D`, whose weight lies inputs
    first. gathered: halves (`attention`, `mlp`) whose projections transformers' tensor parallelism gathers whole, from
    so many `ways`. table_whole: it doesn't split the embedding. vocabulary_ways: ranks that split embedding and head.
    gathers_logits: they gather the logits for the loss. mixer: what stands in a layer instead of attention. unadapted:
    modules that peft refuses to adapt. residual_wide: the stream is in fp32. logits_wide: the model itself makes its
    logits fp32. streams: several residual streams (Gemma 3n). sparse_gate: only the largest gates of a token stay.
    gate_rank: of the gate on a layer's norms (A.X K2). last_norm: whether there is one before the head. head_dense: the
    activation of a dense layer before it, which a norm follows. blocks: an index of blocks of keys (MiniMax-M3).
    dynamic_window: a mask that trains lets so many keys through (Doge). rows: its experts of one row each.
    """

    hidden: int
    layers: int
    head_count: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int
    tied: bool = False
    norm: str = "rms"
    norm_bias: bool = True
    order: str = "pre"
    qkv: str = "split"
    qkv_bias: bool = False
    qkv_clipped: bool = False
    product_bias: bool = False
    value_dim: int = 0
    value_scale: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: str = ""
    rotary: float = 1.0
    rotary_back: bool = False
    rotary_cast: bool = False
    rotary_joined: bool = False
    rotary_wide: bool = False
    rotary_wide_full: bool = False
    rotary_repeats: str = ""
    rotary_halved: bool = False
    rotary_tables: int = 1
    mlp: str = "gated"
    activation: str = "silu"
    residual_dropout: float = 0.0
    half_dropout: float = 0.0
    attention_dropout: float = 0.0
    embedding_dropout: float = 0.0
    windows: tuple[int | None, ...] = ()
    logit_softcap: bool = False
    embedding_scale: str = ""
    residual_scale: bool = False
    gate_rank: int = 0
    logit_scale: bool = False
    hidden_scale: bool = False
    head_bias: bool = False
    position_table: int = 0
    eager_only: bool = False
    mixture: Mixture | None = None
    rows: RowExperts | None = None
    sparse: tuple[bool, ...] = ()
    names: dict[str, str] = {}
    buffers: tuple[int, ...] = ()
    query_scale: bool = False
    key_scale: bool = False
    positions_apart: bool = False
    zero_added: bool = False
    triangle: int = 0
    last_norm: bool = True
    head_dense: str = ""
    sines: int = 0
    embedding_norm: bool = False
    alibi: str = ""
    alibi_positions: int = 0
    always_masked: bool = False
    way: Way = Way()
    inner_dropout: float = 0.0
    sub_norms: bool = False
    still: tuple[bool, ...] = ()
    latent: Latent | None = None
    index: Index | None = None
    blocks: Blocks | None = None
    dynamic_window: int = 0
    others: int = 0
    varied: tuple[dict[str, Any], ...] = ()
    rotary_dims: tuple[int, ...] = ()
    caches: str = ""
    same_values: bool = False
    output_gate: str = ""
    layer_width: int = 0
    layer_rows: int = 0
    sequence_ways: int = 1
    scan: Scan | None = None
    mixer: Callable[[Any, Value], Value] | None = None
    unadapted: tuple[str, ...] = ()
    residual_wide: bool = False
    logits_wide: bool = False
    streams: Streams | None = None
    sparse_gate: bool = False
    gathered: tuple[str, ...] = ()
    ways: int = 1
    table_whole: bool = False
    vocabulary_ways: int = 1
    gathers_logits: bool = False
    head: str = "lm"
    labels: int = 2
    task: TaskHead = TaskHead(scores_all=True, bias=False)
    idle: tuple[Idle, ...] = ()
    tower: Tower | None = None
    masks_images: bool = False
    embedding_rows: int = 0
    own_loss: bool = False
    axes: bool = False
    transposed: bool = False

    @property
    def masked(self) -> bool:
        """Whether a layer is given attention's mask: not if something else stands in its place."""
        attends = self.mixer is None or getattr(self.mixer, "attends", False)
        return attends or self.order in {"falcon_h1", "zamba"}

    def of(self, number: int) -> DecoderShape:
        """The shape of one layer."""
        return msgspec.structs.replace(self, **self.varied[number]) if self.varied else self

    def name(self, module: str) -> str:
        """The name of a module as adapters ask for it."""
        return self.names.get(module, module)
