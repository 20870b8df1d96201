"""Processors: which products go row by row, and how far off a calibrated one is on shapes that it wasn't calibrated with.

`tests/data/processor_runs.json` holds this project's own runs of llama.cpp on random weights (docs/speed.md).
"""

import statistics
from pathlib import Path

import msgspec
import pytest

from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.traffic import host_rule, packing, placed_work
from sizeup.engines.llamacpp.weights import assign
from sizeup.estimate.speed.ceilings import ceilings
from sizeup.estimate.speed.passes import pass_seconds, rates
from sizeup.estimate.speed.processor import DENSE_ROWS, EXPERT_ROWS, products
from sizeup.estimate.speed.work import FAMILIES, PACKINGS
from sizeup.machines.words import parse_machine
from sizeup.measure.processor_runs import ProcessorRuns, calibrated, errors
from sizeup.models.load import load_model

RUNS = msgspec.json.decode(
    (Path(__file__).parents[1] / "data/processor_runs.json").read_bytes(), type=ProcessorRuns
)  # fmt: skip
MACHINE = parse_machine("Ryzen 9 7950X, 64 GB RAM")
DENSE, MIXTURE = load_model("Qwen/Qwen3-8B"), load_model("Qwen/Qwen3-30B-A3B")


def work(model, format_, tokens=1, rule=None):
    places = assign(model.layers, 0, ())
    key = host_rule(LlamaSetting(), MACHINE) if rule is None else rule
    return placed_work(model, LlamaSetting(format=format_, gpu_layers=0), places, tokens=tokens, rule_key=key)[0].work


@pytest.fixture(scope="module")
def off():
    return {
        part: sorted(abs(ratio - 1) for _, ratio in found) for part, found in errors(RUNS, calibrated(RUNS)).items()
    }


def test_a_calibrated_processor_decodes_as_predicted(off):
    assert len(off["decode"]) >= 30
    assert statistics.median(off["decode"]) <= 0.08


def test_a_calibrated_processor_reads_prompts_as_predicted(off):
    assert len(off["prompt"]) >= 20
    assert statistics.median(off["prompt"]) <= 0.12


def test_no_model_was_calibrated_with():
    assert not {run.model for run in RUNS.models} & {run.model for run in RUNS.probes}
    assert len({run.format for run in RUNS.models}) >= 4


def test_every_packing_has_its_rules():
    assert len(DENSE_ROWS) == len(EXPERT_ROWS) == len(PACKINGS)
    assert set(FAMILIES) <= set(PACKINGS)
    assert PACKINGS[packing("Q4_K")] == "q4_k"
    assert PACKINGS[packing("Q4_K", repacked=True)] == "r_q4_k"


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0", "Q4_1", "Q2_K", "IQ4_XS", "IQ1_S", "TQ1_0", "MXFP4", "NVFP4"])
def test_every_type_has_a_packing(kind):
    assert 0 <= packing(kind) < len(PACKINGS)


def test_a_decoded_token_unpacks_each_weight_once():
    one = work(DENSE, "Q4_K_M")
    rate = rates(ceilings(MACHINE.cpu))
    single, many = products(one, rate)

    assert many == 0
    assert single == pytest.approx(sum(v * u for v, u in zip(one.values, rate.unpacking, strict=True)))


def test_rearranged_experts_are_multiplied_row_by_row():
    """Four times the tokens take four times as long, where tiles take less."""
    rate = rates(ceilings(MACHINE.cpu))
    rearranged = [products(work(MIXTURE, "Q4_0", tokens), rate)[0] for tokens in (128, 512)]
    tiled = products(work(MIXTURE, "Q6_K", 512), rate)

    assert rearranged[1] == pytest.approx(4 * rearranged[0], rel=0.05)
    assert tiled[1] > 5 * tiled[0]


def test_the_last_feed_forward_reads_one_token_of_a_prompt():
    """Of a prompt only the last token needs logits, so that the last layer's feed-forward computes only that one."""
    tokens = 256
    last = work(DENSE, "F16", tokens)
    ffn = 3 * 4096 * 12288
    every = 2 * tokens * (DENSE.active_parameters - 2 * 151936 * 4096)

    assert last.matrix_flops == pytest.approx(every - 2 * (tokens - 1) * ffn + 2 * 151936 * 4096, rel=1e-3)
    assert work(DENSE, "F16").matrix_flops == pytest.approx(2 * (DENSE.active_parameters - 151936 * 4096), rel=1e-3)


def test_more_tokens_never_take_less_time():
    rate = rates(ceilings(MACHINE.cpu))
    for format_ in ("Q4_K_M", "Q6_K", "F16", "IQ3_XXS"):
        times = [pass_seconds(work(MIXTURE, format_, tokens), rate).total for tokens in (1, 2, 4, 16, 64, 256, 512)]

        assert times == sorted(times)
