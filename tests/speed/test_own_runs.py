"""A user's own bench rows pull predictions on the machine at hand, and only there."""

import time

import msgspec
import pytest

from sizeup.advice.speeds import speed_of
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.machines.budget import machine_budget
from sizeup.machines.words import parse_machine
from sizeup.measure.ledger import Ledger
from sizeup.measure.rows import Row
from sizeup.models.load import load_model

DESCRIBED = parse_machine("RTX 3090, 64 GB RAM")
MACHINE = msgspec.structs.replace(DESCRIBED, evidence="probed")
MODEL = load_model("Qwen/Qwen3-8B")
SETTING = LlamaSetting(format="Q4_K_M", context=8192, gpu_layers=-1)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SIZEUP_HOME", str(tmp_path))
    monkeypatch.setenv("SIZEUP_CALIBRATION", str(tmp_path / "calibration.json"))


def speed(machine=MACHINE, setting=SETTING):
    return speed_of(MODEL, setting, machine, machine_budget(machine))


def keep(decode, *, prompt=512, prefill=None, **changes):
    row = Row(
        kind="measure", model="Qwen/Qwen3-8B", engine="llama.cpp", source="sizeup", format="Q4_K_M",
        machine=MACHINE.name, setting=msgspec.to_builtins(SETTING), unit="tokens/s", method="bench/1",
        components={"decode": decode} | ({"prefill": prefill} if prefill else {}),
        workload={"prompt": prompt, "generate": 64, "depth": 0, "concurrency": 1, "runs": 3},
        date="2026-01-01T00:00:00",
    )  # fmt: skip
    with Ledger() as ledger:
        ledger.add([msgspec.structs.replace(row, **changes)])


def width(interval):
    return interval.high / interval.low


def test_own_runs_pull_and_narrow():
    before = speed()
    keep(before.decode_tokens_per_s.value * 0.6)
    after = speed()

    assert 0.58 < after.decode_tokens_per_s.value / before.decode_tokens_per_s.value < 0.75
    assert width(after.decode_tokens_per_s) < width(before.decode_tokens_per_s)
    assert "tightened by 1 run of yours" in after.because


def test_decoding_leaves_prompts_alone():
    before = speed()
    keep(before.decode_tokens_per_s.value * 0.6)

    assert speed().prefill_tokens_per_s.value == pytest.approx(before.prefill_tokens_per_s.value, rel=0.15)
    assert width(speed().prefill_tokens_per_s) == width(before.prefill_tokens_per_s)


def test_runs_that_agree_change_nothing_but_the_interval():
    before = speed()
    keep(before.decode_tokens_per_s.value * 1.03)  # half of the context is filled there, the start of it here

    assert speed().decode_tokens_per_s.value == pytest.approx(before.decode_tokens_per_s.value, rel=0.12)


@pytest.mark.parametrize(
    "changes",
    [
        {"machine": "another machine"},
        {"unit": "seconds"},
        {"method": "bench/0"},
        {"note": "the runs differ by 40 %"},
        {"model": "nobody/knows-this"},
        {"setting": {"gpu_layers": 10, "format": "Q4_K_M"}},
        {"setting": {"context": "nonsense"}},
        {"workload": {"prompt": "many"}},
        {"kind": "estimate"},
    ],
)
def test_other_rows_say_nothing(changes):
    before = speed()
    keep(10.0, **changes)

    assert speed() == before


def test_described_machines_stay_as_they_are():
    keep(10.0)

    assert speed(DESCRIBED).because.endswith("tokens")


def test_the_latest_run_of_a_cell_counts_once():
    keep(50.0)
    keep(60.0, date="2026-02-01T00:00:00")

    assert "1 run of yours" in speed().because
    keep(60.0, prompt=1024)
    assert "2 runs of yours" in speed().because


def test_a_prediction_with_own_runs_is_quick():
    for prompt in range(100, 130):
        keep(60.0, prompt=prompt, prefill=2000.0)
    speed()
    best = float("inf")
    for _ in range(5):
        started = time.process_time()
        for _ in range(20):
            speed()
        best = min(best, (time.process_time() - started) / 20)

    assert best <= 400e-6  # decode, prompt and request together
