"""The transformers worker builds classes without values; its models are those of the other roads.

Needs SIZEUP_WORKER_PYTHON: the Python of an environment with torch and transformers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
import recorded

from sizeup.errors import BadConfig, NotFound
from sizeup.models.anatomy.registry import INDEX
from sizeup.models.count import by_role
from sizeup.models.from_config import model_from_config
from sizeup.models.from_gguf import model_from_gguf
from sizeup.models.from_transformers import BuiltClass, model_from_transformers
from sizeup.models.load import load_model
from sizeup.workers.host import VARIABLE, run_worker

PYTHON = os.environ.get(VARIABLE, "")
LLAMACPP = os.environ.get("SIZEUP_LLAMACPP_SOURCE", "")

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not PYTHON, reason=f"{VARIABLE} names no environment with torch and transformers"),
]


def built(config, **job):
    (answer,) = run_worker("transformers_meta.py", {"config": config, **job}, python=PYTHON)
    return msgspec.convert(answer, BuiltClass)


@pytest.mark.parametrize("family", ["llama", "qwen3_moe", "t5", "falcon_h1", "gemma3"])
def test_the_class_has_the_tensors_of_its_checkpoint(family):
    """Names on disk, although transformers 5 builds merged experts; shapes; the class's own count."""
    answer = built(recorded.config(family))
    stored = {tensor.name: tensor.shape for tensor in recorded.header(family, "safetensors").tensors}
    model = model_from_transformers(answer)

    assert {name: tuple(shape) for name, shape in answer.tensors.items()} == stored
    assert model.road == "transformers"
    assert model.parameters == answer.parameters
    if family in INDEX:
        described = model_from_config(recorded.config(family))
        assert model.parameters == described.parameters
        assert {t.name: t.value for t in by_role(model).parts} == {t.name: t.value for t in by_role(described).parts}


def test_unknown_types_and_bad_values_are_refused():
    with pytest.raises(NotFound, match="never_heard_of"):
        built({"model_type": "never_heard_of"})
    with pytest.raises(BadConfig):
        built({"model_type": "llama", "hidden_size": "wide"})


def test_no_code_of_a_repository_runs(tmp_path):
    """`auto_map` and a class name that isn't a model are passed over."""
    config = recorded.config("llama") | {"auto_map": {"AutoModelForCausalLM": "evil.Evil"}}

    assert built(config, **{"class": "__import__('os').abort"}).class_name == "LlamaForCausalLM"
    assert built(config, **{"class": "AutoModel"}).class_name == "LlamaForCausalLM"


@pytest.mark.slow
@pytest.mark.llamacpp
@pytest.mark.skipif(not LLAMACPP, reason="SIZEUP_LLAMACPP_SOURCE names no llama.cpp sources")
def test_fresh_checkpoints_through_the_official_writers(tmp_path):
    """Random models of twelve families, written by transformers and converted by llama.cpp: all roads agree."""
    names = "llama,qwen2,qwen3_moe,gemma2,phi3,deepseek_v2,gpt_oss,gpt2,mamba2,falcon_h1,cohere2,t5"
    script = Path(recorded.__file__).with_name("make_checkpoints.py")
    subprocess.run(
        [PYTHON, script, tmp_path, "--only", names, "--llamacpp", LLAMACPP],
        check=True,
        capture_output=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    for name in names.split(","):
        stored, converted = load_model(tmp_path / name), load_model(tmp_path / f"{name}.gguf")
        assert stored.road == "safetensors header"
        assert converted.road == "gguf header"
        assert stored.parameters == converted.parameters == model_from_gguf(recorded.header(name, "gguf")).parameters
        assert json.loads((tmp_path / name / "config.json").read_text())["model_type"] == stored.family
