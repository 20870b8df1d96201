"""transformers as an engine: folders of safetensors and configurations with random weights, served, measured, ended."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sizeup.engines.http import get_json, post_json
from sizeup.engines.launch import Launch
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.protocol import Ask, Message
from sizeup.engines.registry import attach
from sizeup.engines.transformers.server import Transformers
from sizeup.errors import MissingPart, NetworkError, NotFound, SizeupError
from sizeup.measure.ledger import Ledger
from sizeup.operations.bench import BenchRequest, bench
from sizeup.operations.chat import ChatRequest, chat
from sizeup.operations.run import RunRequest, run

CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512,
    "max_position_embeddings": 1024, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_MAKE = """
import json, sys
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
folder = sys.argv[1]
torch.manual_seed(1)
AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16).save_pretrained(folder)
words = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"w{n}": n for n in range(3, 512)}}
plain = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
plain.pre_tokenizer = pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>", bos_token="<s>", eos_token="</s>").save_pretrained(folder)
"""


@pytest.fixture(scope="session")
def torch_python():
    """The Python of an environment with torch and transformers."""
    from sizeup.operations.serving import transformers_python

    try:
        return transformers_python()
    except MissingPart:
        pytest.skip("no transformers: run `sizeup engine install transformers`, or set SIZEUP_TRANSFORMERS_PYTHON")


@pytest.fixture(scope="session")
def folder(torch_python, tmp_path_factory):
    """A small model with weights and a tokenizer, as people keep one."""
    path = tmp_path_factory.mktemp("hub") / "small"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    subprocess.run([torch_python, "-c", _MAKE, str(path)], check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def server(torch_python, folder):
    with Transformers().launch(Launch(str(folder), LlamaSetting(context=512), python=torch_python, threads=1)) as found:
        yield found


@pytest.fixture
def placed(home, torch_python, monkeypatch):
    """A data folder of the test's own, and the environment."""
    monkeypatch.setenv("SIZEUP_TRANSFORMERS_PYTHON", torch_python)
    return home


def texts(server, *asks):
    found = [["", None] for _ in asks]
    for arrival in Transformers().stream(server.endpoint, asks):
        found[arrival.stream][0] += arrival.chunk.text
        found[arrival.stream][1] = arrival.chunk
    return found


def test_without_an_environment():
    with pytest.raises(MissingPart) as caught:
        Transformers().launch(Launch("somewhere"))
    assert caught.value.hint == "run sizeup engine install transformers"


def test_run_wants_a_folder(home):
    with pytest.raises(NotFound, match="no folder of safetensors"):
        run(RunRequest(model="qwen3-0.6b", engine="transformers", context=512, offline=True, force=True))


@pytest.mark.torch
class TestServed:
    def test_it_is_told_from_other_servers(self, server):
        kind, endpoint = attach(server.endpoint.url)
        assert (kind.name, endpoint.model) == ("transformers", "small")
        assert server.endpoint.version.startswith("transformers ")

    def test_ids_and_text(self, server):
        ((_, last),) = texts(server, Ask((1, 300, 400), tokens=12, exact=True))
        assert (last.generated, last.prompt_tokens, last.finish) == (12, 3, "limit")
        assert last.timings.decode_seconds > 0
        ((text, _),) = texts(server, Ask("w5 w6 w7", tokens=5, exact=True))
        assert len(text.split()) <= 5

    def test_a_cached_beginning_is_not_read_again_and_changes_no_token(self, server):
        head = tuple(range(100, 200))
        texts(server, Ask(head, tokens=1, exact=True, cached=True))
        ((warm, told),) = texts(server, Ask((*head, 300, 301), tokens=6, exact=True, cached=True))
        ((cold, anew),) = texts(server, Ask((*head, 300, 301), tokens=6, exact=True))
        assert (told.timings.prompt_tokens, anew.timings.prompt_tokens) == (2, 102)
        assert warm == cold

    def test_several_wait_their_turn(self, server):
        found = texts(server, *[Ask((1, 2, n + 100), tokens=6, exact=True) for n in range(4)])
        assert [last.generated for _, last in found] == [6] * 4

    def test_chats_and_openai(self, server):
        ((_, last),) = texts(server, Ask(messages=(Message("user", "w9 w8"),), tokens=4, exact=True))
        assert last.finish == "length"
        said = post_json(server.endpoint.url, "/v1/completions", {"prompt": "w5", "max_tokens": 3, "ignore_eos": True})
        assert said["usage"]["completion_tokens"] == 3

    @pytest.mark.parametrize("prompt", [[], [9999], [1] * 600, {"a": 1}])
    def test_bad_requests_are_refused_and_the_server_goes_on(self, server, prompt):
        with pytest.raises(NetworkError, match="400"):
            post_json(server.endpoint.url, "/completion", {"prompt": prompt})
        assert texts(server, Ask((1, 2), tokens=2, exact=True))[0][1].generated == 2

    def test_its_load_is_told(self, server):
        texts(server, Ask((1, 2), tokens=2, exact=True))
        stats = Transformers().stats(server.endpoint)
        assert stats.generated > 1
        assert stats.waiting == 0

    def test_a_damaged_folder_is_a_clear_error(self, torch_python, tmp_path):
        (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
        with pytest.raises(SizeupError, match="transformers ended with status 1 before it was ready"):
            Transformers().launch(Launch(str(tmp_path), python=torch_python))

    def test_bench_of_a_folder(self, placed, folder):
        report = bench(
            BenchRequest(model=str(folder), engine="transformers", prompt="32", depth="0,64", generate=8, repetitions=2)
        )
        assert (report.weights, report.engine, report.format) == ("file", "transformers", "BF16")
        assert [result.prompt for result in report.results] == [32, 32]
        assert all(result.predicted.decode is None and result.predicted.ceiling for result in report.results)
        assert all(result.generated == 8 and result.prefill.value > 0 for result in report.results)
        with Ledger() as ledger:
            assert {row.engine for row in ledger.rows()} == {"transformers"}

    def test_chat_and_run_leave_nothing_behind(self, placed, folder):
        answer = chat(ChatRequest(model=str(folder), engine="transformers", prompt="w5", tokens=4, context=256))
        with pytest.raises(NetworkError):
            get_json(answer.url, "/health")
        with run(RunRequest(model=str(folder), engine="transformers", context=256)) as report:
            assert get_json(report.url, "/props")["engine"] == "transformers"
        assert not psutil.pid_exists(report.pid)

    def test_random_weights_of_a_catalogue_model_by_the_command_line(self, placed):
        command = [sys.executable, "-m", "sizeup", "bench", "HuggingFaceTB/SmolLM2-135M", "--engine", "transformers"]
        command += ["--prompt", "16", "--generate", "4", "--repetitions", "1", "--offline"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
        assert done.returncode == 0, done.stderr
        assert "random weights" in done.stdout
        assert Path(placed).exists()
