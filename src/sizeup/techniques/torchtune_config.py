"""A training setting as a whole torchtune recipe configuration (torchtune 0.6.1): `tune run RECIPE --config FILE`.

torchtune builds a model from its own modules, so the model's sizes are written down: whatever model has the sizes and
habits of a family that torchtune knows can be trained, not only those that it has names for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from sizeup.errors import BadInput
from sizeup.estimate.training.settings import TrainSetting
from sizeup.models.config import Config
from sizeup.techniques.words import refuse_unsaid, yaml

#: Optimizer → its class and arguments.
_OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw_fused": {"_component_": "torch.optim.AdamW", "fused": True},
    "adamw_foreach": {"_component_": "torch.optim.AdamW", "foreach": True},
    "adamw_loop": {"_component_": "torch.optim.AdamW", "foreach": False},
    "adam8bit": {"_component_": "bitsandbytes.optim.AdamW8bit"},
    "paged_adamw": {"_component_": "bitsandbytes.optim.PagedAdamW"},
    "paged_adam8bit": {"_component_": "bitsandbytes.optim.PagedAdamW8bit"},
    "lion8bit": {"_component_": "bitsandbytes.optim.Lion8bit"},
    "adafactor_torch": {"_component_": "torch.optim.Adafactor"},
    "muon": {"_component_": "torch.optim.Muon"},
    "sgd": {"_component_": "torch.optim.SGD"},
    "sgd_momentum": {"_component_": "torch.optim.SGD", "momentum": 0.9},
}
_LOSSES = {
    "standard": "torch.nn.CrossEntropyLoss",
    "chunked": "torchtune.modules.loss.CEWithChunkedOutputLoss",
}
_MLP = frozenset({"gate_proj", "up_proj", "down_proj"})
_LEARNING_RATE = {True: 3e-4, False: 2e-5}


class Family(msgspec.Struct, frozen=True):
    """torchtune's name of a builder, of a checkpoint's layout and of a tokenizer with its files.

    sizes: arguments beside those that all builders have → the configuration's names.
    """

    module: str
    layout: str
    tokenizer: str
    files: dict[str, str]
    sizes: dict[str, str] = {}


_SENTENCEPIECE = {"path": "tokenizer.model"}
_LLAMA3 = "torchtune.models.llama3.llama3_tokenizer"
_FAMILIES = {
    "llama2": Family("llama3", "LLAMA3", "torchtune.models.llama2.llama2_tokenizer", _SENTENCEPIECE),
    "llama3": Family("llama3", "LLAMA3", _LLAMA3, {"path": "original/tokenizer.model"}),
    "llama3_1": Family("llama3_1", "LLAMA3", _LLAMA3, {"path": "original/tokenizer.model"}),
    "llama3_2": Family("llama3_2", "LLAMA3_2", _LLAMA3, {"path": "original/tokenizer.model"}),
    "mistral": Family("mistral", "MISTRAL", "torchtune.models.mistral.mistral_tokenizer", _SENTENCEPIECE),
    "qwen2": Family(
        "qwen2", "QWEN2", "torchtune.models.qwen2_5.qwen2_5_tokenizer",
        {"path": "vocab.json", "merges_file": "merges.txt"}, {"tie_word_embeddings": "tie_word_embeddings"},
    ),
    "gemma": Family(
        "gemma", "GEMMA", "torchtune.models.gemma.gemma_tokenizer", _SENTENCEPIECE, {"head_dim": "head_dim"}
    ),
    "gemma2": Family(
        "gemma2", "GEMMA2", "torchtune.models.gemma.gemma_tokenizer", _SENTENCEPIECE,
        {"head_dim": "head_dim", "sliding_window_size": "sliding_window", "final_capping_value":
         "final_logit_softcapping", "hidden_capping_value": "attn_logit_softcapping",
         "query_pre_attn_scalar": "query_pre_attn_scalar"},
    ),
    "phi3": Family("phi3", "PHI3_MINI", "torchtune.models.phi3.phi3_mini_tokenizer", _SENTENCEPIECE),
}  # fmt: skip
_LLAMA3_WORDS, _LLAMA3_CONTEXT = 128_000, 8192


def recipe(model: str, setting: TrainSetting, config: dict[str, Any]) -> str:
    """The configuration, with the command that runs it. Raises BadInput for what torchtune 0.6 can't do."""
    known = {
        "optimizer": tuple(_OPTIMIZERS), "checkpointing": ("full", "none"), "loss": tuple(_LOSSES),
        "precision": ("bf16", "fp32"), "method": ("full", "lora", "qlora", "dora"), "objective": ("causal", "sft"),
        "sharding": ("fsdp", "none"), "pipeline_parallel": ("1",), "context_parallel": ("1",),
        "expert_parallel": ("1",), "tensor_parallel": ("1",),
    }  # fmt: skip
    refuse_unsaid("torchtune", setting, known)
    cfg = Config(config, "the model's configuration")
    family = _family(cfg)
    spread = "distributed" if setting.world > 1 else "single_device"
    name = f"{'lora' if setting.adapters else 'full'}_finetune_{spread}"
    devices = f" --nproc_per_node {setting.world}" if setting.world > 1 else ""
    fields = {
        "output_dir": "torchtune_output",
        "model": {**_sizes(cfg, family, adapted=setting.adapters), **_adapters(setting)},
        "tokenizer": _tokenizer(model, family, setting),
        "checkpointer": _checkpointer(model, family),
        "resume_from_checkpoint": False,
        "dataset": {"_component_": "torchtune.datasets.alpaca_dataset", "packed": not setting.padding},
        **_step(setting),
    }
    return f"# tune run{devices} {name} --config THIS_FILE\n{yaml(fields)}"


def _family(cfg: Config) -> Family:
    """The builder whose model this is. Raises BadInput where there is none."""
    kind = cfg.optional_str("model_type") or ""
    if kind == "llama":
        kind = _llama(cfg)
    found = _FAMILIES.get(kind)
    heads = cfg.optional_int("num_attention_heads") or 1
    width = cfg.optional_int("head_dim") or cfg.int("hidden_size") // heads
    if found is None or ("head_dim" not in found.sizes and width * heads != cfg.int("hidden_size")):
        raise BadInput(
            f"torchtune 0.6 has no builder for a model of type {kind!r} with heads of {width}",
            hint=f"--emit trl trains it; torchtune knows {', '.join(_FAMILIES)}",
        )
    return found


def _llama(cfg: Config) -> str:
    """Which of the Llamas: by tied weights, stretched positions (or a context that only they have), and words."""
    if cfg.bool("tie_word_embeddings", default=False):
        return "llama3_2"
    rope = cfg.optional_sub("rope_scaling", "rope_parameters")
    words, context = cfg.int("vocab_size"), cfg.int("max_position_embeddings")
    unsaid = rope is None and words >= _LLAMA3_WORDS and context > _LLAMA3_CONTEXT
    if unsaid or (rope is not None and rope.optional_str("rope_type", "type") == "llama3"):
        return "llama3_1"
    return "llama3" if words >= _LLAMA3_WORDS else "llama2"


def _sizes(cfg: Config, family: Family, *, adapted: bool) -> dict[str, Any]:
    """The builder and the model's sizes. What the configuration doesn't say is as the builder has it."""
    heads = cfg.int("num_attention_heads")
    rope = cfg.optional_sub("rope_parameters", "rope_scaling")
    base = (rope.optional_float("rope_theta") if rope else None) or cfg.optional_float("rope_theta")
    factor = rope.optional_float("factor") if rope and family.module in {"llama3_1", "llama3_2"} else None
    said: dict[str, Any] = {
        "norm_eps": cfg.optional_float("rms_norm_eps"),
        "rope_base": None if base is None else int(base),
        "scale_factor": None if factor is None else int(factor),
    } | {name: cfg.data.get(theirs) for name, theirs in family.sizes.items()}
    return {
        "_component_": f"torchtune.models.{family.module}.{'lora_' if adapted else ''}{family.module}",
        "vocab_size": cfg.int("vocab_size"),
        "num_layers": cfg.int("num_hidden_layers"),
        "num_heads": heads,
        "num_kv_heads": cfg.optional_int("num_key_value_heads") or heads,
        "embed_dim": cfg.int("hidden_size"),
        "intermediate_dim": cfg.int("intermediate_size"),
        "max_seq_len": cfg.int("max_position_embeddings"),
    } | {name: value for name, value in said.items() if value is not None}


def _adapters(setting: TrainSetting) -> dict[str, Any]:
    """LoRA in torchtune's words: attention's modules by name, the feed-forward all or not at all."""
    if not setting.adapters:
        return {}
    targets = set(setting.lora_targets)
    named = ["output_proj" if name == "o_proj" else name for name in setting.lora_targets if name not in _MLP]
    return {
        "lora_attn_modules": named or ([] if targets else ["q_proj", "k_proj", "v_proj", "output_proj"]),
        "apply_lora_to_mlp": bool(targets & _MLP) or not targets,
        "lora_rank": setting.lora_rank,
        "lora_alpha": 2 * setting.lora_rank,
        "lora_dropout": setting.lora_dropout,
        "quantize_base": setting.method == "qlora",
        "use_dora": setting.method == "dora",
    }


def _tokenizer(model: str, family: Family, setting: TrainSetting) -> dict[str, Any]:
    files = {name: f"{model}/{path}" for name, path in family.files.items()}
    return {"_component_": family.tokenizer, **files, "max_seq_len": setting.sequence}


def _checkpointer(model: str, family: Family) -> dict[str, Any]:
    """The weights' files: those of a local folder, else the single file of a model that isn't here yet."""
    here = sorted(path.name for path in Path(model).glob("*.safetensors")) if Path(model).is_dir() else []
    return {
        "_component_": "torchtune.training.FullModelHFCheckpointer",
        "checkpoint_dir": model,
        "checkpoint_files": here or ["model.safetensors"],
        "recipe_checkpoint": None,
        "output_dir": "torchtune_output",
        "model_type": family.layout,
    }


def _step(setting: TrainSetting) -> dict[str, Any]:
    """What a step is and keeps."""
    fields: dict[str, Any] = {
        "seed": None,
        "shuffle": True,
        "batch_size": setting.batch,
        "epochs": 1,
        "max_steps_per_epoch": None,
        "gradient_accumulation_steps": 2 if setting.accumulating else 1,
        "clip_grad_norm": 1.0 if setting.gradient_clip else None,
        "optimizer": {**_OPTIMIZERS[setting.optimizer], "lr": _LEARNING_RATE[setting.adapters]},
        "loss": {"_component_": _LOSSES[setting.loss]},
        "device": "cuda",
        "dtype": setting.precision,
        "compile": False,
        "enable_activation_checkpointing": setting.checkpointing != "none",
        "enable_activation_offloading": setting.offload_activations,
        "fsdp_cpu_offload": setting.offload_weights,
        "fsdp_reshard_after_forward": setting.reshard,
        "metric_logger": {"_component_": "torchtune.training.metric_logging.DiskLogger", "log_dir": "torchtune_output"},
        "log_every_n_steps": 1,
        "log_peak_memory_stats": True,
    }
    if setting.adapters:
        warm = {"_component_": "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup"}
        fields["lr_scheduler"] = {**warm, "num_warmup_steps": 100}
    return fields
