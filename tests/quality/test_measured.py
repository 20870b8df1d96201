"""What was measured here counts in advice, and costs nothing where there is no ledger."""

import msgspec
import pytest

import sizeup
from sizeup.advice.formats import loss_of
from sizeup.advice.grid import best_plan, grid
from sizeup.advice.quality import quality
from sizeup.cli.render_advise import render
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.machines.spec import load_machine
from sizeup.measure.ledger import Ledger
from sizeup.measure.quality.coding import Graded, scores
from sizeup.measure.quality.loss import Estimated, LossReport
from sizeup.measure.quality.measured import coding_measured, divergence_measured, forget
from sizeup.measure.quality.rows import Subject, coding_row, loss_rows
from sizeup.models.catalogue.entry import entries
from sizeup.models.load import load_model


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SIZEUP_HOME", str(tmp_path))
    forget()
    yield tmp_path
    forget()


def keep(name, passed, count):
    graded = [Graded("function", str(n), "passed" if n < passed else "failed", "", "") for n in range(count)]
    subject = Subject(name, "llama.cpp", "1", "here", "Q4_K_M")
    with Ledger() as ledger:
        ledger.add([coding_row(subject, scores(graded), chat=True, tokens=768, date="2026-11-21T03:00:00+00:00")])
    forget()


ENTRY = next(entry for entry in entries() if entry.id == "Qwen/Qwen3-8B")


def test_nothing_is_opened_without_a_ledger(home):
    assert coding_measured("Qwen/Qwen3-8B") is None
    assert list(home.iterdir()) == []


def test_a_measurement_moves_the_quality_for_coding_only(home):
    before = {task: quality(ENTRY, 8 * 10**9, 8 * 10**9, task) for task in ("coding", "chat")}
    keep("Qwen3 8B", 1, 64)
    low = quality(ENTRY, 8 * 10**9, 8 * 10**9, "coding")
    keep("Qwen3 8B", 64, 64)

    assert low.index < before["coding"].index
    assert low.evidence == "measured here"
    assert "2% of 64 coding problems passed here in Q4_K_M (2026-11-21)" in low.because
    assert quality(ENTRY, 8 * 10**9, 8 * 10**9, "chat") == before["chat"]


def test_a_few_problems_say_nothing(home):
    keep("Qwen3 8B", 3, 3)

    assert coding_measured("Qwen/Qwen3-8B") is None


def test_other_models_are_not_meant(home):
    keep("Qwen3 8B", 30, 60)

    assert coding_measured("Qwen/Qwen3-8B").share == 0.5
    assert coding_measured("Qwen/Qwen3-8B-Base") is None


def test_a_broken_ledger_is_no_evidence(home):
    (home / "ledger.db").write_bytes(b"not a database" * 100)

    assert coding_measured("Qwen/Qwen3-8B") is None


MODEL = "Qwen/Qwen3-8B"
BOARD = "RTX 4060 8GB, 32 GB RAM"


def keep_loss(format_, nats, *, reference="F16", tokens=8000, name="Qwen3 8B"):
    exact = Estimated(nats, 0.001)
    found = LossReport(
        text="prose", digest="d", length=512, stretches=32, tokens=tokens, version="1", trained_length=4096, loss=exact,
        reference="ref.gguf", reference_format=reference, divergence=exact, agreement=Estimated(0.9, 0.01),
    )  # fmt: skip
    with Ledger() as ledger:
        ledger.add(loss_rows(Subject(name, "llama.cpp", "1", "here", format_), found, "2026-11-21T03:00:00+00:00"))
    forget()


def test_a_measured_divergence_replaces_the_published_curve(home):
    model = load_model(MODEL)
    before = loss_of(model, "Q4_K_M")
    keep_loss("Q4_K_M", 0.4)
    after = loss_of(model, "Q4_K_M")

    assert before.evidence == "published"
    assert (after.divergence, after.evidence) == (0.4, "measured here")
    assert "0.4 nats a token on 8,000 tokens of prose, measured here (2026-11-21)" in after.because
    assert loss_of(model, "Q6_K").evidence == "published"
    assert loss_of(load_model("Qwen/Qwen3-4B"), "Q4_K_M").evidence == "published"


@pytest.mark.parametrize("given", [{"reference": "Q8_0"}, {"tokens": 500}])
def test_a_divergence_from_a_quantized_model_or_of_few_tokens_is_none(home, given):
    keep_loss("Q4_K_M", 0.4, **given)

    assert divergence_measured(MODEL, "Q4_K_M") is None


def test_formats_without_a_loss_and_without_evidence(home):
    assert loss_of(load_model(MODEL), "F16").divergence == 0
    assert loss_of(load_model("openai/gpt-oss-20b"), "MXFP4_MOE").evidence == "none"
    assert loss_of(load_model(MODEL), "Q9_Z").evidence == "assumed"


def test_what_was_measured_changes_the_plan(home):
    model, machine = load_model(MODEL), load_machine(BOARD)
    first = best_plan(grid(model, machine, LlamaSetting()))
    keep_loss(first.format, 2.0)
    second = best_plan(grid(model, machine, LlamaSetting()))

    assert second.format != first.format
    assert second.loss.evidence == "published"


def test_advice_shows_the_rank_of_its_evidence(home):
    for format_ in ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "IQ3_XXS"):
        keep_loss(format_, 0.001)
    keep("Qwen3 8B", 64, 64)
    advice = sizeup.advise(machine=BOARD, count=40)
    pick = next(pick for pick in advice.picks if pick.model == MODEL)
    said = msgspec.to_builtins(pick)

    assert said["quality"]["evidence"] == said["plan"]["loss"]["evidence"] == "measured here"
    shown = " ".join("\n".join(render(advice, explain=True)).split())
    assert f"{pick.plan.format}: measured here: 0.001 nats" in shown
    assert "quality: measured here: 100% of 64 coding problems passed here" in shown


def test_small_models_lose_more_in_every_list(home):
    """One rule for the grid and for the search: what a format costs depends on the model's size."""
    losses = {name: loss_of(load_model(name), "Q4_K_M").divergence for name in ("Qwen/Qwen3-0.6B", MODEL)}
    plan = grid(load_model("Qwen/Qwen3-0.6B"), load_machine(BOARD), LlamaSetting(), ("Q4_K_M",), (4096,))[0]

    assert losses["Qwen/Qwen3-0.6B"] > losses[MODEL]
    assert plan.loss.divergence == losses["Qwen/Qwen3-0.6B"]
