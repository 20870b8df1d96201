"""What a checkpoint's tensor is for, as far as quantizers care, told from its name when nobody knows better."""

from __future__ import annotations

from sizeup.formats.storage import Shape

KINDS = ("linear", "embedding", "head", "router", "other")

_HEADS = frozenset({"lm_head", "head", "output", "embed_out", "output_layer", "score", "classifier"})
_EMBEDDINGS = frozenset({"embed", "emb", "wte", "wpe", "tok_embeddings", "word_embeddings", "shared"})
_ROUTERS = frozenset({"gate", "router", "shared_expert_gate", "wg"})
_OTHERS = ("norm", "conv", "patch_emb", "pos_emb", "rotary", "bias", "A_log", "relative_attention")
_KEPT_SMALL = frozenset({"weights_proj", "eh_proj"})


def kind_of_checkpoint_tensor(name: str, shape: Shape) -> str:
    """One of KINDS: `linear` is the weight of a linear layer (or of merged experts), which quantizers replace.

    Two kinds of linear layers count as `other` because published checkpoints leave them alone: the small
    `weights_proj` of sparse attention's indexer and the `eh_proj` of multi-token prediction.
    """
    module = name.removesuffix(".weight")
    parent, _, last = module.rpartition(".")
    experts = "experts" in module
    if len(shape) < 2 or (len(shape) > 2 and not experts) or (module == name and not experts):
        return "other"
    if last in _HEADS:
        return "head"
    if last in _ROUTERS or parent.endswith("router"):
        return "router"
    if last in _EMBEDDINGS or last.startswith("embed_") or last.endswith(("_embeddings", "_embedding")):
        return "embedding"
    return "other" if last in _KEPT_SMALL or any(part in last for part in _OTHERS) else "linear"
