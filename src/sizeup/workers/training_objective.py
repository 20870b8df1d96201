"""What a step minimises, where it isn't the model's own loss: heads that make no whole logits, preferences, rewards.

TRL's fused head is TRL's own code, with kernels that compute nothing; what its trainers do with log-probabilities is
written out as they do it (TRL 1.16, `trainer/dpo_trainer.py`, `trainer/grpo_trainer.py`).
"""

# What is private to TRL is the point here.
# ruff: noqa: SLF001

from __future__ import annotations

from typing import Any

#: Parts that a chunked loss makes.
PARTS = 8
OUTPUTS = {
    "causal": ("log_probs", "entropy", "is_top1"), "sft": ("log_probs", "entropy", "is_top1"),
    "dpo": ("log_probs", "entropy", "mean_logits", "is_top1"), "grpo": ("log_probs", "entropy"),
}  # fmt: skip
BETA = 0.1


class Loss:
    """Has a loss, as a model's output does."""

    def __init__(self, loss: Any) -> None:
        self.loss = loss


def tiled(setting: dict[str, Any]) -> bool:
    """Whether the head is TRL's."""
    return setting["loss"] == "tiled" or setting["objective"] in {"dpo", "grpo"}


def with_fused_head(model: Any, objective: str) -> None:
    """Let the model's forward return log-probabilities when asked to (TRL's `add_fused_lm_head`)."""
    from trl.kernels import chunked_logprob
    from trl.trainer import utils

    for name in ("_forward_kernel", "_backward_kernel"):
        setattr(chunked_logprob, name, _Nothing())
    chunked_logprob._TRITON_AVAILABLE = True
    chunked_logprob.triton = _Grid
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    utils.add_fused_lm_head(base, outputs=OUTPUTS[objective])


class _Nothing:
    """A kernel on any grid that writes into what it is given."""

    def __getitem__(self, _grid: Any) -> Any:
        return lambda *_arguments, **_named: None


class _Grid:
    """The one function that TRL asks of Triton beside its kernels."""

    @staticmethod
    def cdiv(one: int, other: int) -> int:
        return -(-one // other)


def output_of(torch: Any, model: Any, inputs: dict[str, Any], setting: dict[str, Any], reference: Any) -> Any:
    """The step's output, which has a loss."""
    if setting["objective"] == "dpo":
        return Loss(_preference(torch, model, inputs, reference, given=not setting.get("reference", True)))
    if setting["objective"] == "grpo":
        return Loss(_rewarded(torch, model, inputs))
    if setting["loss"] == "tiled":
        return model(**inputs, fused_lm_head=True)
    if setting["loss"] == "narrow":
        return Loss(_shifted(torch, model, inputs))
    if setting["loss"] != "standard":
        return Loss(_in_parts(torch, model, inputs))
    return model(**inputs)


def _preference(torch: Any, model: Any, inputs: dict[str, Any], reference: Any, *, given: bool) -> Any:
    """DPO's sigmoid loss; the batch is of chosen answers and then of rejected ones.

    given: the reference's log-probabilities were computed before training.
    """
    policy = model(**inputs, fused_lm_head=True)
    ours = policy.log_probs.sum(dim=1)
    with torch.no_grad():
        if given:
            theirs = torch.zeros_like(ours)
        elif reference is None:
            with model.disable_adapter():
                theirs = model(**inputs, fused_lm_head=True).log_probs.sum(dim=1)
        else:
            theirs = reference(**inputs, fused_lm_head=True).log_probs.sum(dim=1)
    (chosen, rejected), (chosen_before, rejected_before) = ours.chunk(2), theirs.chunk(2)
    margin = (chosen - chosen_before) - (rejected - rejected_before)
    return -torch.nn.functional.logsigmoid(BETA * margin).mean()


def _rewarded(torch: Any, model: Any, inputs: dict[str, Any]) -> Any:
    """GRPO's clipped loss of one iteration: old log-probabilities are the present ones without their gradient."""
    found = model(**inputs, fused_lm_head=True).log_probs
    ratio = torch.exp(found - found.detach())
    advantages = torch.ones(len(found), 1, device=found.device)
    clipped = torch.clamp(ratio, 0.8, 1.2)
    loss = -torch.min(ratio * advantages, clipped * advantages)
    return loss.sum() / loss.numel()


def _shifted(torch: Any, model: Any, inputs: dict[str, Any]) -> Any:
    """The loss of shifted logits in their own type, as models' own code computed it before transformers made it one."""
    logits = model(**{name: value for name, value in inputs.items() if name != "labels"}).logits
    logits, labels = logits[..., :-1, :].contiguous(), inputs["labels"][..., 1:].contiguous()
    return torch.nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), labels.view(-1))


def _in_parts(torch: Any, model: Any, inputs: dict[str, Any]) -> Any:
    """Head and loss in parts that are computed again."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    given = {name: value for name, value in inputs.items() if name != "labels"}
    states = base.base_model(**given).last_hidden_state.flatten(0, 1)
    head, labels = base.get_output_embeddings(), torch.nn.functional.pad(inputs["labels"], (0, 1), value=-100)
    labels = labels[:, 1:].flatten()
    functional = torch.nn.functional

    def part(states: Any, labels: Any) -> Any:
        return functional.cross_entropy(head(states).float(), labels, reduction="sum")

    again = torch.utils.checkpoint.checkpoint
    parts = zip(states.chunk(PARTS), labels.chunk(PARTS), strict=True)
    return sum(again(part, *one, use_reentrant=False) for one in parts) / labels.numel()


def prepared(
    torch: Any, config: Any, model: Any, inputs: dict[str, Any], setting: dict[str, Any], kind: str, known: Any
) -> tuple[Any, Any]:
    """The frozen reference that a step needs beside the model, and the values that shapes depend on."""
    if not tiled(setting):
        return None, known
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    from sizeup.workers.training_known import Known

    with_fused_head(model, setting["objective"])
    if known is None:
        known = Known(torch)
    with unset_fake_temporarily():
        values = torch.zeros(*inputs["labels"].shape, dtype=torch.long)
    known.tell(inputs["labels"], values)
    wanted = setting["objective"] in {"dpo", "grpo"} and setting.get("reference", True)
    if not wanted or hasattr(model, "disable_adapter"):
        return None, known
    from sizeup.workers.training_model import built

    reference = built(torch, config, setting | {"method": "full", "checkpointing": "none"}, kind)
    reference.requires_grad_(False).eval()
    with_fused_head(reference, setting["objective"])
    return reference, known
