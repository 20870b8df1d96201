"""A calibration for people: memory, llama.cpp by format, and what follows."""

from __future__ import annotations

from sizeup.cli import text
from sizeup.operations.machine_calibrate import MachineCalibrateReport
from sizeup.quantity.units import GB, format_rate


def render(report: MachineCalibrateReport, *, explain: bool) -> list[str]:
    """Rates as tables, where they are kept, and notes."""
    lines = [text.heading(report.machine, "measured"), ""]
    lines += text.table(
        [(str(m.threads), f"{m.bytes_per_s / GB:.1f} GB/s") for m in report.memory],
        header=("threads", "memory read"), align=">>",
    )  # fmt: skip
    if report.formats:
        rows = [
            (f.device, f.format, _rates(f.prompt_tokens_per_s, "of"), _rates(f.decode_tokens_per_s, "at"))
            for f in report.formats
        ]
        lines += [
            "",
            *text.table(rows, header=("device", "format", "prompt tokens/s", "decoded tokens/s"), align="<<>"),
        ]
    for device in report.devices:
        found, assumed = device.bandwidth / GB, device.theoretical_bandwidth / GB
        lines += ["", f"{device.device}: weights stream at {found:.1f} GB/s ({assumed:.1f} GB/s assumed before)"]
        if explain:
            lines += [f"  {name}: {value:.2f} times the expected time" for name, value in device.corrections.items()]
    if explain:
        lines += [f"{name}: {rate / 1e9:,.0f} GFLOP/s in a matrix product" for name, rate in report.multiply.items()]
    lines += ["", f"kept in {report.kept}" if report.kept else "nothing kept (dry run)"]
    return lines + [line for note in report.notes for line in text.wrap(f"note: {note}")]


def _rates(found: dict[int, float], word: str) -> str:
    """`1,480 of 128, 1,300 of 1024`."""
    return ", ".join(f"{format_rate(speed)} {word} {tokens}" for tokens, speed in found.items())
