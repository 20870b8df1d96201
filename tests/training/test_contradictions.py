"""Settings that can't be: the message names both sides, the hint the way out."""

import pytest
from training_cases import LLAMA

import sizeup
from sizeup.errors import BadInput, SizeupError

MIXTURE = LLAMA | {
    "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ({"method": "lora", "lora_rank": 2000}, ("lora_rank 2000", "hidden size 1024")),
        ({"tensor_parallel": 3}, ("tensor_parallel 3", "16 attention heads")),
        ({"sequence": 10**6}, ("1,000,000", "context of 4,096")),
        ({"fsdp": 8, "sharding": "zero2"}, ("fsdp is 8", "sharding is zero2")),
        ({"sharding": "zero3"}, ("sharding zero3", "data_parallel is 1")),
        ({"method": "lora", "precision": "bf16-fp32-master"}, ("bf16-fp32-master", "method lora")),
        ({"attention": "flash_attention_2", "precision": "fp32"}, ("flash_attention_2", "fp32")),
        ({"pipeline_parallel": 9}, ("pipeline_parallel 9", "8 layers")),
        ({"expert_parallel": 2}, ("expert_parallel is 2", "no experts")),
        ({"sequence_parallel": True}, ("sequence_parallel", "tensor_parallel is 1")),
        ({"offload_activations": True}, ("offload_activations", "checkpointing is none")),
        ({"context_parallel": 3}, ("context_parallel 3", "sequence 1024")),
        ({"optimizer": "adm"}, ("optimizer 'adm'",)),
        ({"batch": 0}, ("batch is 0",)),
        ({"checkpointing": "some"}, ("checkpointing 'some'",)),
        ({"lora_rank": 8}, ("lora_rank is 8", "method full")),
        ({"lora_targets": "q_proj"}, ("lora_targets", "method full")),
        ({"method": "lora", "lora_targets": "c_attn"}, ("lora_targets c_attn", "no module of this model")),
        ({"fsdp": 8, "data_parallel": 4}, ("fsdp is 8", "data_parallel is 4")),
        ({"method": "lora", "lora_dropout": 1.5}, ("lora_dropout is 1.5",)),
        ({"method": "lora", "adapter_precision": "int4"}, ("adapter_precision 'int4'",)),
        ({"optimizer": "paged_adam8bit", "offload_optimizer": True}, ("offload_optimizer", "paged_adam8bit")),
        ({"sharding": "zero2", "data_parallel": 2, "pipeline_parallel": 2}, ("zero2", "pipeline_parallel 2")),
        ({"device": "RTX 4090", "machine": "RTX 4090"}, ("device is 'RTX 4090'", "machine 'RTX 4090'")),
    ],
)
def test_contradictions_are_named(setting, names):
    with pytest.raises(BadInput) as caught:
        sizeup.train(LLAMA, **setting)
    for name in names:
        assert name in caught.value.message
    assert caught.value.hint


def test_experts_that_do_not_divide():
    with pytest.raises(BadInput, match="expert_parallel 3 doesn't divide the model's 8 experts"):
        sizeup.train(MIXTURE, expert_parallel=3)


def test_fp8_on_a_device_without_it():
    with pytest.raises(BadInput, match=r"fp8 needs fp8, which .* doesn't compute in"):
        sizeup.train(LLAMA, precision="fp8", device="RTX 3090")


def test_targets_that_name_nothing_are_told_what_there_is():
    with pytest.raises(BadInput) as caught:
        sizeup.train(LLAMA, method="lora", lora_targets="c_attn")
    assert "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj" in caught.value.hint


@pytest.mark.parametrize(
    "config", [{}, {"model_type": "llama"}, {"model_type": "llama", "hidden_size": -1}, {"model_type": 7}]
)
def test_broken_configurations_are_refused(config):
    with pytest.raises(SizeupError):
        sizeup.train(config)
