"""Settings written down for other programs: what they say, what they can't, and that the programs read them."""

import json

import pytest

from sizeup.errors import BadInput
from sizeup.estimate.training.settings import TrainSetting
from sizeup.techniques.finetune_config import emit

yaml = pytest.importorskip("yaml")


def read(form, **fields):
    text = emit(form, "some/model", TrainSetting(**fields))
    return json.loads(text) if form == "deepspeed" else yaml.safe_load(text)


@pytest.mark.parametrize(
    ("form", "setting", "expected"),
    [
        ("trl", {"batch": 3, "sequence": 512}, {"per_device_train_batch_size": 3, "max_length": 512}),
        ("trl", {"precision": "fp16"}, {"dtype": "float16", "fp16": False}),
        ("trl", {"precision": "bf16-autocast-fp32-weights"}, {"dtype": "float32", "bf16": True}),
        ("trl", {"method": "qlora"}, {"load_in_4bit": True, "dtype": "bfloat16", "lora_target_modules": "all-linear"}),
        ("trl", {"optimizer": "galore"}, {"optim": "galore_adamw", "optim_args": "rank=128"}),
        ("trl", {"objective": "grpo", "batch": 4}, {"max_completion_length": 1024, "num_generations": 4}),
        ("trl", {"checkpointing": "full", "sharding": "fsdp", "data_parallel": 2}, {"gradient_checkpointing": False}),
        ("accelerate", {"precision": "fp16-autocast-fp32-weights"}, {"mixed_precision": "fp16"}),
        ("accelerate", {"precision": "fp8"}, {"mixed_precision": "fp8"}),
        ("accelerate", {"sharding": "fsdp", "data_parallel": 2}, {"mixed_precision": "no", "distributed_type": "FSDP"}),
        ("accelerate", {"sharding": "zero3", "data_parallel": 2}, {"distributed_type": "DEEPSPEED"}),
        ("deepspeed", {"precision": "bf16-fp32-master"}, {"bf16": {"enabled": True}, "fp16": {"enabled": False}}),
        (
            "deepspeed",
            {"precision": "bf16-autocast-fp32-weights"},
            {"bf16": {"enabled": False}, "torch_autocast": {"enabled": True, "dtype": "bfloat16"}},
        ),
        ("torchtune", {"optimizer": "adam8bit"}, {"optimizer": {"_component_": "bitsandbytes.optim.AdamW8bit"}}),
    ],
)
def test_a_configuration_says_the_setting(form, setting, expected):
    found = read(form, **setting)
    assert {name: found[name] for name in expected} == expected


def test_parallelism_is_said_to_accelerate():
    sizes = read("accelerate", sharding="fsdp", data_parallel=4, tensor_parallel=2)["parallelism_config"]
    assert sizes["parallelism_config_tp_size"] == 2
    assert sizes["parallelism_config_dp_shard_size"] == 4


def test_torchtune_has_its_own_names_for_modules():
    model = read("torchtune", method="lora", lora_targets=("q_proj", "o_proj", "up_proj"))["model"]
    assert model["lora_attn_modules"] == ["q_proj", "output_proj"]
    assert model["apply_lora_to_mlp"] is True


@pytest.mark.parametrize(
    ("form", "setting"),
    [
        ("trl", {"optimizer": "muon"}),
        ("trl", {"optimizer": "sgd_momentum"}),
        ("trl", {"checkpointing": "selective"}),
        ("trl", {"precision": "bf16-fp32-master"}),
        ("trl", {"loss": "chunked"}),
        ("accelerate", {"pipeline_parallel": 2}),
        ("fsdp", {}),
        ("deepspeed", {"sharding": "fsdp", "data_parallel": 2}),
        ("torchtune", {"objective": "dpo"}),
        ("nothing", {}),
    ],
)
def test_what_a_form_cannot_say_is_refused(form, setting):
    with pytest.raises(BadInput) as caught:
        emit(form, "some/model", TrainSetting(**setting))
    assert caught.value.hint


@pytest.mark.parametrize(
    "setting", [{}, {"sharding": "fsdp", "data_parallel": 4}, {"sharding": "zero2", "data_parallel": 4}]
)
def test_accelerate_reads_it(tmp_path, setting):
    reader = pytest.importorskip("accelerate.commands.config.config_args")
    path = tmp_path / "accelerate.yaml"
    path.write_text(emit("accelerate", "some/model", TrainSetting(**setting)))
    assert reader.load_config_from_file(str(path)).num_processes == setting.get("data_parallel", 1)


@pytest.mark.parametrize("setting", [{}, {"method": "qlora", "checkpointing": "full"}, {"optimizer": "adafactor"}])
def test_trl_reads_it(tmp_path, setting):
    trl = pytest.importorskip("trl")
    path = tmp_path / "trl.yaml"
    path.write_text(emit("trl", "some/model", TrainSetting(batch=3, **setting)))
    parser = trl.TrlParser((trl.ScriptArguments, trl.SFTConfig, trl.ModelConfig))
    arguments = ["--config", str(path), "--output_dir", str(tmp_path), "--report_to", "none", "--use_cpu", "true"]
    assert parser.parse_args_and_config(arguments)[1].per_device_train_batch_size == 3
