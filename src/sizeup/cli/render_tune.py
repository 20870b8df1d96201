"""A search for the fastest setting, for people: what it gained, the trials, the command."""

from __future__ import annotations

from sizeup.cli import text
from sizeup.measure.tune import Trial, words
from sizeup.operations.tune import TuneReport
from sizeup.quantity.units import format_rate


def render(report: TuneReport, *, explain: bool) -> list[str]:
    """The gain first; explaining shows every trial."""
    what = " ".join(filter(None, (report.model, report.format)))
    ending = "nothing faster is near" if report.finished else "stopped" if report.interrupted else "the time is up"
    work = report.best.work
    new = len(report.trials) - report.reused
    lines = [
        text.heading(what, f"on {report.machine}"),
        f"{new} trials" + (f", {report.reused} more from the ledger" if report.reused else "") + f"; {ending}",
        "",
        *text.table(
            [_row("plan", report.start), _row("best", report.best)],
            header=("", "prefill", "decode", "in all", "setting"),
            align="<>>><",
        ),
        f"{text.bold(f'{report.gain:.0%} less time')} to read {work.prompt} tokens and generate {work.generate}",
    ]
    if explain:
        trials = [_row(f"{t.work.prompt}+{t.work.generate}", t) for t in report.trials]
        lines += ["", *text.table(trials, header=("work", "prefill", "decode", "in all", "setting"), align="<>>><")]
    lines += ["", f"start    {text.bold(report.command)}"]
    return lines + [line for note in report.notes for line in text.wrap(f"note: {note}")]


def _row(name: str, trial: Trial) -> tuple[str, ...]:
    if trial.failed:
        return name, "-", "-", "failed", f"{words(trial.candidate)}: {trial.failed}"
    prefill = trial.work.prompt / trial.prefill_seconds if trial.prefill_seconds else 0.0
    decode = trial.work.generate / trial.decode_seconds if trial.decode_seconds else 0.0
    return (
        name,
        f"{format_rate(prefill)}/s",
        f"{format_rate(decode)}/s",
        f"{trial.seconds:.3g} s",
        words(trial.candidate),
    )
