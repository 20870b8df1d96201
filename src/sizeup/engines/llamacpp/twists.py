"""What single architectures do their own way in llama.cpp's graphs, beyond what their tensors tell.

layer_norm: norms with mean and variance, which never work in place. plain_norm: norms without weights.
parallel_norms: attention and feed-forward side by side, each with a norm of its own.
attention_first: of two halves side by side, attention is computed first; attention_last: it is added last.
no_rope: no rotary positions; rope_in_windows: only in layers with a window; mrope: four positions each.
relative_bias: a learned bias of scores by distance. scaled_queries: a factor for each position.
late_softmax: the router's softmax is over the chosen experts only. raw_choice: experts are chosen by the router's
raw values. plain_weights: the chosen experts' weights aren't normalized; weights_first: they are applied before the
experts.
norm_first: the first norm is computed before states are gathered. repeated_keys: a delta net copies keys for each
value head. step_norms: Mamba norms its steps, inputs and outputs without weights.
late_rows: rows without logits are dropped only after the last norm, whose full result stays. headless: no logits.
normed_residual: what a half reads is what it is added to. residual_first: what a half adds goes into the residual's
memory. encoder: every token of a batch may be asked for.

Source: src/models/*.cpp, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

_TWISTS = {
    "bailingmoe3": "late_rows",
    "bert": "layer_norm no_rope headless",
    "bloom": "layer_norm no_rope",
    "codeshell": "layer_norm",
    "cohere2": "layer_norm rope_in_windows",
    "cohere2moe": "layer_norm late_rows attention_last rope_in_windows",
    "command-r": "layer_norm",
    "dbrx": "layer_norm",
    "eurobert": "headless",
    "falcon": "layer_norm",
    "gemma4": "late_rows",
    "gpt-oss": "late_softmax plain_weights",
    "gpt2": "layer_norm no_rope",
    "gptj": "layer_norm",
    "gptneox": "layer_norm parallel_norms",
    "hy_v3": "late_rows",
    "jais": "layer_norm no_rope",
    "jamba": "no_rope plain_weights",
    "jina-bert-v2": "layer_norm no_rope headless",
    "jina-bert-v3": "layer_norm headless",
    "gemma-embedding": "headless",
    "kimi-linear": "norm_first no_rope",
    "lfm2": "residual_first",
    "lfm2moe": "residual_first",
    "llama4": "weights_first plain_weights raw_choice scaled_queries",
    "minimax-01": "normed_residual",
    "modern-bert": "layer_norm headless",
    "mpt": "layer_norm no_rope",
    "nemotron": "layer_norm",
    "nemotron_h": "late_rows no_rope",
    "nemotron_h_moe": "late_rows no_rope",
    "neo-bert": "headless",
    "nomic-bert": "layer_norm headless",
    "nomic-bert-moe": "layer_norm headless",
    "olmo": "layer_norm plain_norm",
    "olmoe": "plain_weights",
    "orion": "layer_norm",
    "phi2": "layer_norm attention_first",
    "qwen2moe": "plain_weights",
    "qwen2vl": "mrope",
    "qwen35": "norm_first late_rows mrope",
    "qwen35moe": "norm_first late_rows mrope",
    "qwen3next": "norm_first late_rows repeated_keys",
    "qwen3vl": "mrope",
    "qwen3vlmoe": "mrope",
    "stablelm": "layer_norm",
    "starcoder": "layer_norm no_rope",
    "starcoder2": "layer_norm",
    "t5": "encoder no_rope relative_bias",
    "t5encoder": "no_rope relative_bias headless",
}


def twists_of(architecture: str) -> frozenset[str]:
    """The twists of an architecture."""
    return frozenset(_TWISTS.get(architecture, "").split())
