"""What a device could do at most: bytes/s, integer operations/s, matrix FLOP/s by packing. Facts, nothing fitted."""

from __future__ import annotations

import msgspec

from sizeup.machines.device import Device

#: Integer operations that unpack weights, for each fp32 FLOP of the same lanes: 32 bit adds, shifts and dot products a
#: clock and multiprocessor, over twice its fp32 lanes. NVIDIA: CUDA programming guide, arithmetic throughput table
#: (shifts on Pascal 64 of 128 lanes in one pipe; Turing, Volta and A100 a pipe of 64 beside 64; Ampere GA10x and later
#: 64 of 128; Blackwell 128 of 128). Others issue integers at half the rate of fused multiply-adds counted as two.
_INTEGER_SHARE = {
    "Kepler": 0.15, "Maxwell": 0.25, "Pascal": 0.25, "Volta": 0.5, "Turing": 0.5, "Ampere": 0.25,
    "Ada Lovelace": 0.25, "Hopper": 0.25, "Blackwell": 0.5,
}  # fmt: skip
_USUAL_INTEGER_SHARE = 0.25
#: A processor's vectors hold four times as many 8 bit values as floats; shuffles and additions take back a half.
_PROCESSOR_INTEGER_SHARE = 2.0
#: fp32 lanes of a multiprocessor where the generation's chips differ: A100 and A30 have 64, their integer pipe too.
_AMPERE_LANES_LIMIT = 300e9
#: Taken when nothing is known of what a device computes: about a desktop processor.
_UNKNOWN_FP32 = 500e9


class Ceilings(msgspec.Struct, frozen=True):
    """What limits a device.

    plain_matrix: of products with 16 bit weights; on CUDA ggml accumulates them in 16 bits where that is faster.
    attention: of scores and weighted sums, which processors compute with plain vectors.
    corrections: factors on the seconds of single parts (`sizeup.estimate.speed.tighten` names them), as measured on
    this very machine; none for a described one. calibrated: whether `machine calibrate` found them; decode_runs,
    prompt_runs: how many of the user's own runs did.
    """

    bandwidth: float
    vector: float
    integer: float
    packed_matrix: float
    plain_matrix: float
    attention: float
    generation: str
    stack: str
    corrections: tuple[tuple[str, float], ...] = ()
    calibrated: bool = False
    decode_runs: int = 0
    prompt_runs: int = 0

    @property
    def evidence(self) -> str:
        """What the figures rest on besides the model, in words; empty for a device that nobody measured."""
        runs = max(self.decode_runs, self.prompt_runs)
        own = f"tightened by {runs} {'run' if runs == 1 else 'runs'} of yours" if runs else ""
        return ", ".join(word for word in ("calibrated" if self.calibrated else "", own) if word)


def ceilings(device: Device, stack: str = "") -> Ceilings:
    """The ceilings of a device under a set of kernels (its own backend's by default).

    Raises ValueError when its memory bandwidth is unknown: nothing can be said then.
    """
    if not device.bandwidth:
        raise ValueError(f"the memory bandwidth of {device.name} is unknown")
    compute = device.compute
    vector = float(compute.get("fp32") or compute.get("fp16") or _UNKNOWN_FP32)
    kernels = stack or device.backend
    plain = float(compute.get("fp16") or compute.get("bf16") or vector)
    if kernels == "cuda":
        plain = float(compute.get("fp16_acc16") or plain)
    packed = float(compute.get("int8") or plain) if kernels == "cuda" else plain
    scores = vector if device.kind == "cpu" else plain
    return Ceilings(
        float(device.bandwidth),
        vector,
        vector * _integer_share(device, vector),
        packed,
        plain,
        scores,
        device.arch,
        kernels,
    )


def _integer_share(device: Device, vector: float) -> float:
    if device.kind == "cpu":
        return _PROCESSOR_INTEGER_SHARE
    share = _INTEGER_SHARE.get(device.arch, _USUAL_INTEGER_SHARE)
    narrow = device.arch == "Ampere" and device.units and vector / device.units < _AMPERE_LANES_LIMIT
    return 2 * share if narrow else share
