"""The block layouts of every number format, as plain tables.

A block is the smallest piece that can be stored: `block_elements` values in `block_bytes` bytes. In a GGML row the
blocks lie along the fastest dimension (`ne[0]`, the last one of a checkpoint's shape).

Sources: ggml/include/ggml.h and ggml/src/ggml-common.h (llama.cpp 0c1e570, October 2026) for the GGML types; the
safetensors format description for the dtypes.
"""

from __future__ import annotations

# (type id, name, block_elements, block_bytes, what a block holds)
GGML_TYPES: tuple[tuple[int, str, int, int, str], ...] = (
    (0, "F32", 1, 4, "IEEE single"),
    (1, "F16", 1, 2, "IEEE half"),
    (2, "Q4_0", 32, 18, "f16 scale, 32 × 4 bit"),
    (3, "Q4_1", 32, 20, "f16 scale and minimum, 32 × 4 bit"),
    (6, "Q5_0", 32, 22, "f16 scale, 32 × 5 bit"),
    (7, "Q5_1", 32, 24, "f16 scale and minimum, 32 × 5 bit"),
    (8, "Q8_0", 32, 34, "f16 scale, 32 × 8 bit"),
    (9, "Q8_1", 32, 36, "f16 scale and sum, 32 × 8 bit"),
    (10, "Q2_K", 256, 84, "f16 scale and minimum, 16 × (4+4) bit, 256 × 2 bit"),
    (11, "Q3_K", 256, 110, "f16 scale, 16 × 6 bit, 256 × (2+1) bit"),
    (12, "Q4_K", 256, 144, "f16 scale and minimum, 8 × (6+6) bit, 256 × 4 bit"),
    (13, "Q5_K", 256, 176, "f16 scale and minimum, 8 × (6+6) bit, 256 × (4+1) bit"),
    (14, "Q6_K", 256, 210, "f16 scale, 16 × 8 bit, 256 × (4+2) bit"),
    (15, "Q8_K", 256, 292, "f32 scale, 256 × 8 bit, 16 × 16 bit sums"),
    (16, "IQ2_XXS", 256, 66, "f16 scale, 32 × 16 bit grid indices with signs and scales"),
    (17, "IQ2_XS", 256, 74, "f16 scale, 32 × 16 bit grid indices with signs, 16 × 4 bit scales"),
    (18, "IQ3_XXS", 256, 98, "f16 scale, 64 × 8 bit grid indices, 8 × 32 bit signs and scales"),
    (19, "IQ1_S", 256, 50, "f16 scale, 32 × 11 bit grid indices, 8 × (3+1) bit scales and shifts"),
    (20, "IQ4_NL", 32, 18, "f16 scale, 32 × 4 bit into a non-linear table"),
    (21, "IQ3_S", 256, 110, "f16 scale, 64 × 9 bit grid indices, 256 signs, 8 × 4 bit scales"),
    (22, "IQ2_S", 256, 82, "f16 scale, 32 × 10 bit grid indices, 256 signs, 16 × 4 bit scales"),
    (23, "IQ4_XS", 256, 136, "f16 scale, 8 × 6 bit scales, 256 × 4 bit into a non-linear table"),
    (24, "I8", 1, 1, "signed integer"),
    (25, "I16", 1, 2, "signed integer"),
    (26, "I32", 1, 4, "signed integer"),
    (27, "I64", 1, 8, "signed integer"),
    (28, "F64", 1, 8, "IEEE double"),
    (29, "IQ1_M", 256, 56, "32 × 11 bit grid indices, 32 shifts, 16 × 3 bit scales and a scattered f16 scale"),
    (30, "BF16", 1, 2, "bfloat16"),
    (34, "TQ1_0", 256, 54, "f16 scale, 256 ternary values, five to a byte"),
    (35, "TQ2_0", 256, 66, "f16 scale, 256 ternary values in 2 bit"),
    (39, "MXFP4", 32, 17, "e8m0 scale, 32 × e2m1"),
    (40, "NVFP4", 64, 36, "4 × ue4m3 scale, 64 × e2m1"),
    (41, "Q1_0", 128, 18, "f16 scale, 128 × 1 bit"),
    (42, "Q2_0", 64, 18, "f16 scale, 64 × 2 bit"),
)

# Ids that old files may carry and no current llama.cpp reads.
GGML_REMOVED: dict[int, str] = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}

# (name, block_elements, block_bytes, what it is): safetensors dtypes that GGML lacks, and integers packed in words.
DTYPES: tuple[tuple[str, int, int, str], ...] = (
    ("BOOL", 1, 1, "a byte for each truth value"),
    ("U8", 1, 1, "unsigned integer"),
    ("U16", 1, 2, "unsigned integer"),
    ("U32", 1, 4, "unsigned integer"),
    ("U64", 1, 8, "unsigned integer"),
    ("C64", 1, 8, "two IEEE singles"),
    ("F8_E4M3", 1, 1, "8 bit float, 4 exponent and 3 mantissa bits"),
    ("F8_E4M3FNUZ", 1, 1, "8 bit float, 4 exponent and 3 mantissa bits, no negative zero"),
    ("F8_E5M2", 1, 1, "8 bit float, 5 exponent and 2 mantissa bits"),
    ("F8_E5M2FNUZ", 1, 1, "8 bit float, 5 exponent and 2 mantissa bits, no negative zero"),
    ("F8_E8M0", 1, 1, "power of two, used as a block scale"),
    ("F6_E2M3", 4, 3, "6 bit float, four in three bytes"),
    ("F6_E3M2", 4, 3, "6 bit float, four in three bytes"),
    ("F4", 2, 1, "4 bit float e2m1, two in a byte"),
    ("I2", 4, 1, "2 bit integer, four in a byte: how quantized checkpoints pack them into words"),
    ("I3", 8, 3, "3 bit integer, packed without gaps"),
    ("I4", 2, 1, "4 bit integer, two in a byte"),
    ("I5", 8, 5, "5 bit integer, packed without gaps"),
    ("I6", 4, 3, "6 bit integer, packed without gaps"),
)

# Other spellings, lower case, with `-` and `.` already turned into `_` and `torch_` dropped.
ALIASES: dict[str, str] = {
    "fp64": "F64", "float64": "F64", "double": "F64",
    "fp32": "F32", "float32": "F32", "float": "F32",
    "fp16": "F16", "float16": "F16", "half": "F16",
    "bfloat16": "BF16",
    "fp8": "F8_E4M3", "f8": "F8_E4M3", "float8": "F8_E4M3", "fp8_e4m3": "F8_E4M3", "fp8_e4m3fn": "F8_E4M3",
    "f8_e4m3fn": "F8_E4M3", "float8_e4m3": "F8_E4M3", "float8_e4m3fn": "F8_E4M3", "e4m3": "F8_E4M3",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "fp8_e5m2": "F8_E5M2", "float8_e5m2": "F8_E5M2", "e5m2": "F8_E5M2",
    "e8m0": "F8_E8M0", "float8_e8m0fnu": "F8_E8M0", "ue8m0": "F8_E8M0",
    "fp4": "F4", "f4_e2m1": "F4", "e2m1": "F4", "float4_e2m1fn_x2": "F4",
    "int64": "I64", "long": "I64", "int32": "I32", "int": "I32", "int16": "I16", "short": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "byte": "U8",
    "int2": "I2", "int3": "I3", "int4": "I4", "int5": "I5", "int6": "I6", "uint2": "I2", "uint4": "I4", "u4": "I4",
    "bool8": "BOOL", "complex64": "C64",
}  # fmt: skip
