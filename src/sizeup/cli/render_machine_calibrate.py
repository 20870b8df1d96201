"""A calibration for people: memory, llama.cpp by format, and what follows."""

from __future__ import annotations

from sizeup.cli import text
from sizeup.operations.machine_calibrate import MachineCalibrateReport
from sizeup.quantity.units import GB


def render(report: MachineCalibrateReport, *, explain: bool) -> list[str]:
    """Rates as tables, where they are kept, and notes."""
    lines = [text.heading(report.machine, "measured"), ""]
    lines += text.table(
        [(str(m.threads), f"{m.bytes_per_s / GB:.1f} GB/s") for m in report.memory],
        header=("threads", "memory read"), align=">>",
    )  # fmt: skip
    if report.formats:
        rows = [
            (f.device, f.format, f"{f.prompt_tokens_per_s:.3g}",
             ", ".join(f"{speed:.3g} at {depth}" for depth, speed in f.decode_tokens_per_s.items()))
            for f in report.formats
        ]  # fmt: skip
        lines += [
            "",
            *text.table(rows, header=("device", "format", "prompt tokens/s", "decoded tokens/s"), align="<<>"),
        ]
    for device in report.devices:
        share = device.measured.bandwidth / device.theoretical_bandwidth
        lines += ["", f"{device.device}: {device.measured.bandwidth / GB:.1f} GB/s, {share:.0%} of theory"]
    if explain:
        lines += [f"{name}: {rate / 1e9:,.0f} GFLOP/s in a matrix product" for name, rate in report.multiply.items()]
    lines += ["", f"kept in {report.kept}" if report.kept else "nothing kept (dry run)"]
    return lines + [line for note in report.notes for line in text.wrap(f"note: {note}")]
