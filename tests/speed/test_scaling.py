"""Scaling laws, costs, queues and speculation against their papers' own numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sizeup
from sizeup.errors import BadInput
from sizeup.estimate import cost, scaling
from sizeup.estimate.speed.batching import queue, request_seconds
from sizeup.estimate.speed.speculative import accepted_tokens, speculative_seconds


def test_a_tenth_better_loss_takes_four_times_the_parameters():
    assert scaling.growth_for_loss(0.1, 0.076) == pytest.approx(4.0, abs=0.01)
    assert scaling.growth_for_loss(1 - 1 / 1.1, 0.076) == pytest.approx(3.5, abs=0.01)


def test_chinchilla_is_near_its_own_optimum():
    """70e9 parameters on 1.4e12 tokens: 20 tokens a parameter; Besiroglu's fit agrees within a factor of 1.6."""
    flops = scaling.training_flops(70e9, 1.4e12)

    assert flops == pytest.approx(5.88e23)
    assert 70e9 / 1.6 < scaling.BESIROGLU.optimal_parameters(flops) < 70e9 * 1.6


@given(st.floats(1e20, 1e26))
def test_the_optimum_is_one(flops):
    law = scaling.BESIROGLU
    best = law.optimal_parameters(flops)
    loss = law.loss(best, law.optimal_tokens(flops))

    assert all(loss <= law.loss(best * f, flops / 6 / (best * f)) + 1e-12 for f in (0.8, 1.25))


def test_kaplan_at_its_constants_is_one():
    assert scaling.kaplan_loss_of_parameters(scaling.KAPLAN_N) == 1
    assert scaling.kaplan_loss_of_tokens(scaling.KAPLAN_D) == 1


@pytest.mark.parametrize("share", [0, 1, -0.5, 2])
def test_impossible_improvements_are_refused(share):
    with pytest.raises(BadInput):
        scaling.growth_for_loss(share, 0.076)


def test_energy_is_power_times_time():
    assert cost.energy_kwh(360, 100) == pytest.approx(1.0)


def test_break_even():
    assert cost.break_even_tokens_per_day(1095.75, 3, 2.0, 1.0) == pytest.approx(1e6)
    assert cost.break_even_tokens_per_day(1000, 3, 0.1, 0.2) is None


def test_queue_of_one_is_m_m_1():
    """Waiting of M/M/1: ρ / (μ - λ)."""
    assert queue(0.5, 1.0, 1).waiting_seconds == pytest.approx(1.0)
    assert queue(2.0, 1.0, 1).waiting_seconds is None


@given(st.floats(0.01, 0.99), st.integers(1, 32))
def test_more_slots_wait_less(load, slots):
    assert queue(load, 1.0, slots + 1).waiting_seconds <= queue(load, 1.0, slots).waiting_seconds


def test_request_counts_the_first_token_once():
    assert request_seconds(2.0, 0.1, 1) == 2.0
    assert request_seconds(2.0, 0.1, 11) == pytest.approx(3.0)


def test_speculation():
    assert accepted_tokens(0.8, 4) == pytest.approx(3.3616)
    assert accepted_tokens(1.0, 4) == 5
    assert speculative_seconds(1.0, 0.0, 0.0, 4) == 1.0
    with pytest.raises(BadInput):
        accepted_tokens(1.2, 4)


def test_scale_completes_and_counts():
    found = sizeup.scale(parameters="70B", tokens="1.4T", machine="8x H100 SXM")

    assert found.tokens_per_parameter == pytest.approx(20)
    assert found.gpu_hours.low < found.gpu_hours.value < found.gpu_hours.high
    with pytest.raises(BadInput):
        sizeup.scale()


def test_cost_and_hardware_answer():
    costs = sizeup.cost("Qwen/Qwen3-8B", machine="RTX 4090, 64 GB RAM", hosted_usd=5.0)
    machines = sizeup.hardware("Qwen/Qwen3-8B", speed=30).machines

    assert costs.hosted[0].provider == "yours"
    assert costs.local.energy_usd > 0
    assert [m.price_usd for m in machines] == sorted(m.price_usd for m in machines)
    assert all(m.tokens_per_s >= 30 for m in machines)
    assert sizeup.hardware("deepseek-ai/DeepSeek-V3", speed=1e6).exit_code == 3
