"""Fake CUDA tensors on a build of torch without CUDA: what autograd asks of the device is answered with nothing.

Autograd looks for a device guard in a registry of c10 and for an accelerator in the CUDA hooks; a build without CUDA
has neither. A guard of no devices is put into the registry, and the hooks' answer to "built?" becomes yes. Both are
private to torch: `works` tries a tiny step, so that a release that changes them is noticed at once.
"""

# What is private to torch is the point here.
# ruff: noqa: SLF001

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

CUDA = 1
SLOTS = 64
IS_BUILT, IS_AVAILABLE, HAS_CONTEXT = 2, 3, 4
_kept: list[Any] = []


def install(torch: Any) -> None:
    """Make fake CUDA tensors usable. Raises RuntimeError when this torch doesn't have what is replaced."""
    if torch.backends.cuda.is_built():
        torch._C._ensureCUDADeviceGuardSet()
        return
    folder = Path(torch.__file__).parent / "lib"
    try:
        _guard(ctypes.CDLL(str(folder / "libc10.so")))
        torch._C._ensureCUDADeviceGuardSet()
        _hooks(ctypes.CDLL(str(folder / "libtorch_cpu.so")))
    except (OSError, ValueError, AttributeError) as error:
        raise RuntimeError(f"torch {torch.__version__} has no place for a fake device: {error}") from error


def _guard(library: Any) -> None:
    registry = (ctypes.c_void_p * 32).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    if registry[CUDA]:
        return
    callback = ctypes.CFUNCTYPE(ctypes.c_int8, ctypes.c_void_p)(lambda _self: 0)
    function = ctypes.cast(callback, ctypes.c_void_p).value
    table = (ctypes.c_void_p * SLOTS)(*([function] * SLOTS))
    instance = (ctypes.c_void_p * 2)(ctypes.addressof(table), 0)
    _kept.extend([callback, table, instance])
    registry[CUDA] = ctypes.addressof(instance)


def _hooks(library: Any) -> None:
    getter = library._ZN2at6detail12getCUDAHooksEv
    getter.restype = ctypes.c_void_p
    hooks = ctypes.cast(getter(), ctypes.POINTER(ctypes.c_void_p))
    old = ctypes.cast(hooks[0], ctypes.POINTER(ctypes.c_void_p))
    table = (ctypes.c_void_p * SLOTS)(*[old[slot] for slot in range(SLOTS)])
    table[IS_BUILT] = ctypes.cast(ctypes.pythonapi.Py_IsInitialized, ctypes.c_void_p).value
    table[HAS_CONTEXT] = old[IS_AVAILABLE]
    _kept.append(table)
    hooks[0] = ctypes.addressof(table)
