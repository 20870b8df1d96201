"""Settings written down for other programs: what they say, what they can't, and that the programs read them."""

import json

import pytest

from sizeup.errors import BadInput
from sizeup.estimate.training.settings import TrainSetting
from sizeup.techniques import finetune_config

yaml = pytest.importorskip("yaml")


CONFIG = {
    "model_type": "llama", "vocab_size": 128256, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024, "rope_theta": 500000.0,
}  # fmt: skip


def emit(form, model, setting, config=CONFIG):
    return finetune_config.emit(form, model, setting, config)


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
        (
            "torchtune",
            {"optimizer": "adam8bit"},
            {"optimizer": {"_component_": "bitsandbytes.optim.AdamW8bit", "lr": 2e-5}},
        ),
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
        ("torchtune", {"loss": "fused"}),
        ("torchtune", {"sharding": "zero2", "data_parallel": 2}),
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


@pytest.mark.parametrize(
    ("setting", "stage"),
    [
        ({}, 0), ({"sharding": "zero1", "data_parallel": 2, "gradient_clip": True}, 1),
        ({"sharding": "zero2", "data_parallel": 2, "precision": "bf16-fp32-master"}, 2),
        ({"sharding": "zero3", "data_parallel": 2, "offload_optimizer": True, "offload_weights": True}, 3),
        ({"precision": "bf16-autocast-fp32-weights", "accumulating": True}, 0),
    ],
)  # fmt: skip
def test_deepspeed_reads_it(setting, stage):
    reader = pytest.importorskip("deepspeed.runtime.config")
    made = TrainSetting(batch=3, **setting)
    found = reader.DeepSpeedConfig(read("deepspeed", batch=3, **setting))
    assert found.zero_config.stage == stage
    assert found.train_micro_batch_size_per_gpu == 3
    assert found.gradient_accumulation_steps == (2 if made.accumulating else 1)
    assert found.gradient_clipping == (1.0 if made.gradient_clip else 0.0)
    assert (found.zero_config.offload_optimizer is not None) == made.offload_optimizer
    assert found.torch_autocast_enabled == ("autocast" in made.precision)


#: One configuration of each family that torchtune builds.
BUILT = {
    "llama2": {"vocab_size": 32000},
    "llama3": {},
    "llama3_1": {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
    "llama3_2": {"tie_word_embeddings": True, "rope_scaling": {"rope_type": "llama3", "factor": 32.0}},
    "mistral": {"model_type": "mistral"},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "gemma": {"model_type": "gemma", "head_dim": 128},
    "gemma2": {"model_type": "gemma2", "head_dim": 128, "sliding_window": 512, "query_pre_attn_scalar": 128},
    "phi3": {"model_type": "phi3", "num_key_value_heads": 4},
}


@pytest.mark.parametrize("family", BUILT)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_torchtune_builds_the_model(family, method):
    """The builder takes the sizes, and what trains is what the model has; loss, optimizer and recipe exist."""
    config = pytest.importorskip("torchtune.config")
    torch = pytest.importorskip("torch")
    body = emit("torchtune", "some/model", TrainSetting(method=method), CONFIG | BUILT[family])
    found = pytest.importorskip("omegaconf").OmegaConf.create(body)
    with torch.device("meta"):
        model = config.instantiate(found["model"])
    wide = next(p for n, p in model.named_parameters() if n.startswith("tok_embeddings"))
    assert tuple(wide.shape) == ((CONFIG | BUILT[family])["vocab_size"], 256)
    assert len(model.layers) == 2
    config.instantiate(found["loss"])
    config.instantiate(found["optimizer"], [torch.nn.Parameter(torch.zeros(2))])
    assert body.startswith(f"# tune run {'lora' if method == 'lora' else 'full'}_finetune_single_device")


def test_torchtune_says_what_it_has_no_builder_for():
    with pytest.raises(BadInput, match="no builder"):
        emit("torchtune", "some/model", TrainSetting(), CONFIG | {"model_type": "qwen3", "head_dim": 128})
    with pytest.raises(BadInput, match="no builder"):
        emit("torchtune", "some/model", TrainSetting(), CONFIG | {"head_dim": 128})


def test_a_local_model_names_its_files(tmp_path):
    for number in (1, 2):
        (tmp_path / f"model-0000{number}-of-00002.safetensors").touch()
    found = yaml.safe_load(emit("torchtune", str(tmp_path), TrainSetting()))
    assert found["checkpointer"]["checkpoint_files"] == [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]


def test_a_configuration_stands_alone_on_stdout(capsys):
    from sizeup.cli.main import run

    assert run(["train", "meta-llama/Llama-3.1-8B", "--method", "lora", "--emit", "trl"]) == 0
    shown = capsys.readouterr()
    assert yaml.safe_load(shown.out)["lora_r"] == 16
    assert "peak" in shown.err
