"""A llama.cpp without its Python package: its shared library, with the two parameter structs of llama.h.

The structs change between versions, and nothing in the library tells which it was built with. So they are checked:
a library whose default parameters aren't where this layout has them is refused. Standard library only.

Source: include/llama.h, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

_P, _I, _U, _F, _B = ctypes.c_void_p, ctypes.c_int32, ctypes.c_uint32, ctypes.c_float, ctypes.c_bool
#: Room behind a struct for fields that a newer version has added at its end.
_ROOM = 512


class ModelParams(ctypes.Structure):
    """llama_model_params."""

    _fields_ = (
        ("devices", _P), ("tensor_buft_overrides", _P), ("n_gpu_layers", _I), ("split_mode", _I), ("load_mode", _I),
        ("lazy_mode", _I), ("main_gpu", _I), ("tensor_split", _P), ("progress_callback", _P),
        ("progress_callback_user_data", _P), ("kv_overrides", _P), ("vocab_only", _B), ("check_tensors", _B),
        ("use_extra_bufts", _B), ("no_host", _B), ("no_alloc", _B), ("load_mtp", _B), ("room", ctypes.c_byte * _ROOM),
    )  # fmt: skip


class ContextParams(ctypes.Structure):
    """llama_context_params."""

    _fields_ = (
        ("n_ctx", _U), ("n_batch", _U), ("n_ubatch", _U), ("n_seq_max", _U), ("n_rs_seq", _U), ("n_outputs_max", _U),
        ("n_outputs_max_per_seq", _U), ("n_threads", _I), ("n_threads_batch", _I), ("ctx_type", _I),
        ("rope_scaling_type", _I), ("pooling_type", _I), ("attention_type", _I), ("flash_attn_type", _I),
        ("rope_freq_base", _F), ("rope_freq_scale", _F), ("yarn_ext_factor", _F), ("yarn_attn_factor", _F),
        ("yarn_beta_fast", _F), ("yarn_beta_slow", _F), ("yarn_orig_ctx", _U), ("defrag_thold", _F), ("cb_eval", _P),
        ("cb_eval_user_data", _P), ("type_k", _I), ("type_v", _I), ("abort_callback", _P),
        ("abort_callback_data", _P), ("embeddings", _B), ("offload_kqv", _B), ("no_perf", _B), ("op_offload", _B),
        ("swa_full", _B), ("kv_unified", _B), ("samplers", _P), ("n_samplers", ctypes.c_size_t), ("ctx_other", _P),
        ("room", ctypes.c_byte * _ROOM),
    )  # fmt: skip


#: What these fields are by default, in every version with this layout.
_MODEL_DEFAULTS = {
    "n_gpu_layers": -1, "split_mode": 1, "load_mode": -1, "main_gpu": 0, "vocab_only": False, "check_tensors": False,
    "use_extra_bufts": True, "no_host": False, "no_alloc": False, "progress_callback": None, "kv_overrides": None,
}  # fmt: skip
_CONTEXT_DEFAULTS = {
    "n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "n_rs_seq": 0, "n_outputs_max": 0,
    "rope_scaling_type": -1, "pooling_type": -1, "attention_type": -1, "flash_attn_type": -1, "rope_freq_base": 0.0,
    "rope_freq_scale": 0.0, "yarn_ext_factor": -1.0, "yarn_attn_factor": -1.0, "yarn_beta_slow": -1.0,
    "yarn_orig_ctx": 0, "cb_eval": None, "type_k": 1, "type_v": 1, "abort_callback": None, "embeddings": False,
    "offload_kqv": True, "op_offload": True, "samplers": None, "n_samplers": 0,
}  # fmt: skip
_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
#: Function → (result, arguments).
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "llama_backend_init": (None, ()),
    "llama_log_set": (None, (_LOG, _P)),
    "llama_model_default_params": (ModelParams, ()),
    "llama_context_default_params": (ContextParams, ()),
    "llama_model_load_from_file": (_P, (ctypes.c_char_p, ModelParams)),
    "llama_model_free": (None, (_P,)),
    "llama_model_desc": (_I, (_P, ctypes.c_char_p, ctypes.c_size_t)),
    "llama_model_n_params": (ctypes.c_uint64, (_P,)),
    "llama_model_size": (ctypes.c_uint64, (_P,)),
    "llama_init_from_model": (_P, (_P, ContextParams)),
    "llama_free": (None, (_P,)),
    "llama_n_ctx": (_U, (_P,)),
    "llama_n_ubatch": (_U, (_P,)),
    "llama_n_threads_batch": (_I, (_P,)),
    "llama_print_system_info": (ctypes.c_char_p, ()),
}


class Library:
    """The functions of a libllama that the workers call, under the names that its Python package gives them."""

    llama_log_callback: Any = staticmethod(_LOG)

    def __init__(self, path: str) -> None:
        """Open it. Raises RuntimeError when it can't be, or isn't laid out as this module has it."""
        try:
            self._lib = ctypes.CDLL(path)
            for name, (result, arguments) in _FUNCTIONS.items():
                function = getattr(self._lib, name)
                function.restype, function.argtypes = result, arguments
                setattr(self, name, function)
        except (OSError, AttributeError) as error:
            raise RuntimeError(f"{Path(path).name} is no llama.cpp that can be used: {error}") from error
        self._load_backends(Path(path).parent)
        for name, expected in (("model", _MODEL_DEFAULTS), ("context", _CONTEXT_DEFAULTS)):
            found = getattr(self, f"llama_{name}_default_params")()
            wrong = next((field for field, value in expected.items() if getattr(found, field) != value), None)
            if wrong:
                raise RuntimeError(
                    f"{Path(path).name} has other {name} parameters than llama.cpp 0.5.0: {wrong} is"
                    f" {getattr(found, wrong)}; sizeup engine install llama.cpp brings one that fits"
                )

    def _load_backends(self, folder: Path) -> None:
        """Builds with backends as files of their own look for them only when told to."""
        loader = getattr(_beside(self._lib, folder, "ggml"), "ggml_backend_load_all_from_path", None)
        if loader is not None:
            loader.restype, loader.argtypes = None, [ctypes.c_char_p]
            loader(str(folder).encode())


def _beside(library: Any, folder: Path, stem: str) -> Any:
    ending = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
    path = folder / f"{'' if sys.platform == 'win32' else 'lib'}{stem}{ending}"
    return ctypes.CDLL(str(path)) if path.exists() else library
