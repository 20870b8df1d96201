"""Dense tensor FLOP/s of an NVIDIA GPU that isn't in the catalogue, from what its driver says."""

from __future__ import annotations

# Compute capability → (FP32 lanes per SM, dense FLOP per SM and cycle by number type), from the whitepapers of the
# architectures. GeForce boards run 32-bit accumulation at half of these rates for fp16, bf16 and fp8.
_PER_SM: dict[str, tuple[int, dict[str, int]]] = {
    "6.0": (64, {"fp16": 256}),
    "6.1": (128, {"int8": 1024}),
    "7.0": (64, {"fp16": 1024, "int8": 512}),
    "7.5": (64, {"fp16": 1024, "int8": 2048}),
    "8.0": (64, {"fp16": 2048, "bf16": 2048, "int8": 4096}),
    "8.6": (128, {"fp16": 1024, "bf16": 1024, "int8": 2048}),
    "8.7": (128, {"fp16": 2048, "bf16": 2048, "int8": 4096}),
    "8.9": (128, {"fp16": 1024, "bf16": 1024, "fp8": 2048, "int8": 2048}),
    "9.0": (128, {"fp16": 4096, "bf16": 4096, "fp8": 8192, "int8": 8192}),
    "10.0": (128, {"fp16": 8192, "bf16": 8192, "fp8": 16384, "int8": 16384, "fp4": 32768}),
    "10.3": (128, {"fp16": 8192, "bf16": 8192, "fp8": 16384, "fp4": 49152}),
    "12.0": (128, {"fp16": 1024, "bf16": 1024, "fp8": 2048, "int8": 2048, "fp4": 4096}),
    "12.1": (128, {"fp16": 1024, "bf16": 1024, "fp8": 2048, "int8": 2048, "fp4": 4096}),
}
_HALVED = frozenset({"fp16", "bf16", "fp8"})


def tensor_rates(capability: str, cuda_cores: int, clock_hz: int, name: str) -> dict[str, int]:
    """SMs × clock × FLOP per SM and cycle, dense; empty for an unknown capability.

    cuda_cores and clock_hz: as the driver says (the maximum clock, so 5 to 25 % above the boost clock of data sheets).
    """
    known = _PER_SM.get(capability)
    if known is None:
        return {}
    lanes, rates = known
    cycles = cuda_cores // lanes * clock_hz
    half = 2 if "geforce" in name.lower() and capability != "6.1" else 1
    compute = {"fp32": cuda_cores * 2 * clock_hz}
    for kind, flop in rates.items():
        compute[kind] = cycles * flop // (half if kind in _HALVED else 1)
    if half == 2 and "fp16" in rates:
        compute["fp16_acc16"] = cycles * rates["fp16"]
    return compute
