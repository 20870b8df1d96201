"""Which norm a decoder's shape names, with its weights."""

from __future__ import annotations

from sizeup.estimate.training.architectures.shape import DecoderShape
from sizeup.estimate.training.basic import cast
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.norms import rms_norm
from sizeup.estimate.training.tape import Value


def norm(build: Build, shape: DecoderShape, name: str, x: Value, width: int) -> Value:
    """The norm that the shape names."""
    if shape.norm == "layer":
        return build.layer_norm(name, x, width, bias=shape.norm_bias)
    if shape.norm == "layer_lowered":
        return lowered_norm(build, name, x, width)
    if shape.norm == "layer_plain":
        return plain_norm(build, name, x, width)
    if shape.norm == "rms_plain":
        return rms_norm(build.tape, x, None, width)
    if shape.norm == "wide":
        return build.wide_norm(name, x, width, width)
    power = shape.norm == "rms_power"
    wide = power or shape.norm == "rms_wide"
    offset = shape.norm == "rms_offset"
    return build.rms(name, x, width, in_fp32=shape.norm != "rms", wide=wide, offset=offset, power=power)


def plain_norm(build: Build, name: str, x: Value, width: int) -> Value:
    """Olmo's layer norm without weights, in fp32 and cast back."""
    return cast(build.tape, build.layer_norm(name, cast(build.tape, x, 4), width, affine=False), x.item)


def lowered_norm(build: Build, name: str, x: Value, width: int) -> Value:
    """Nemotron's layer norm: under autocast its inputs are cast down, and the kernel runs in that type."""
    tape = build.tape
    autocast = tape.autocast
    if autocast:
        x = cast(tape, x, autocast)
    tape.autocast = 0
    output = build.layer_norm(name, x, width)
    tape.autocast = autocast
    return output
