"""Loss, divergence and agreement against a real llama.cpp; the arithmetic around them without one."""

import json
import math
import os
import subprocess
from pathlib import Path

import pytest
from tiny_llama import write_tiny

import sizeup
from sizeup.errors import BadConfig, BadFile, BadInput, MissingPart, NotFound, SizeupError
from sizeup.measure.demo.build import QUANTIZED
from sizeup.measure.demo.gguf import gguf_name, interleaved, write_gguf
from sizeup.measure.ledger import Ledger, Selection
from sizeup.measure.quality.loss import Reference, Wanted, logits_bytes, measure_loss, report
from sizeup.measure.quality.texts import HELD_OUT_MODULES, Text, prose, text_named
from sizeup.measure.simulation import worker_python
from sizeup.models.load import load_model
from sizeup.workers.host import find_python, run_worker

QUICK = Wanted(length=64, stretches=8)


@pytest.fixture(scope="session")
def python():
    try:
        return worker_python()
    except MissingPart as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, python):
    """The tiny model by format."""
    folder = write_tiny(tmp_path_factory.mktemp("tiny"))
    files = {name: folder / f"tiny-{name}.gguf" for name in ("F16", *QUANTIZED)}
    write_gguf(folder, files["F16"])
    targets = {name: str(files[name]) for name in QUANTIZED}
    run_worker("llamacpp_quantize.py", {"gguf": str(files["F16"]), "targets": targets, "threads": 2}, python=python)
    return files


@pytest.mark.llamacpp
def test_divergence_rises_with_fewer_bits(tiny):
    found = [measure_loss(tiny[name], text_named("prose"), QUICK, Reference(tiny["F16"], "F16")) for name in QUANTIZED]
    divergences = [one.divergence.value for one in found]
    agreements = [one.agreement.value for one in found]

    assert 0 < divergences[0] < divergences[1] < divergences[2]
    assert divergences[0] * 10 < divergences[2]
    assert agreements[0] > agreements[1] > agreements[2]


@pytest.mark.llamacpp
def test_a_model_agrees_with_itself(tiny):
    found = measure_loss(tiny["F16"], text_named("prose"), QUICK, Reference(tiny["F16"], "F16"))

    assert found.divergence.value == pytest.approx(0, abs=1e-9)
    assert found.agreement.value == 1
    assert found.loss_rise.value == 0
    assert found.loss == found.reference_loss
    assert found.perplexity.value == pytest.approx(math.exp(found.loss.value))
    assert (found.stretches, found.tokens) == (8, 8 * 32)


@pytest.mark.llamacpp
def test_one_after_the_other_says_the_same(tiny, tmp_path):
    beside = measure_loss(tiny["Q2_K"], text_named("prose"), QUICK, Reference(tiny["F16"], "F16"))
    apart = measure_loss(tiny["Q2_K"], text_named("prose"), QUICK, Reference(tiny["F16"], "F16", apart=tmp_path))

    assert apart.apart
    assert apart.divergence == beside.divergence
    assert apart.agreement == beside.agreement
    assert apart.reference_loss == beside.reference_loss
    assert list(tmp_path.iterdir()) == []


@pytest.mark.llamacpp
@pytest.mark.torch
def test_the_loss_is_that_of_transformers(tiny, tmp_path):
    """The same checkpoint, the same tokens: what our GGUF file says is what was written."""
    try:
        torch_python = find_python(("torch", "transformers"), "training")
    except MissingPart as missing:
        pytest.skip(str(missing))
    text = prose()[: 63 * 4]
    found = measure_loss(tiny["F16"], Text("t", text), Wanted(length=64, stretches=4))
    (tmp_path / "text").write_bytes(text.encode())
    code = (
        "import sys, torch\nfrom transformers import LlamaForCausalLM\n"
        "model = LlamaForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)\n"
        "data = list(open(sys.argv[2], 'rb').read())\ntotal = 0.0\n"
        "for n in range(4):\n"
        "    ids = torch.tensor([[257, *data[63 * n : 63 * n + 63]]])\n"
        "    with torch.no_grad():\n        shares = torch.log_softmax(model(ids).logits[0].double(), -1)\n"
        "    total -= shares[31:63].gather(1, ids[0, 32:, None]).mean().item()\nprint(total / 4)\n"
    )
    command = [torch_python, "-c", code, str(tiny["F16"].parent), str(tmp_path / "text")]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}
    )
    if "No module named" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])

    assert found.loss.value == pytest.approx(float(done.stdout), rel=2e-3)


@pytest.mark.llamacpp
def test_eval_keeps_rows_that_advise_can_find(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("SIZEUP_HOME", str(tmp_path))
    found = sizeup.eval(
        str(tiny["Q2_K"]), parts="loss", reference=str(tiny["F16"]), text="prose", length=64, stretches=4
    )
    with Ledger() as ledger:
        rows = ledger.rows(Selection(kind="measure"))

    assert found.kept == 2
    assert {row.unit for row in rows} == {"nats", "share"}
    nats = next(row for row in rows if row.unit == "nats")
    assert nats.components["divergence"] == found.loss.divergence.value
    assert nats.workload["reference"] == "tiny-F16.gguf"
    assert nats.workload["reference_format"] == "F16"
    assert nats.format == "Q2_K"


@pytest.mark.llamacpp
def test_what_cannot_be_scored_is_refused(tiny, tmp_path):
    with pytest.raises(BadConfig, match="a stretch has 64"):
        measure_loss(tiny["F16"], Text("t", "too short"), QUICK)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(tiny["F16"].read_bytes()[:5000])
    with pytest.raises(BadFile, match="can't load broken"):
        measure_loss(broken, text_named("prose"), QUICK)


def test_our_gguf_file_reads_back(tmp_path):
    folder = write_tiny(tmp_path)
    size = write_gguf(folder, folder / "tiny.gguf")
    model = load_model(str(folder / "tiny.gguf"))

    assert size == (folder / "tiny.gguf").stat().st_size
    assert (model.layers, model.hidden, model.vocabulary) == (2, 256, 258)
    assert model.family == "llama"


def test_other_checkpoints_are_refused(tmp_path):
    folder = write_tiny(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))

    with pytest.raises(BadConfig, match="gpt2"):
        write_gguf(folder, folder / "x.gguf")
    with pytest.raises(BadFile, match="rotary"):
        gguf_name("model.layers.0.rotary_emb.inv_freq")


def test_rows_of_a_head_alternate_between_its_halves():
    rows = bytes(range(8))

    assert interleaved(rows, 8, 2) == bytes([0, 2, 1, 3, 4, 6, 5, 7])
    assert interleaved(rows, 8, 1) == bytes([0, 4, 1, 5, 2, 6, 3, 7])


def stretch(index, **values):
    return {"part": "stretch", "index": index, "scored": 32, **values}


ABOUT = {"part": "text", "version": "1", "trained_length": 256}


def test_a_report_pairs_a_model_with_its_reference():
    parts = [
        stretch(0, loss=2.0, reference_loss=1.5, divergence=0.1, agreement=0.9),
        stretch(1, loss=4.0, reference_loss=3.5, divergence=0.3, agreement=0.7),
    ]
    found = report([ABOUT, *parts], Text("t", "x"), QUICK, Reference(Path("ref.gguf")))

    assert found.loss.value == 3.0
    assert found.loss.error == pytest.approx(1.0)
    assert found.loss_rise.value == pytest.approx(0.5)
    assert found.loss_rise.error == pytest.approx(0.0)
    assert found.perplexity.error == pytest.approx(math.exp(3.0))
    assert found.tokens == 64


def test_logits_on_disk_are_counted_before():
    assert logits_bytes(Wanted(length=512, stretches=64), 151_936) == 64 * 256 * 151_936 * 4


def test_one_stretch_has_no_error():
    assert report([ABOUT, stretch(0, loss=2.0)], Text("t", "x"), QUICK, None).loss.error is None


def test_no_stretch_is_a_failure():
    with pytest.raises(SizeupError, match="scored no token"):
        report([ABOUT], Text("t", "x"), QUICK, None)


def test_the_bundled_text_is_long_enough():
    assert len(prose().split()) > 2000
    assert len(text_named("code").content) > 50_000
    assert text_named("").digest != text_named("code").digest
    assert all(name.endswith(".py") for name in HELD_OUT_MODULES)


def test_bad_texts_are_refused(tmp_path):
    with pytest.raises(NotFound, match="can't read"):
        text_named(str(tmp_path / "none.txt"))
    (tmp_path / "empty").write_text(" \n")
    with pytest.raises(BadInput, match="is empty"):
        text_named(str(tmp_path / "empty"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadFile, match="not UTF-8"):
        text_named(str(tmp_path / "binary"))


def test_a_server_is_not_asked_for_losses():
    with pytest.raises(BadInput, match="probabilities"):
        sizeup.eval("http://127.0.0.1:9", parts="loss")
