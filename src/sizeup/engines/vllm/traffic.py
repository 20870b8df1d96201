"""What vLLM, SGLang and transformers read of a checkpoint for one pass, by the format it is stored in."""

from __future__ import annotations

from sizeup.errors import BadInput
from sizeup.estimate.speed.checkpoint import Layout

#: Bits of a weight with its scales: GPTQ and AWQ keep a 16 bit scale and a zero of the weight's width for 128 weights;
#: FP8 one scale a channel or a block of 128 x 128; NVFP4 an 8 bit scale for 16; MXFP4 an 8 bit scale for 32.
LAYOUTS = {
    "BF16": Layout("plain", 16.0),
    "F16": Layout("plain", 16.0),
    "FP16": Layout("plain", 16.0),
    "FP8": Layout("float4", 8.0),
    "INT8": Layout("integer", 8.0),
    "GPTQ-INT8": Layout("integer", 8.2),
    "GPTQ-INT4": Layout("integer", 4.16),
    "GPTQ": Layout("integer", 4.16),
    "AWQ": Layout("integer", 4.16),
    "INT4": Layout("integer", 4.16),
    "NVFP4": Layout("float4", 4.5),
    "MXFP4": Layout("float4", 4.25, experts_only=True),
}


def layout_of(name: str) -> Layout:
    """The layout of that name. Raises BadInput for an unknown one."""
    found = LAYOUTS.get(name.upper())
    if found is None:
        raise BadInput(
            f"no checkpoint format {name!r} is known to vLLM's estimate", hint=f"one of {', '.join(LAYOUTS)}"
        )
    return found
