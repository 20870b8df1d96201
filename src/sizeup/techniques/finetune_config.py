"""A training setting written down for TRL, accelerate, FSDP, DeepSpeed or torchtune."""

from __future__ import annotations

import json
from typing import Any

from sizeup.errors import BadInput
from sizeup.estimate.training.settings import TrainSetting

_TORCH_OPTIMIZERS = {
    "adamw_fused": "adamw_torch_fused", "adamw_foreach": "adamw_torch", "adamw_loop": "adamw_torch",
    "adam8bit": "adamw_bnb_8bit", "paged_adamw": "paged_adamw_32bit", "paged_adam8bit": "paged_adamw_8bit",
    "adafactor": "adafactor", "lion": "lion_32bit", "lion8bit": "lion_8bit", "sgd": "sgd", "sgd_momentum": "sgd",
    "galore": "galore_adamw",
}  # fmt: skip


def emit(form: str, model: str, setting: TrainSetting) -> str:
    """The configuration in that form. Raises BadInput for what the form can't say."""
    forms = {"trl": trl, "accelerate": accelerate, "fsdp": accelerate, "deepspeed": deepspeed, "torchtune": torchtune}
    if form not in forms:
        raise BadInput(f"no configuration for {form!r}", hint=f"one of {', '.join(forms)}")
    return forms[form](model, setting)


def yaml(fields: dict[str, Any], depth: int = 0) -> str:
    """Nested mappings, lists and scalars as YAML (JSON scalars are YAML)."""
    lines = []
    for name, value in fields.items():
        if isinstance(value, dict):
            lines.append(f"{'  ' * depth}{name}:\n{yaml(value, depth + 1)}")
        else:
            lines.append(f"{'  ' * depth}{name}: {json.dumps(value)}")
    return "\n".join(lines)


def trl(model: str, setting: TrainSetting) -> str:
    """`trl sft --config` (or dpo, grpo): TRL's own arguments and those of its Trainer."""
    if setting.optimizer not in _TORCH_OPTIMIZERS:
        raise BadInput(f"TRL's Trainer has no optimizer {setting.optimizer!r}", hint="set optimizer=adamw_fused")
    fields: dict[str, Any] = {
        "model_name_or_path": model,
        "per_device_train_batch_size": setting.batch,
        "max_length": setting.sequence,
        "gradient_accumulation_steps": 2 if setting.accumulating else 1,
        "gradient_checkpointing": setting.checkpointing != "none",
        "optim": _TORCH_OPTIMIZERS[setting.optimizer],
        "attn_implementation": setting.attention,
        "dtype": "float32" if setting.weight_item == 4 and setting.method != "qlora" else "bfloat16",
        "bf16": "bf16-autocast" in setting.precision or setting.method == "qlora",
        "fp16": "fp16-autocast" in setting.precision,
        "use_liger_kernel": setting.loss == "fused",
    }
    if not setting.gradient_clip:
        fields["max_grad_norm"] = 0.0
    if setting.adapters:
        fields |= {
            "use_peft": True,
            "lora_r": setting.lora_rank,
            "lora_alpha": 2 * setting.lora_rank,
            "lora_dropout": setting.lora_dropout,
            "lora_target_modules": list(setting.lora_targets) or "all-linear",
            "use_dora": setting.method == "dora",
        }
    if setting.method == "qlora":
        fields |= {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "use_bnb_nested_quant": setting.double_quantization,
        }
    return yaml(fields)


def accelerate(model: str, setting: TrainSetting) -> str:
    """`accelerate launch --config_file`: where and how it is distributed."""
    fields: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "FSDP" if setting.sharding == "fsdp" else "MULTI_GPU" if setting.world > 1 else "NO",
        "num_machines": 1,
        "num_processes": setting.world,
        "mixed_precision": "bf16" if setting.autocast or setting.gathers else "no",
    }
    if setting.sharding == "fsdp":
        fields["fsdp_config"] = {
            "fsdp_version": 2,
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_reshard_after_forward": setting.reshard,
            "fsdp_offload_params": setting.offload_weights,
            "fsdp_activation_checkpointing": setting.checkpointing != "none",
            "fsdp_state_dict_type": "SHARDED_STATE_DICT",
        }
    return f"# {model}\n{yaml(fields)}"


def deepspeed(_model: str, setting: TrainSetting) -> str:
    """DeepSpeed's JSON."""
    stage = {"zero1": 1, "zero2": 2, "zero3": 3}.get(setting.sharding, 0)
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": True, "contiguous_gradients": True}
    if setting.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if setting.offload_weights and stage == 3:
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    fields: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": setting.batch,
        "gradient_accumulation_steps": 2 if setting.accumulating else 1,
        "bf16": {"enabled": "bf16" in setting.precision},
        "fp16": {"enabled": "fp16" in setting.precision},
        "zero_optimization": zero,
    }
    if setting.gradient_clip:
        fields["gradient_clipping"] = 1.0
    return json.dumps(fields, indent=2)


def torchtune(model: str, setting: TrainSetting) -> str:
    """The part of a torchtune recipe that decides its memory."""
    fields: dict[str, Any] = {
        "checkpointer": {"checkpoint_dir": model},
        "batch_size": setting.batch,
        "tokenizer": {"max_seq_len": setting.sequence},
        "gradient_accumulation_steps": 2 if setting.accumulating else 1,
        "dtype": "fp32" if setting.precision == "fp32" else "bf16",
        "enable_activation_checkpointing": setting.checkpointing != "none",
        "enable_activation_offloading": setting.offload_activations,
        "optimizer": {
            "_component_": "bitsandbytes.optim.PagedAdamW8bit" if "8bit" in setting.optimizer else "torch.optim.AdamW",
            "fused": setting.optimizer == "adamw_fused",
        },
        "loss": {
            "_component_": "torchtune.modules.loss.LinearCrossEntropyLoss"
            if setting.loss != "standard"
            else "torch.nn.CrossEntropyLoss"
        },
    }
    if setting.adapters:
        fields["model"] = {
            "lora_rank": setting.lora_rank,
            "lora_alpha": 2 * setting.lora_rank,
            "lora_attn_modules": list(setting.lora_targets) or ["q_proj", "k_proj", "v_proj", "output_proj"],
            "apply_lora_to_mlp": not setting.lora_targets,
            "quantize_base": setting.method == "qlora",
        }
    return yaml(fields)
