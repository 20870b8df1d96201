"""How a step runs a model, beside the model's own habits."""

from __future__ import annotations

import msgspec


class Run(msgspec.Struct, frozen=True):
    """eager: attention by the model's own Python. checkpoint: of each layer, whether it is recomputed (empty: none).

    input_gradients: the embeddings' output needs a gradient although they are frozen (checkpointing with adapters).
    divided: the loss is divided by the items of all micro-batches. flash: the flash-attention package, which takes
    grouped heads, windows and packed sequences without a mask. selective: recomputation keeps matrix products.
    offload: what a recomputed layer keeps lies on the host. loss: `standard`, `narrow`, `chunked`, `fused`, `tiled`.
    split_vocabulary: each rank has a part of the head's rows, and the loss is made of all ranks' parts. head, labels:
    what is trained, and how many labels it tells apart. images: in each sequence; image_size: pixels on a side, 0 for
    what the tower is made for; train_vision: it isn't frozen. objective: what is minimised; reference: a frozen model
    computes the batch, too (DPO). kernels: scans by kernel packages.
    """

    eager: bool = False
    padding: bool = False
    checkpoint: tuple[bool, ...] = ()
    input_gradients: bool = False
    divided: bool = False
    flash: bool = False
    selective: bool = False
    offload: bool = False
    loss: str = "standard"
    split_vocabulary: bool = False
    images: int = 0
    image_size: int = 0
    train_vision: bool = True
    head: str = "lm"
    labels: int = 2
    objective: str = "causal"
    reference: bool = True
    kernels: bool = False
