"""The physics of a pass: what must hold for every model, device and setting."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.traffic import placed_work, stages
from sizeup.engines.llamacpp.weights import HOST, assign
from sizeup.estimate.speed import bound, ceiling_share, decode_speed, decode_term, step_seconds
from sizeup.estimate.speed.demand import Reach, distinct_experts
from sizeup.machines.words import parse_machine
from sizeup.models.load import load_model

DENSE, MIXTURE = load_model("Qwen/Qwen3-8B"), load_model("Qwen/Qwen3-30B-A3B")
SETTING = LlamaSetting(format="Q4_K_M", context=8192)


def on(machine: str, model=DENSE, depth=0, setting=SETTING, **more):
    found = parse_machine(machine)
    places = assign(model.layers, -1 if found.gpus else 0, tuple(1.0 for _ in found.gpus))
    return stages(model, setting, found, places, depth, **more)


def test_one_token_reads_the_active_weights_only():
    """A token reads 8 of 128 experts, and rows of the embedding instead of the table."""
    work = placed_work(MIXTURE, SETTING, assign(MIXTURE.layers, -1, (1.0,)))[0].work

    assert 1.7e9 < work.weight_bytes < 2.1e9
    assert work.matrix_flops == pytest.approx(2 * (MIXTURE.active_parameters - 151936 * 2048), rel=0.01)


def test_a_batch_reads_more_experts_but_never_all_twice():
    """32 tokens read more experts than one, and no more than there are."""
    places = assign(MIXTURE.layers, -1, (1.0,))
    one, many, all_ = (
        placed_work(MIXTURE, SETTING, places, sequences=n)[0].work.expert_bytes for n in (1, 32, 100_000)
    )

    assert one * 8 < many < all_
    assert all_ == pytest.approx(one * 16, rel=0.001)


@given(st.integers(1, 512), st.integers(1, 64), st.integers(1, 10_000))
def test_distinct_experts_stay_within_bounds(experts, chosen, tokens):
    chosen = min(experts, chosen)
    found = distinct_experts(experts, chosen, tokens)

    assert chosen * 0.999 <= found <= experts * 1.001


@given(st.one_of(st.none(), st.integers(1, 8192)), st.integers(0, 20_000), st.integers(1, 600))
def test_seen_over_is_the_sum_of_what_each_token_sees(window, depth, tokens):
    reach = Reach(window, 1.0, 1.0)

    assert reach.seen_over(depth, tokens) == pytest.approx(sum(reach.seen(depth + i + 1) for i in range(tokens)))


def test_deeper_is_slower_and_a_quantized_cache_less_so():
    shallow, deep = on("RTX 4090", depth=0), on("RTX 4090", depth=32768)
    quantized = on("RTX 4090", depth=32768, setting=msgspec.structs.replace(SETTING, cache_k="q8_0", cache_v="q8_0"))

    assert step_seconds(shallow) < step_seconds(quantized) < step_seconds(deep)


@pytest.mark.parametrize("machine", ["RTX 3060 12 GB", "RTX 4090", "RX 7900 XTX", "Apple M4 Max 64 GB", "Arc B580"])
def test_never_faster_than_the_memory(machine):
    found = on(machine)

    assert 0.2 < ceiling_share(found) < 1.0


def test_more_bandwidth_is_faster():
    speeds = [decode_speed(on(name)).value for name in ("RTX 3060 12 GB", "RTX 3090", "RTX 4090", "RTX 5090")]

    assert speeds == sorted(speeds)


def test_interval_holds_the_value():
    found = decode_speed(on("RTX 4090"))

    assert 0 < found.low < found.value < found.high


def test_the_term_sums_to_the_step():
    found = on("2x RTX 3090, 64 GB RAM", depth=4096)

    assert decode_term(found).value == pytest.approx(step_seconds(found), rel=1e-9)


def test_small_models_are_bound_by_launches():
    small = load_model("HuggingFaceTB/SmolLM2-135M-Instruct")

    assert bound(on("RTX 5090", small)) == "launch"
    assert bound(on("RTX 5090")) == "bandwidth"


def test_experts_on_the_host_cross_the_link():
    machine = parse_machine("RTX 4070, 64 GB RAM")
    setting = msgspec.structs.replace(SETTING, gpu_layers=-1, cpu_moe_layers=20)
    found = stages(MIXTURE, setting, machine, assign(MIXTURE.layers, -1, (1.0,)), 0)

    assert len(found) == 2
    assert any(stage.handover_seconds > 0 for stage in found)
    assert step_seconds(found) > step_seconds(on("RTX 4070, 64 GB RAM", MIXTURE))


def test_prompts_with_weights_on_the_host_are_computed_on_the_gpu():
    machine = parse_machine("RTX 4070, 64 GB RAM")
    places = assign(MIXTURE.layers, 20, (1.0,))
    found = stages(MIXTURE, SETTING, machine, places, 0, tokens=512)

    assert places.layers[0] == HOST
    assert all(stage.ceiling.stack == "cuda" for stage in found)


def test_unknown_bandwidth_is_said():
    machine = parse_machine("RTX 4090, 64 GB RAM")
    blind = msgspec.structs.replace(machine, gpus=(msgspec.structs.replace(machine.gpus[0], bandwidth=None),))

    with pytest.raises(ValueError, match="bandwidth"):
        stages(DENSE, SETTING, blind, assign(DENSE.layers, -1, (1.0,)), 0)
