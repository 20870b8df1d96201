"""Room on the disk where models are kept.

Sources, in this order: the folder of `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME/huggingface`, `~/.cache/huggingface`;
of it the nearest folder that exists, and the file system's own figures for that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from sizeup.machines.device import Disk


def read_disk(env: Mapping[str, str]) -> Disk | None:
    """Free and total bytes of the file system with the model cache; None when they can't be read."""
    import shutil

    path = model_folder(env)
    while not os.path.isdir(path):  # noqa: PTH112 - pathlib costs start-up time here
        parent = os.path.dirname(path)  # noqa: PTH120
        if parent == path:
            return None
        path = parent
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return None
    return Disk(path=path, free_bytes=usage.free, total_bytes=usage.total)


def model_folder(env: Mapping[str, str]) -> str:
    """Where models are downloaded to by default."""
    home = env.get("HOME") or env.get("USERPROFILE") or os.path.expanduser("~")  # noqa: PTH111
    cache = env.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")  # noqa: PTH118
    return env.get("HF_HUB_CACHE") or env.get("HF_HOME") or os.path.join(cache, "huggingface")  # noqa: PTH118
