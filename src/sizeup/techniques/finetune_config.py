"""A training setting written down for TRL, accelerate, FSDP or DeepSpeed; for torchtune see torchtune_config."""

from __future__ import annotations

import json
from typing import Any

from sizeup.errors import BadInput
from sizeup.estimate.training.optimizers import GALORE_RANK
from sizeup.estimate.training.settings import TrainSetting
from sizeup.techniques.words import refuse_unsaid, yaml

#: Optimizer → its name in transformers' Trainer; those without one can't be said there.
_TRAINER_OPTIMIZERS = {
    "adamw_fused": "adamw_torch_fused", "adamw_foreach": "adamw_torch", "adam8bit": "adamw_bnb_8bit",
    "paged_adamw": "paged_adamw_32bit", "paged_adam8bit": "paged_adamw_8bit", "adafactor": "adafactor",
    "lion": "lion_32bit", "lion8bit": "lion_8bit", "sgd": "sgd", "galore": "galore_adamw",
}  # fmt: skip
#: How much GRPO's divergence from a reference weighs, where there is one (TRL's example; its default is none).
KL_WEIGHT = 0.04
_STAGES = {"zero1": 1, "zero2": 2, "zero3": 3}
_DTYPES = {2: "bfloat16", 4: "float32"}


def emit(form: str, model: str, setting: TrainSetting, config: dict[str, Any]) -> str:
    """The configuration in that form; config: the model's own. Raises BadInput for what the form can't say."""
    if form == "torchtune":
        from sizeup.techniques.torchtune_config import recipe

        return recipe(model, setting, config)
    forms = {"trl": trl, "accelerate": accelerate, "fsdp": accelerate, "deepspeed": deepspeed}
    if form not in forms:
        raise BadInput(f"no configuration for {form!r}", hint=f"one of {', '.join([*forms, 'torchtune'])}")
    if form == "fsdp" and setting.sharding != "fsdp":
        raise BadInput(f"a configuration for fsdp, but sharding is {setting.sharding}", hint="set sharding=fsdp")
    return forms[form](model, setting)


def trl(model: str, setting: TrainSetting) -> str:
    """`trl sft --config` (or dpo, grpo): TRL's own arguments and those of its Trainer (TRL 1.16, transformers 5.23).

    How it is distributed is accelerate's business, and so is checkpointing under FSDP.
    """
    known = {
        "optimizer": tuple(_TRAINER_OPTIMIZERS), "checkpointing": ("full", "none"),
        "loss": ("tiled", "fused", "standard"),
        "precision": ("bf16", "fp32", "fp16", "bf16-autocast-fp32-weights", "fp16-autocast-fp32-weights"),
    }  # fmt: skip
    refuse_unsaid("TRL", setting, known)
    fields: dict[str, Any] = {
        "model_name_or_path": model,
        "per_device_train_batch_size": setting.batch,
        **_lengths(setting),
        "gradient_accumulation_steps": 2 if setting.accumulating else 1,
        "gradient_checkpointing": setting.checkpointing != "none" and setting.sharding != "fsdp",
        "optim": _TRAINER_OPTIMIZERS[setting.optimizer],
        "attn_implementation": setting.attention,
        "dtype": _dtype(setting),
        "bf16": "bf16-autocast" in setting.precision or setting.method == "qlora",
        "fp16": "fp16-autocast" in setting.precision,
        "use_liger_kernel": setting.loss == "fused",
        "max_grad_norm": 1.0 if setting.gradient_clip else 0.0,
    }
    if setting.optimizer == "galore":
        fields |= {"optim_target_modules": "all-linear", "optim_args": f"rank={GALORE_RANK}"}
    return yaml(fields | _reference(setting) | _adapters(setting))


def _reference(setting: TrainSetting) -> dict[str, Any]:
    """Whether a reference runs in the step: DPO's unless its scores are computed before, GRPO's if it is weighed."""
    if setting.objective == "dpo":
        return {"precompute_ref_log_probs": not setting.reference}
    return {"beta": KL_WEIGHT if setting.reference else 0.0} if setting.objective == "grpo" else {}


def _lengths(setting: TrainSetting) -> dict[str, Any]:
    """The sequence in the words of the objective's trainer."""
    if setting.objective == "grpo":
        return {"max_completion_length": setting.sequence, "num_generations": max(2, setting.batch)}
    return {"max_length": setting.sequence}


def _dtype(setting: TrainSetting) -> str:
    if setting.precision == "fp16":
        return "float16"
    return "bfloat16" if setting.method == "qlora" else _DTYPES[setting.weight_item]


def _adapters(setting: TrainSetting) -> dict[str, Any]:
    """Peft's and bitsandbytes' settings in TRL's words."""
    if not setting.adapters:
        return {}
    fields: dict[str, Any] = {
        "use_peft": True,
        "lora_r": setting.lora_rank,
        "lora_alpha": 2 * setting.lora_rank,
        "lora_dropout": setting.lora_dropout,
        "lora_target_modules": list(setting.lora_targets) or "all-linear",
        "use_dora": setting.method == "dora",
    }
    if setting.modules_to_save:
        fields["lora_modules_to_save"] = list(setting.modules_to_save)
    if setting.method == "qlora":
        fields |= {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "use_bnb_nested_quant": setting.double_quantization,
        }
    return fields


def _place(wanted: bool | str) -> str:
    """Accelerate's word for where something is offloaded to."""
    return "cpu" if wanted is True else wanted or "none"


def accelerate(model: str, setting: TrainSetting) -> str:
    """`accelerate launch --config_file`: where and how it is distributed (accelerate 1.15)."""
    for name in ("pipeline_parallel", "expert_parallel"):
        if getattr(setting, name) > 1:
            raise BadInput(f"accelerate has no {name}, and it is {getattr(setting, name)}", hint=f"set {name}=1")
    stage = _STAGES.get(setting.sharding)
    kind = "FSDP" if setting.sharding == "fsdp" else "DEEPSPEED" if stage else "MULTI_GPU"
    fields: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": kind if setting.world > 1 else "NO",
        "num_machines": 1,
        "num_processes": setting.world,
        "mixed_precision": _mixed(setting),
    }
    if setting.sharding == "fsdp":
        fields["fsdp_config"] = {
            "fsdp_version": 2,
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_reshard_after_forward": setting.reshard,
            "fsdp_offload_params": bool(setting.offload_weights),
            "fsdp_activation_checkpointing": setting.checkpointing != "none",
            "fsdp_state_dict_type": "SHARDED_STATE_DICT",
        }
    if stage:
        fields["deepspeed_config"] = {
            "zero_stage": stage,
            "gradient_accumulation_steps": 2 if setting.accumulating else 1,
            "gradient_clipping": 1.0 if setting.gradient_clip else 0.0,
            "offload_optimizer_device": _place(setting.offload_optimizer),
            "offload_param_device": _place(setting.offload_weights) if stage == 3 else "none",
            "zero3_init_flag": stage == 3,
        }
    if setting.tensor_parallel > 1 or setting.context_parallel > 1:
        shards = setting.data_parallel if setting.sharding == "fsdp" else 1
        fields["parallelism_config"] = {
            "parallelism_config_dp_replicate_size": setting.data_parallel // shards,
            "parallelism_config_dp_shard_size": shards,
            "parallelism_config_tp_size": setting.tensor_parallel,
            "parallelism_config_cp_size": setting.context_parallel,
        }
    return f"# {model}\n{yaml(fields)}"


def _mixed(setting: TrainSetting) -> str:
    """Accelerate's mixed precision: what is computed in where weights are wider."""
    if setting.precision == "fp8":
        return "fp8"
    if "fp16-autocast" in setting.precision:
        return "fp16"
    return "bf16" if setting.autocast or setting.compute_item < setting.weight_item else "no"


def _offload(place: bool | str) -> dict[str, Any]:
    """Where DeepSpeed offloads to; for NVMe it asks for a folder."""
    if place == "nvme":
        return {"device": "nvme", "nvme_path": "/local_nvme", "pin_memory": True}
    return {"device": "cpu", "pin_memory": True}


def deepspeed(_model: str, setting: TrainSetting) -> str:
    """DeepSpeed's JSON (0.19, which clips gradients unless it is told not to).

    With 16-bit weights its optimizer always keeps fp32 copies of them.
    """
    if setting.sharding == "fsdp":
        raise BadInput("DeepSpeed shards by ZeRO, but sharding is fsdp", hint="set sharding=zero3")
    if setting.precision == "fp8":
        raise BadInput("DeepSpeed has no precision fp8", hint="set precision=bf16-fp32-master")
    stage = _STAGES.get(setting.sharding, 0)
    zero: dict[str, Any] = {
        "stage": stage, "overlap_comm": setting.overlap_comm or stage == 3, "contiguous_gradients": True,
        "reduce_bucket_size": setting.reduce_bucket,
    }  # fmt: skip
    if stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": setting.prefetch_bucket,
            "stage3_max_live_parameters": setting.live_parameters,
            "stage3_max_reuse_distance": setting.reuse_distance,
            "stage3_param_persistence_threshold": setting.persistence_threshold,
        }
    if setting.offload_optimizer:
        zero["offload_optimizer"] = _offload(setting.offload_optimizer)
    if setting.offload_weights and stage == 3:
        zero["offload_param"] = _offload(setting.offload_weights)
    autocast = "autocast" in setting.precision
    kind = "float16" if "fp16" in setting.precision else "bfloat16"
    fields: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": setting.batch,
        "gradient_accumulation_steps": 2 if setting.accumulating else 1,
        "bf16": {"enabled": "bf16" in setting.precision and not autocast},
        "fp16": {"enabled": setting.precision == "fp16"},
        "gradient_clipping": 1.0 if setting.gradient_clip else 0.0,
        "zero_optimization": zero,
    }
    if autocast:
        fields["torch_autocast"] = {"enabled": True, "dtype": kind}
    return json.dumps(fields, indent=2)
