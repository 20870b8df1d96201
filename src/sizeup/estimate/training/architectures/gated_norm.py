"""An RMS norm whose result is weighed by a gate (`RMSNormGated` of Qwen3-Next and others, transformers 5.23)."""

from __future__ import annotations

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.basic import cast, multiply
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.norms import inverse_rms
from sizeup.estimate.training.tape import NORM, Value


def gated_norm(
    build: Build, name: str, x: Value, gate: Value, width: int, *, activation: str = "silu", wide: bool = False
) -> Value:
    """Weight · norm(x) in the type of x, times the gate's activation in fp32, cast back. wide: all of it in fp32."""
    tape, item = build.tape, x.item
    before, tape.label = tape.label, NORM
    x = cast(tape, x, 4)
    inverse = inverse_rms(tape, x, width)
    variance = tape.value(x.n // width, 4)
    x = multiply(tape, x, inverse)
    del inverse
    weight: Value = build.weight(name, width)
    x = multiply(tape, cast(tape, weight, 4), x) if wide else multiply(tape, weight, cast(tape, x, item))
    x = multiply(tape, x, activate(tape, cast(tape, gate, 4), activation))
    x = cast(tape, x, item)
    del variance
    tape.label = before
    return x
