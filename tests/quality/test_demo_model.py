"""The demo model's own Llama is transformers' Llama; its training goes on where it was stopped."""

import json
import os
import subprocess

import pytest

from sizeup.errors import BadInput, MissingPart
from sizeup.measure.demo import build as demo
from sizeup.measure.demo.build import CONFIG, _alone, _refuse_others
from sizeup.workers.host import WORKERS, find_python, run_worker

pytestmark = pytest.mark.torch

SMALL = CONFIG | {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
HELD_OUT = ("heapq.py", "bisect.py")


@pytest.fixture(scope="module")
def python():
    try:
        return find_python(("torch", "tokenizers", "safetensors"), "training")
    except MissingPart as missing:
        pytest.skip(str(missing))


def ran(python, code, *arguments):
    """What a program says that can import the workers' modules."""
    head = f"import sys; sys.path.insert(0, {str(WORKERS.parents[1])!r})\n"
    command = [python, "-c", head + code, *map(str, arguments)]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}
    )
    if "No module named 'transformers'" in done.stderr:
        pytest.skip("transformers is not there")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_its_logits_are_those_of_transformers(python):
    code = (
        "import json, torch\nfrom transformers import LlamaConfig, LlamaForCausalLM\n"
        "from sizeup.workers.demo_model import Shape, checkpoint, fresh, logits\n"
        "config = json.loads(sys.argv[1]) | {'vocab_size': 300}\n"
        "theirs = LlamaForCausalLM(LlamaConfig(**config)).float()\nshape = Shape(config)\n"
        "ours = {name: (w + torch.randn_like(w) / 50).half().float() for name, w in fresh(shape, 1).items()}\n"
        "state = {name: w.float() for name, w in checkpoint(ours).items()}\n"
        "missing = theirs.load_state_dict(state, strict=False)\n"
        "ids = torch.randint(0, 300, (2, 40))\nwith torch.no_grad():\n"
        "    far = (theirs(ids).logits - logits(ours, shape, ids, torch.float32)).abs().max().item()\n"
        "print(json.dumps([far, missing.missing_keys, missing.unexpected_keys]))\n"
    )
    far, missing, unexpected = ran(python, code, json.dumps(SMALL))

    assert far < 1e-4
    assert missing == ["lm_head.weight"]  # tied
    assert unexpected == []


def test_muon_steps_are_nearly_orthogonal(python):
    code = (
        "import json, torch\nfrom sizeup.workers.demo_model import orthogonal\n"
        "found = orthogonal(torch.randn(3, 40, 24), torch.float32)\n"
        "print(json.dumps(torch.linalg.svdvals(found).flatten().tolist()))\n"
    )
    values = ran(python, code)

    assert len(values) == 3 * 24
    assert all(0.5 < value < 1.3 for value in values)


def job(folder, minutes):
    return {
        "folder": str(folder), "minutes": minutes, "threads": 1, "seed": 1, "config": SMALL, "vocabulary": 512,
        "held_out": HELD_OUT,
    }  # fmt: skip


@pytest.mark.slow
def test_a_stopped_training_goes_on(python, tmp_path):
    code = (
        "import json, pathlib\nfrom sizeup.workers import train_demo\n"
        "train_demo.SAVE_SECONDS = 0.0\njob = json.loads(sys.argv[1])\n"
        "class Stop(Exception): pass\n"
        "def say(event, **fields):\n"
        "    if '12 steps' in fields.get('what', ''): raise Stop\n"
        "try:\n    train_demo.work(job, say)\nexcept Stop:\n    pass\n"
        "print(json.dumps(sorted(p.name for p in pathlib.Path(job['folder']).iterdir())))\n"
    )
    left = ran(python, code, json.dumps(job(tmp_path, 0.5)))
    heard = []
    (result,) = run_worker("train_demo.py", job(tmp_path, 0.1), python=python, on_event=heard.append)

    assert left == ["tokenizer.json", "tokenizer.key", "unfinished.safetensors"]
    assert any("going on after 12 steps" in event.get("what", "") for event in heard)
    assert result["steps"] > 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    (tmp_path / "process").write_text(str(os.getppid()))
    with pytest.raises(BadInput, match=f"process {os.getppid()} is training"), _alone(tmp_path, again=False):
        pass


def test_a_process_that_is_gone_leaves_its_work(tmp_path):
    (tmp_path / "process").write_text("999999999")
    (tmp_path / "kept").write_text("x")
    with _alone(tmp_path, again=False):
        assert (tmp_path / "kept").exists()
    with _alone(tmp_path, again=True):
        assert not (tmp_path / "kept").exists()


def test_a_folder_with_other_files_is_not_replaced(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    _refuse_others(tmp_path)
    (tmp_path / "thesis.txt").write_text("years of work")

    with pytest.raises(BadInput, match=r"thesis\.txt"):
        demo.build(tmp_path, minutes=0.1, threads=1)
