"""Small models of many families, as GGUF tensor lists with the header keys that llama.cpp needs to read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import msgspec

from sizeup.formats.gguf_tensors import GgufTensor, converted_type
from sizeup.formats.mixes import MixHparams
from sizeup.formats.storage import STORAGES


class Family(msgspec.Struct, frozen=True):
    hparams: MixHparams
    tensors: list[GgufTensor]
    keys: dict[str, int | float | list[int] | list[float] | list[bool]]
    source: str = "BF16"

    def write(self, path: Path) -> None:
        """A GGUF with these tensors and no data: the file is extended, not filled."""
        writer = gguf.GGUFWriter(path, self.hparams.architecture)
        for key, value in self.keys.items():
            name = f"{self.hparams.architecture}.{key}"
            if isinstance(value, list):
                writer.add_array(name, value)
            elif isinstance(value, float):
                writer.add_float32(name, value)
            else:
                writer.add_uint32(name, value)
        size = 0
        for tensor in self.tensors:
            kind = converted_type(tensor, self.source)
            nbytes = STORAGES[kind].bytes_of(tensor.shape)
            raw = gguf.GGMLQuantizationType[kind]
            writer.add_tensor_info(tensor.name, tensor.shape, _NUMPY[kind], nbytes, raw_dtype=raw)
            size += -(-nbytes // 32) * 32
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        head = path.stat().st_size
        with path.open("r+b") as file:
            file.truncate(-(-head // 32) * 32 + size)


def _dtypes():
    import numpy as np

    return {"F32": np.dtype("float32"), "F16": np.dtype("float16"), "BF16": np.dtype("uint16")}


_NUMPY = _dtypes()

Shapes = dict[str, tuple[int, ...]]


def _family(
    architecture: str,
    layers: int,
    block: Callable[[int], Shapes],
    outside: Shapes,
    *,
    heads: int = 4,
    kv_heads: int = 4,
    experts: int = 0,
    source: str = "BF16",
    **keys: float | list,
) -> Family:
    tensors = [GgufTensor(name, shape) for name, shape in outside.items()]
    for layer in range(layers):
        tensors += [GgufTensor(f"blk.{layer}.{name}", shape) for name, shape in block(layer).items()]
    embedding = outside["token_embd.weight"][1]
    usual = {
        "block_count": layers,
        "context_length": 512,
        "embedding_length": embedding,
        "feed_forward_length": 2 * embedding,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.layer_norm_epsilon": 1e-5,
        "vocab_size": outside["token_embd.weight"][0],
    }
    if experts:
        usual |= {"expert_count": experts, "expert_used_count": 2}
    hparams = MixHparams(architecture, layers, heads, kv_heads, experts)
    return Family(hparams, tensors, usual | {key.replace("__", "."): value for key, value in keys.items()}, source)


def _ends(vocabulary: int, width: int, *, head: bool = True) -> Shapes:
    ends: Shapes = {"token_embd.weight": (vocabulary, width), "output_norm.weight": (width,)}
    return ends | ({"output.weight": (vocabulary, width)} if head else {})


def _attention(width: int, kv: int) -> Shapes:
    return {
        "attn_norm.weight": (width,),
        "attn_q.weight": (width, width),
        "attn_k.weight": (kv, width),
        "attn_v.weight": (kv, width),
        "attn_output.weight": (width, width),
        "ffn_norm.weight": (width,),
    }


def _mlp(width: int, hidden: int) -> Shapes:
    return {
        "ffn_gate.weight": (hidden, width),
        "ffn_up.weight": (hidden, width),
        "ffn_down.weight": (width, hidden),
    }


def _experts(width: int, hidden: int, count: int) -> Shapes:
    return {
        "ffn_gate_inp.weight": (count, width),
        "ffn_gate_exps.weight": (count, hidden, width),
        "ffn_up_exps.weight": (count, hidden, width),
        "ffn_down_exps.weight": (count, width, hidden),
    }


def _shared(width: int, hidden: int) -> Shapes:
    return {
        "ffn_gate_shexp.weight": (hidden, width),
        "ffn_up_shexp.weight": (hidden, width),
        "ffn_down_shexp.weight": (width, hidden),
    }


def _deepseek_block(layer: int) -> Shapes:
    attention = {
        "attn_norm.weight": (256,),
        "attn_q_a.weight": (256, 256),
        "attn_q_a_norm.weight": (256,),
        "attn_q_b.weight": (768, 256),
        "attn_kv_a_mqa.weight": (320, 256),
        "attn_kv_a_norm.weight": (256,),
        "attn_k_b.weight": (4, 256, 128),
        "attn_v_b.weight": (4, 128, 256),
        "attn_output.weight": (256, 512),
        "ffn_norm.weight": (256,),
    }
    return attention | (_mlp(256, 512) if layer == 0 else _experts(256, 256, 16) | _shared(256, 256))


def _deepseek_lite_block(layer: int) -> Shapes:
    attention = {
        "attn_norm.weight": (256,),
        "attn_q.weight": (768, 256),
        "attn_kv_a_mqa.weight": (320, 256),
        "attn_kv_a_norm.weight": (256,),
        "attn_kv_b.weight": (1024, 256),
        "attn_output.weight": (256, 512),
        "ffn_norm.weight": (256,),
    }
    return attention | (_mlp(256, 512) if layer == 0 else _experts(256, 352, 8) | _shared(256, 704))


def _gemma3n_block(_: int) -> Shapes:
    return (
        _attention(256, 128)
        | _mlp(256, 512)
        | {
            "altup_correct_coef.weight": (4, 4),
            "altup_predict_coef.weight": (16, 4),
            "altup_router.weight": (4, 256),
            "laurel_l.weight": (64, 256),
            "laurel_r.weight": (256, 64),
            "inp_gate.weight": (64, 256),
            "proj.weight": (256, 64),
        }
    )


def _mamba_block(_: int) -> Shapes:
    return {
        "attn_norm.weight": (256,),
        "ssm_in.weight": (1024, 256),
        "ssm_conv1d.weight": (512, 4),
        "ssm_x.weight": (48, 512),
        "ssm_dt.weight": (512, 16),
        "ssm_dt.bias": (512,),
        "ssm_a": (512, 16),
        "ssm_d": (512,),
        "ssm_out.weight": (256, 512),
    }


_DEEPSEEK = {
    "leading_dense_block_count": 1,
    "attention__q_lora_rank": 256,
    "attention__kv_lora_rank": 256,
    "attention__key_length": 320,
    "attention__value_length": 256,
    "attention__key_length_mla": 192,
    "attention__value_length_mla": 128,
    "expert_feed_forward_length": 256,
    "expert_shared_count": 1,
    "expert_weights_scale": 1.0,
    "expert_gating_func": 2,
    "rope__dimension_count": 64,
}


def _build() -> Iterator[tuple[str, Family]]:
    yield "llama", _family("llama", 18, lambda _: _attention(256, 256) | _mlp(256, 768), _ends(512, 256))
    yield (
        "llama, grouped",
        _family("llama", 33, lambda _: _attention(512, 128) | _mlp(512, 768), _ends(512, 512), heads=8, kv_heads=2),
    )
    yield (
        "llama, tied",
        _family("llama", 16, lambda _: _attention(256, 128) | _mlp(256, 512), _ends(512, 256, head=False), kv_heads=2),
    )
    yield (
        "llama 70B",
        _family("llama", 80, lambda _: _attention(256, 64) | _mlp(256, 256), _ends(256, 256), kv_heads=2),
    )
    yield (
        "llama, rows of 32",
        _family("llama", 16, lambda _: _attention(288, 96) | _mlp(288, 864), _ends(512, 288), heads=9, kv_heads=3),
    )
    yield (
        "llama, odd rows",
        _family("llama", 9, lambda _: _attention(100, 100) | _mlp(100, 256), _ends(512, 100), source="F16"),
    )
    yield (
        "mixtral",
        _family(
            "llama", 17, lambda _: _attention(256, 64) | _experts(256, 512, 8), _ends(512, 256), kv_heads=1, experts=8
        ),
    )
    yield (
        "qwen3moe",
        _family(
            "qwen3moe", 20, lambda _: _attention(256, 64) | _experts(256, 256, 16), _ends(512, 256), kv_heads=1, experts=16,
            expert_feed_forward_length=256,
        ),
    )  # fmt: skip
    yield (
        "deepseek2",
        _family("deepseek2", 18, _deepseek_block, _ends(512, 256), kv_heads=1, experts=16, **_DEEPSEEK),
    )
    yield (
        "deepseek2 lite",
        _family("deepseek2", 17, _deepseek_lite_block, _ends(512, 256), kv_heads=4, experts=8, **_DEEPSEEK),
    )
    yield (
        "gemma3",
        _family(
            "gemma3", 26, lambda _: _attention(1152, 256) | _mlp(1152, 1280), _ends(512, 1152, head=False), kv_heads=1,
            attention__sliding_window=512, attention__key_length=256, attention__value_length=256,
        ),
    )  # fmt: skip
    yield (
        "falcon",
        _family(
            "falcon", 32,
            lambda _: {
                "attn_norm.weight": (256,), "attn_norm.bias": (256,), "attn_qkv.weight": (384, 256),
                "attn_output.weight": (256, 256), "ffn_up.weight": (1024, 256), "ffn_down.weight": (256, 1024),
            },
            _ends(512, 256) | {"output_norm.bias": (256,)}, kv_heads=1,
        ),
    )  # fmt: skip
    yield (
        "phi3",
        _family(
            "phi3", 18,
            lambda _: {
                "attn_norm.weight": (256,), "attn_qkv.weight": (768, 256), "attn_output.weight": (256, 256),
                "ffn_norm.weight": (256,), "ffn_up.weight": (1024, 256), "ffn_down.weight": (256, 512),
            },
            _ends(512, 256), rope__dimension_count=64,
        ),
    )  # fmt: skip
    yield (
        "gpt-oss",
        _family(
            "gpt-oss", 16,
            lambda _: _attention(288, 64) | _experts(288, 288, 32)
            | {"attn_q.bias": (288,), "attn_sinks.weight": (4,), "ffn_gate_inp.bias": (32,), "ffn_up_exps.bias": (32, 288)},
            _ends(512, 288), kv_heads=1, experts=32,
            expert_feed_forward_length=288, attention__sliding_window=128,
        ),
    )  # fmt: skip
    yield (
        "gemma3n",
        _family(
            "gemma3n", 16, _gemma3n_block,
            _ends(512, 256, head=False) | {
                "per_layer_token_embd.weight": (512, 16 * 64), "per_layer_model_proj.weight": (16 * 64, 256),
                "altup_proj.weight": (3, 256, 256), "altup_unembd_proj.weight": (3, 256, 256),
                "per_layer_proj_norm.weight": (64,),
            },
            kv_heads=2, attention__sliding_window=512, attention__key_length=64, attention__value_length=64,
            embedding_length_per_layer_input=64, attention__shared_kv_layers=4, altup__num_inputs=4, altup__active_idx=0,
        ),
    )  # fmt: skip
    yield (
        "mamba",
        _family(
            "mamba", 16, _mamba_block, _ends(512, 256), heads=0, kv_heads=0,
            ssm__conv_kernel=4, ssm__inner_size=512, ssm__state_size=16, ssm__time_step_rank=16,
        ),
    )  # fmt: skip
    yield (
        "gpt2",
        _family(
            "gpt2", 12,
            lambda _: {
                "attn_norm.weight": (256,), "attn_qkv.weight": (768, 256), "attn_qkv.bias": (768,),
                "attn_output.weight": (256, 256), "ffn_up.weight": (1024, 256), "ffn_down.weight": (256, 1024),
            },
            _ends(512, 256) | {"position_embd.weight": (512, 256)},
        ),
    )  # fmt: skip


FAMILIES: dict[str, Family] = dict(_build())
