"""The model of a training step: what transformers, peft and torch build."""

from __future__ import annotations

import re
from typing import Any

from sizeup.workers.training_checkpointing import TOWER, recompute
from sizeup.workers.training_four_bit import pack
from sizeup.workers.training_task import auto_class, with_pooling

#: What peft calls the heads whose weights it trains beside the adapters.
PEFT_TASKS = {"classification": "SEQ_CLS", "tokens": "TOKEN_CLS", "question": "QUESTION_ANS"}
#: Modules of such heads.
HEADS = ["classifier", "pre_classifier", "score", "qa_outputs"]


def dtype_of(torch: Any, setting: dict[str, Any]) -> Any:
    """The type weights are built in."""
    precision = setting["precision"]
    if precision == "fp32" or "autocast" in precision:
        return torch.float32
    return torch.float16 if precision.startswith("fp16") else torch.bfloat16


def without_cache(config: Any) -> None:
    """No keys and values for later tokens, in the text part of a model with towers, too."""
    for part in (config, config.get_text_config()):
        if hasattr(part, "use_cache"):
            part.use_cache = False


def built(torch: Any, config: Any, setting: dict[str, Any], device: str, head: str = "lm") -> Any:
    """The model with its head and adapters, ready to train."""
    import transformers
    from transformers.initialization import no_init_weights

    auto = auto_class(transformers, config, head)
    chosen = {} if setting["attention"] == "sdpa" else {"attn_implementation": setting["attention"]}
    with torch.device(device), no_init_weights():
        model = auto.from_config(config, dtype=dtype_of(torch, setting), **chosen)
    model.tie_weights()
    adapters = setting["method"] in {"lora", "qlora", "dora"}
    if not setting.get("train_vision", True):
        freeze_tower(model)
    if setting["method"] == "qlora":
        pack(torch, model, setting)
    if setting["precision"] == "fp8":
        _in_eight_bits(torch, model, device)
    if setting["checkpointing"] != "none":
        recompute(torch, model, setting)
        if adapters:
            model.enable_input_require_grads()
    if adapters:
        model = adapted(model, setting, head)
    if head == "embedding":
        model = with_pooling(torch, model)
    model.train()
    return model


def freeze_tower(model: Any) -> None:
    """No gradients for the tower; what leads from it into the text keeps them."""
    for name, parameter in model.named_parameters():
        if re.fullmatch(TOWER, name):
            parameter.requires_grad_(False)


def _in_eight_bits(torch: Any, model: Any, device: str) -> None:
    """Linear modules but the head compute in one byte (torchao's `Float8Linear`, tensorwise)."""
    from torchao.float8 import convert_to_float8_training

    if device == "cuda" and not torch.backends.cuda.is_built():
        torch.cuda.get_device_capability = lambda *_arguments: (9, 0)
    head = model.get_output_embeddings()
    convert_to_float8_training(model, module_filter_fn=lambda module, _name: module is not head)


def adapted(model: Any, setting: dict[str, Any], head: str = "lm") -> Any:
    """The model with peft's adapters; a head of labels trains as a copy of its own."""
    from peft import LoraConfig, get_peft_model

    rank = setting["lora_rank"]
    words = hasattr(model, "prepare_inputs_for_generation") and model.main_input_name == "input_ids"
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=list(setting["lora_targets"]) or "all-linear",
        exclude_modules=HEADS if head in PEFT_TASKS else None if setting.get("train_vision", True) else TOWER,
        lora_dropout=setting["lora_dropout"],
        use_dora=setting["method"] == "dora",
        modules_to_save=list(setting.get("modules_to_save", ())) or None,
        task_type=PEFT_TASKS.get(head, "CAUSAL_LM" if words else None),
    )
    made = get_peft_model(model, config, autocast_adapter_dtype=setting["adapter_precision"] == "fp32")
    _fresh_copies(made)
    return made


def _fresh_copies(model: Any) -> None:
    """Make the trained copies of whole modules anew: a copied fake tensor is taken for one that must be laid out."""
    import torch

    for module in model.modules():
        if type(module).__name__ == "ModulesToSaveWrapper":
            for copy in module.modules_to_save.values():
                for name, parameter in list(copy.named_parameters(recurse=False)):
                    setattr(copy, name, torch.nn.Parameter(parameter.data.new_empty(parameter.shape)))
