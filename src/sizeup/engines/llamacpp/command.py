"""The command that starts llama.cpp with a setting.

Source: common/arg.cpp, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

from sizeup.engines.llamacpp.setting import ALL_LAYERS, LlamaSetting

#: `-ngl` accepts a number, `auto` or `all`.
_ALL = "all"


def server_command(
    setting: LlamaSetting, model: str, *, hub: bool = False, projector: str = "", draft: str = ""
) -> list[str]:
    """The arguments of `llama-server`; only what differs from its defaults, and what the plan rests on.

    model: path of the GGUF file, or `owner/name[:mix]` with hub. projector, draft: paths of those files, if any.
    """
    wanted = setting.gpu_layers
    layers = _ALL if wanted in {None, ALL_LAYERS} else str(wanted)
    command = ["llama-server", "-hf" if hub else "-m", model, "-c", str(setting.context), "-ngl", layers]
    command += ["--device", "none"] if wanted == 0 else []
    command += ["-np", str(setting.parallel)]
    if setting.parallel > 1:
        command.append("--kv-unified" if setting.unified else "--no-kv-unified")
    command += _unless("-b", setting.batch, 2048) + _unless("-ub", setting.ubatch, 512)
    command += _unless("-fa", setting.flash_attention, "auto")
    command += _unless("-ctk", setting.cache_k, "f16") + _unless("-ctv", setting.cache_v, "f16")
    command += _unless("--n-cpu-moe", setting.cpu_moe_layers, 0)
    for override in setting.overrides:
        buffer = override.buffer if override.buffer.upper() == "CPU" else f"CUDA{override.buffer}"
        command += ["-ot", f"{override.pattern}={buffer}"]
    if setting.tensor_split:
        command += ["-ts", ",".join(f"{share:g}" for share in setting.tensor_split)]
    command += [] if setting.mmap else ["--load-mode", "none"]
    command += _unless("-sm", setting.split_mode, "layer") + _unless("-mg", setting.main_gpu, 0)
    for on, option in (
        (setting.full_swa, "--swa-full"),
        (not setting.offload_kv, "--no-kv-offload"),
        (not setting.repack, "--no-repack"),
        (setting.embeddings, "--embeddings"),
    ):
        command += [option] if on else []
    command += ["--no-mmproj"] if hub and not setting.projector else []
    return command + _unless("--mmproj", projector, "") + _unless("-md", draft, "")


def _unless(option: str, value: object, default: object) -> list[str]:
    return [] if value == default else [option, str(value)]
