"""Methods, losses and objectives that contradict each other, or that peft refuses."""

from __future__ import annotations

from sizeup.errors import BadInput
from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.settings import ENDS, FOUR_BITS, TrainSetting

_SCORED = ("dpo", "grpo")
#: Published steps on GPTQ's layers (Qwen's README, under DeepSpeed) take 6 to 34 % more than is derived.
GPTQ = 0.35


def check_methods(setting: TrainSetting, shape: object) -> None:
    """Raise BadInput for a method, loss or objective that can't be."""
    if setting.four_bit not in FOUR_BITS:
        raise BadInput(f"four_bit {setting.four_bit!r} isn't known", hint=f"one of {', '.join(FOUR_BITS)}")
    if setting.four_bit != "plain" and setting.method != "qlora":
        raise BadInput(
            f"four_bit {setting.four_bit} says how packed layers compute, but method is {setting.method}",
            hint="set method=qlora, or drop four_bit",
        )
    if setting.precision == "fp8" and setting.method == "qlora":
        raise BadInput(
            "precision fp8 computes linear layers in one byte, but method qlora packs them into four bits",
            hint="set method=lora, or precision=bf16",
        )
    _check_saved(setting)
    _check_stacked(setting, shape)
    _check_objective(setting, shape)


def _check_saved(setting: TrainSetting) -> None:
    if setting.modules_to_save and not setting.adapters:
        raise BadInput(
            f"modules_to_save are given, but method {setting.method} trains everything",
            hint="set method=lora, or drop it",
        )
    if setting.method == "dora" and any(ENDS.get(name) == "embed_tokens" for name in setting.lora_targets):
        raise BadInput(
            "method dora on the embedding isn't counted, and lora_targets name it",
            hint="set method=lora, or name it in modules_to_save",
        )
    for name in setting.modules_to_save:
        if name not in ENDS:
            raise BadInput(
                f"modules_to_save {name} isn't counted: of the tables at both ends copies can train",
                hint=f"name {', '.join(ENDS)}, or adapt the module by lora_targets",
            )


def _check_stacked(setting: TrainSetting, shape: object) -> None:
    """Adapters on stacked experts are parameters of their own, which peft makes only plainly (0.21, `ParamWrapper`)."""
    stacked = isinstance(shape, DecoderShape) and shape.mixture is not None and shape.mixture.adapted
    if not stacked or not setting.adapters or setting.lora_targets:
        return
    for refused, words in (
        (setting.method == "dora", "method dora"),
        (setting.lora_dropout > 0, f"lora_dropout {setting.lora_dropout}"),
    ):
        if refused:
            raise BadInput(
                f"{words} doesn't work on the model's stacked experts, which all linear modules include: peft refuses",
                hint="name modules in lora_targets (q_proj,k_proj,v_proj,o_proj), or set method=lora without dropout",
            )


def _check_objective(setting: TrainSetting, shape: object) -> None:
    if setting.objective not in _SCORED and setting.reference is False:
        raise BadInput(
            f"reference=False leaves out a reference model, but objective {setting.objective} has none",
            hint="drop it, or set objective=dpo",
        )
    if setting.four_bit == "gptq" and setting.precision != "fp16":
        raise BadInput(
            f"four_bit gptq computes in fp16 throughout, but precision is {setting.precision}",
            hint="set precision=fp16, or drop four_bit",
        )
    if not isinstance(shape, DecoderShape) and (setting.objective in _SCORED or setting.loss != "standard"):
        words = f"objective {setting.objective}" if setting.objective in _SCORED else f"loss {setting.loss}"
        raise BadInput(f"{words} is for decoders, and this model isn't one", hint="set objective=causal, loss=standard")
    if setting.objective in _SCORED and setting.loss not in {"standard", "tiled"}:
        raise BadInput(
            f"objective {setting.objective} scores tokens by TRL's own head, not by loss {setting.loss}",
            hint="drop loss",
        )


def method_uncertainty(setting: TrainSetting) -> float:
    """Relative error of what is derived from code and not simulated."""
    return GPTQ if setting.four_bit == "gptq" else 0.0


def method_notes(setting: TrainSetting) -> tuple[str, ...]:
    """What a setting's figure stands for, where libraries differ."""
    notes = []
    if setting.method == "qlora" and setting.four_bit == "plain":
        notes.append(
            "4-bit layers are counted with results in 16 bits; bitsandbytes' own give them in fp32 under peft, which "
            "takes more without checkpointing: four_bit=bitsandbytes"
        )
    if setting.four_bit == "gptq":
        notes.append("GPTQ's layers are derived from AutoGPTQ's code, not simulated")
    if setting.precision == "fp8":
        notes.append("fp8 as torchao computes it uncompiled: what is kept stays in 16 bits")
    if setting.objective in _SCORED:
        notes.append(f"{setting.objective} as TRL 1.16 runs it: no whole logits; every token counts as scored")
    return tuple(notes)
