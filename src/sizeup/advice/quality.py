"""How good a model is likely to be at a task: published scores where there are any, else its size, age and family.

Scores of different sources can't be compared, and most models have none. So each published score is explained by

    logit(score) = difficulty of the benchmark in that source's hands
                   + size · ln(√(total · active) parameters, in billions) + age · years since 2024
                   + specialist (code models on code) + reasoner (thinking models)

fitted by scripts/fit_quality.py on the catalogue's own scores. A model's ability is that trend, moved towards what its
own scores say (or half as far by those of its base model or family): the more scores, the further.
Known error: the fit's residuals have a standard deviation of about half a logit, which is what the interval shows.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import msgspec

from sizeup.advice.needs import is_code_only
from sizeup.measure.quality.measured import MeasuredCoding, coding_measured
from sizeup.models.catalogue.entry import Entry, entries
from sizeup.models.model import Score
from sizeup.techniques.quantization_loss import divergence

_FILE = Path(__file__).with_name("quality_fit.json")
CODE_BENCHMARKS = frozenset(
    {"humaneval", "humaneval_plus", "mbpp", "livecodebench", "swebench_verified", "aider_polyglot_pass2"}
)
HARD_BENCHMARKS = frozenset({"livecodebench", "mmlu_pro", "swebench_verified", "aider_polyglot_pass2"})
#: Scores that move a model halfway from the trend to what they say.
HALFWAY = 1.5
#: A measurement of one's own counts as much as so many published scores.
MEASURED_WEIGHT = 4.0
#: A model without any scored relative is evidence of quality only while it is recent: days before the newest one.
RECENT_DAYS = 550


class Fit(msgspec.Struct, frozen=True):
    """The fitted trend. residual: standard deviation of scores around it, in logits. last_year: of the newest score."""

    difficulty: dict[str, float]
    size: float
    age: float
    specialist: float
    reasoner: float
    residual: float
    last_year: float


class Quality(msgspec.Struct, frozen=True):
    """An index from 0 to 100 for one task, with its 90 % interval, and what it rests on.

    evidence: `measured here`, `scores` (its own), `lineage` (its base model's or family's), `recency` (size and age
    alone), or `none`.
    """

    index: float
    low: float
    high: float
    evidence: str
    because: str


@lru_cache(maxsize=1)
def fit() -> Fit:
    """The fitted trend that ships with sizeup."""
    return msgspec.json.decode(_FILE.read_bytes(), type=Fit)


def years(released: str | None) -> float | None:
    """Years since the start of 2024: `2025-07-02` → 1.5."""
    if not released:
        return None
    year, month, day = (int(part) for part in released.split("-"))
    return year - 2024 + (month - 1) / 12 + (day - 1) / 365


def is_reasoner(entry: Entry) -> bool:
    """Whether it was trained to think before it answers, by its capabilities or its name."""
    name = entry.id.rpartition("/")[2].lower()
    return "reasoning" in entry.capabilities or any(
        word in name for word in ("think", "reason", "-r1", "qwq", "magistral")
    )


def trend(entry: Entry, parameters: int, active: int, *, code: bool, hard: bool) -> float:
    """The trend's ability in logits for a kind of benchmark. Age counts in full up to the newest score, then half."""
    f = fit()
    age = years(entry.released)
    age = 0.0 if age is None else age if age <= f.last_year else f.last_year + (age - f.last_year) / 2
    ability = f.size * math.log(math.sqrt(parameters * active) / 1e9) + f.age * age
    if code and is_code_only(entry):
        ability += f.specialist
    return ability + (f.reasoner if hard and is_reasoner(entry) else 0.0)


def quality(entry: Entry, parameters: int, active: int, task: str) -> Quality:
    """The quality of a model of the catalogue for a task."""
    f = fit()
    code, hard = task in {"coding", "tools"}, task in {"coding", "reasoning", "tools"}
    ability = trend(entry, parameters, active, code=code, hard=hard)
    moved, scores, evidence, because = _evidence(entry, parameters, active, task)
    shrink = scores / (scores + HALFWAY)
    ability += shrink * moved
    spread = 1.64 * f.residual * math.sqrt(1 - shrink * 0.8)
    scale = f.difficulty["mmlu_pro"]
    index, low, high = (100 / (1 + math.exp(-(scale + x))) for x in (ability, ability - spread, ability + spread))
    return Quality(index, low, high, evidence, because)


def after_quantization(found: Quality, divergence_: float) -> Quality:
    """The quality that is left when predictions diverge by so many nats a token from the unquantized model's."""
    loss = cost_in_logits(divergence_)

    def less(index: float) -> float:
        odds = index / (100 - index)
        return 100 / (1 + math.exp(loss) / odds)

    return msgspec.structs.replace(found, index=less(found.index), low=less(found.low), high=less(found.high))


def cost_in_logits(divergence_: float) -> float:
    """What a divergence takes from a model's ability, in logits.

    A loss L falls as parameters^-0.076 (Kaplan 2020), so a divergence costs as much as having
    exp(divergence / (0.076 · L)) times fewer parameters, which the trend's `size` turns into logits; L = 1.83 nats,
    that of Llama-3-8B on wikitext-2 where the divergences were measured.
    """
    return fit().size * divergence_ / (0.076 * 1.83)


def _evidence(entry: Entry, parameters: int, active: int, task: str) -> tuple[float, float, str, str]:
    """How far the scores stand from the trend, how many count, what they are of, and the most telling one in words."""
    if task == "coding" and (here := coding_measured(entry.id)):
        return _above_measured(entry, here, parameters, active)
    own = _relevant(entry, task)
    if own:
        return _above_trend(entry, own, parameters, active), len(own), "scores", _words(own, task)
    for relative in _relatives(entry):
        scores = _relevant(relative, task)
        if scores:
            size = relative.hub_parameters or parameters
            offset = _above_trend(relative, scores, size, max(1, size * active // parameters))
            return offset, len(scores) / 2, "lineage", f"{_words(scores, task)}, of its relative {relative.id}"
    if _is_recent(entry):
        return 0.0, 0.0, "recency", f"released {entry.released}; no comparable score published"
    return 0.0, 0.0, "none", "old, and no score of its own or of a relative"


def _above_measured(entry: Entry, here: MeasuredCoding, parameters: int, active: int) -> tuple[float, float, str, str]:
    """The same for sizeup's own coding problems, run here; they are taken to be as hard as HumanEval's.

    What the format cost that they ran in is added again, as every plan's own format is taken off later.
    """
    share = min(max(here.share, 0.01), 0.99)
    offset = math.log(share / (1 - share)) - fit().difficulty["humaneval"]
    offset += cost_in_logits(divergence(here.format, parameters) or 0.0)
    offset -= trend(entry, parameters, active, code=True, hard=False)
    words = f"{here.share:.0%} of {here.problems} coding problems passed here in {here.format or 'its format'}"
    return offset, MEASURED_WEIGHT, "measured here", f"{words} ({here.date})"


def _above_trend(entry: Entry, scores: list[Score], parameters: int, active: int) -> float:
    f = fit()
    offsets = []
    for score in scores:
        share = min(max(score.value / 100, 0.01), 0.99)
        kind = {"code": score.benchmark in CODE_BENCHMARKS, "hard": score.benchmark in HARD_BENCHMARKS}
        offsets.append(
            math.log(share / (1 - share)) - f.difficulty[score.benchmark] - trend(entry, parameters, active, **kind)
        )
    return sum(offsets) / len(offsets)


def _relevant(entry: Entry, task: str) -> list[Score]:
    """The scores that tell of a task; for code only those on code."""
    known = [score for score in entry.scores if score.benchmark in fit().difficulty]
    return [s for s in known if s.benchmark in CODE_BENCHMARKS] if task == "coding" else known


def _words(scores: list[Score], task: str) -> str:
    """The hardest score in words: `livecodebench 43.4 (source)`."""
    order: tuple[str, ...] = (
        "swebench_verified",
        "aider_polyglot_pass2",
        "livecodebench",
        "mmlu_pro",
        "humaneval_plus",
        "mbpp",
        "humaneval",
    )
    if task in {"chat", "vision"}:
        order = ("mmlu_pro", *order)
    best = min(scores, key=lambda score: order.index(score.benchmark) if score.benchmark in order else len(order))
    return f"{best.benchmark.replace('_', ' ')} {best.value:g} ({best.source.split(';')[0]})"


def _relatives(entry: Entry) -> list[Entry]:
    """The base model first, then others of the family, newest first."""
    base = [other for other in entries() if entry.base_model and other.id == entry.base_model]
    family = [other for other in entries() if other.family == entry.family and other.id != entry.id]
    return [*base, *sorted(family, key=lambda other: other.released or "", reverse=True)]


@lru_cache(maxsize=1)
def _newest() -> float:
    return max(age for entry in entries() if (age := years(entry.released)) is not None)


def _is_recent(entry: Entry) -> bool:
    age = years(entry.released)
    return age is not None and age >= _newest() - RECENT_DAYS / 365
