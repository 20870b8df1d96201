"""The accuracy page, docs/accuracy.md: errors by group, training steps that others published one by one, speed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sizeup.measure.accuracy import Comparison, summarize
from sizeup.measure.coverage import Coverage
from sizeup.measure.readme import percent, table
from sizeup.measure.training_accuracy import PublishedStep
from sizeup.quantity.units import GIB

_HEAD = """# How far off the estimates are

Made by `scripts/build_ledger.py derive`; `sizeup accuracy --published --explain` computes the same from the ledger
that ships, and CI fails when an error grows (`measure/gate.py`). *Simulate* is the engine's own allocator run dry,
*measure* a real run of sizeup, *published* somebody else's measurement with the same setting, *published nearest* one
whose method or code has no estimate of its own, so that the nearest one stands in.
"""
_STEPS = """## Training steps that others published

GiB. *Peak* is the allocator's peak as estimated; the range is that of what was published: `reserved` (peak, cuBLAS
workspaces and blocks the caching allocator holds, 90 %) or `process` (also 0.3 to 0.6 GiB of context). A `~` marks
*published nearest*. PEFT's batches are at most as long as the setting says, so its figures lie at the lower end.
"""


def page(
    comparisons: Sequence[Comparison],
    speed: Sequence[Comparison],
    ranges: Iterable[Coverage],
    steps: Sequence[PublishedStep],
) -> str:
    """The page in Markdown."""
    training = [c for c in comparisons if c.engine == "torch"]
    engines = [c for c in comparisons if c.engine != "torch"]
    parts = [
        _HEAD,
        "## Memory of engines\n",
        table(summarize(engines, ("engine", "evidence", "machine_class", "component"))),
        "\n## Memory of training\n",
        table(summarize(training, ("evidence", "machine_class", "component"))),
        "\nSimulated peaks by method, and by architecture:\n",
        table(summarize([c for c in training if c.evidence == "simulate" and c.component == "peak"], ("method",))),
        "",
        table(summarize([c for c in training if c.evidence == "simulate" and c.component == "peak"], ("family",))),
        "\nHow often the range stated for a process held the figure:\n",
        "\n".join(["| | rows | held |", "| --- | ---: | ---: |", *map(_range, ranges)]),
        "\n## Speed\n",
        "Published tokens/s, each predicted by a fit that had not seen its device (vLLM, SGLang: its model).\n",
        table(summarize(speed, ("evidence", "engine", "component"))),
        "\n" + _STEPS,
        "\n".join([
            "| run | | published | | peak | range | error | in range |",
            "| --- | --- | ---: | --- | ---: | ---: | ---: | --- |",
            *map(_step, steps),
        ]),
        "\nWhy they differ, where they do:\n",
        *_notes(steps),
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def _range(found: Coverage) -> str:
    return f"| {found.component} | {found.rows:,} | {found.share:.0%} |"


def _step(step: PublishedStep) -> str:
    exact = step.low == step.high
    cells = (
        step.run, "~" if step.nearest else "", f"{step.known / GIB:.2f}", step.component, f"{step.peak / GIB:.2f}",
        "" if exact else f"{step.low / GIB:.1f} to {step.high / GIB:.1f}", percent(step.error, sign=True),
        "" if exact else "yes" if step.inside else "no",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _notes(steps: Iterable[PublishedStep]) -> list[str]:
    """Each explanation once, with the runs it is about."""
    runs: dict[str, list[str]] = {}
    for step in steps:
        if step.note:
            runs.setdefault(step.note, []).append(step.run)
    return [
        f"- {note} ({names[0]}{f' and {len(names) - 1} more' if names[1:] else ''})" for note, names in runs.items()
    ]
