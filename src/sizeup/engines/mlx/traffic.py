"""What MLX reads of a model for one pass: affine integers in groups of 64, the head packed like the rest."""

from __future__ import annotations

from sizeup.errors import BadInput
from sizeup.estimate.speed.checkpoint import Layout

#: Bits of a weight with 16 bit scale and bias for each group of 64: bits + 32/64.
LAYOUTS = {
    "BF16": Layout("plain", 16.0),
    "F16": Layout("plain", 16.0),
    "8BIT": Layout("integer", 8.5, 8.5),
    "6BIT": Layout("integer", 6.5, 6.5),
    "5BIT": Layout("integer", 5.5, 5.5),
    "4BIT": Layout("integer", 4.5, 4.5),
    "3BIT": Layout("integer", 3.5, 3.5),
    "2BIT": Layout("integer", 2.5, 2.5),
    "NVFP4": Layout("float4", 4.5, 4.5),
    "MXFP4": Layout("float4", 4.25, 4.25),
    "MXFP8": Layout("float4", 8.25, 8.25),
}


def layout_of(name: str) -> Layout:
    """The layout of that name (`4bit`, `mxfp4`). Raises BadInput for an unknown one."""
    found = LAYOUTS.get(name.upper().replace("-", ""))
    if found is None:
        raise BadInput(f"no format {name!r} is known to MLX's estimate", hint=f"one of {', '.join(LAYOUTS)}")
    return found
