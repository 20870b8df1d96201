"""Measured quality for people: what quantization cost, what passed, what standard tasks say."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sizeup.cli import text
from sizeup.measure.quality.loss import Estimated, LossReport
from sizeup.operations.eval import Coding, EvalReport, Standard


def render(report: EvalReport, *, explain: bool) -> list[str]:
    """Loss, coding, standard tasks, as far as they were asked for; explaining adds every problem."""
    what = " ".join(filter(None, (report.model, report.format)))
    lines = [text.heading(what, f"{report.engine} on {report.machine}"), ""]
    if report.loss:
        lines += [*_loss(report.loss), ""]
    if report.coding:
        lines += [*_coding(report.coding, explain=explain), ""]
    if report.standard:
        lines += [*_standard(report.standard), ""]
    if report.kept:
        lines.append(text.dim(f"{report.kept} rows kept in the ledger"))
    return lines + [line for note in report.notes for line in text.wrap(f"note: {note}")]


def _loss(found: LossReport) -> Iterator[str]:
    where = f"{found.tokens:,} tokens of {found.text}, in {found.stretches} stretches of {found.length}"
    yield text.heading("Loss", where)
    rows = [("perplexity", _shown(found.perplexity), ""), ("loss", f"{_shown(found.loss)} nats", "")]
    if found.divergence and found.agreement and found.loss_rise and found.reference_perplexity:
        beside = f"against {found.reference}"
        rows += [
            ("reference perplexity", _shown(found.reference_perplexity), beside),
            ("loss added", f"{_shown(found.loss_rise)} nats", ""),
            ("KL divergence", f"{_shown(found.divergence)} nats", "0: predicts the same"),
            ("same first choice", _percent(found.agreement), ""),
        ]
    yield from text.table([(name, value, text.dim(note) if note else "") for name, value, note in rows])


def _coding(found: Coding, *, explain: bool) -> Iterator[str]:
    asked = "in chat" if found.chat else "as text to go on with"
    yield text.heading("Coding, pass@1", f"asked {asked}, run in {found.sandbox}; 90 % interval")
    rows = [
        (
            score.grade,
            f"{score.passed} of {score.count}",
            text.bold(f"{score.share.value:.0%}"),
            text.dim(f"{score.share.low:.0%} to {score.share.high:.0%}"),
            text.bar(score.share.value),
        )
        for score in found.scores
    ]
    yield from text.table(rows, align="<>><<")
    if explain:
        yield ""
        yield from text.table([(one.grade, one.id, one.status, text.dim(one.detail)) for one in found.results])
    else:
        kinds = sorted({one.status for one in found.results} - {"passed", "failed"})
        counted = [f"{sum(one.status == kind for one in found.results)} {kind}" for kind in kinds]
        if counted:
            yield text.dim(f"of those that didn't pass: {', '.join(counted)}")


def _standard(found: Standard) -> Iterator[str]:
    yield text.heading("Standard tasks", "lm-evaluation-harness")
    rows = [
        (score.task, score.metric, f"{score.value:.4g}", f"± {score.error:.2g}" if score.error is not None else "")
        for score in found.scores
    ]
    yield from text.table(rows, align="<<>>")
    yield text.dim(found.command)


def _shown(found: Estimated) -> str:
    """A mean with its standard error, to two digits of the error."""
    if not found.error:
        return f"{found.value:.4g}"
    decimals = max(0, 1 - math.floor(math.log10(found.error)))
    return f"{found.value:.{decimals}f} ± {found.error:.{decimals}f}"


def _percent(found: Estimated) -> str:
    return f"{found.value:.1%}" + (f" ± {found.error:.1%}" if found.error is not None else "")
