"""Picks must be usable: they fit, they are fast enough, there is evidence of quality, and the needs are met."""

import pytest

from sizeup import advise
from sizeup.advice.licences import is_permissive
from sizeup.advice.quality import after_quantization, quality
from sizeup.models.catalogue.entry import entries
from sizeup.models.catalogue.find import find

MACHINES = ["RTX 3060 12GB, 32 GB RAM", "RTX 4090, 64 GB RAM", "MacBook Pro M4 Max 64 GB", "CPU only, 16 GB"]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("task", ["coding", "chat", "reasoning"])
def test_every_pick_is_usable(machine, task):
    """Fits, fast enough, evidence, context."""
    advice = advise(machine=machine, task=task)

    assert advice.picks
    for pick in advice.picks:
        assert pick.plan.fits.verdict == "yes"
        assert pick.plan.tokens_per_s >= advice.needs.min_speed
        assert pick.quality.evidence in {"scores", "lineage", "recency"}
        assert pick.plan.context == advice.needs.context
        assert pick.because


def test_best_quality_comes_first_and_no_model_twice():
    """Sorted by what the quality surely is."""
    picks = advise(machine=MACHINES[1]).picks

    assert [p.quality.low for p in picks] == sorted((p.quality.low for p in picks), reverse=True)
    assert len({p.model for p in picks}) == len(picks)


def test_needs_are_met():
    """Licence, language and size are filters, not wishes."""
    advice = advise(machine=MACHINES[1], licence="permissive", language="de", max_params="9B", task="chat")

    for pick in advice.picks:
        entry = find(pick.model)
        assert is_permissive(entry.licence)
        assert "de" in entry.languages
        assert pick.parameters <= 9e9


def test_impossible_needs_get_no_pick_and_exit_3():
    """Nothing decodes 100,000 tokens/s."""
    advice = advise(machine=MACHINES[0], min_speed=100_000.0)

    assert advice.picks == ()
    assert advice.exit_code == 3


def test_more_memory_never_makes_the_best_pick_worse():
    """A machine that has all that another has, and more, is advised at least as well."""
    small = advise(machine="RTX 3060 12GB, 32 GB RAM").picks[0].quality.low
    large = advise(machine="RTX 4090, 64 GB RAM").picks[0].quality.low

    assert large >= small


def test_quality_falls_with_quantization_and_rises_with_size():
    """The trend has the right signs."""
    entry = find("Qwen/Qwen3-8B")
    small, large = (
        quality(entry, 4_000_000_000, 4_000_000_000, "chat"),
        quality(entry, 9_000_000_000, 9_000_000_000, "chat"),
    )

    assert small.index < large.index
    assert after_quantization(large, 0.3).index < after_quantization(large, 0.01).index < large.index


def test_the_catalogue_is_large_and_each_fact_has_a_source():
    """At least 150 models, coding models from 100M up."""
    assert len(entries()) >= 150
    assert all(entry.source for entry in entries())
    assert all(score.source for entry in entries() for score in entry.scores)
