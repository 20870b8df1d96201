"""Starting a vendor's tool: its output, or None for every way in which that can fail."""

from __future__ import annotations

_TIMEOUT_S = 5.0
_MAX_CHARACTERS = 4 << 20


def output_of(*command: str, timeout_s: float = _TIMEOUT_S) -> str | None:
    """What a command prints, None when it is missing, fails or takes too long."""
    import subprocess

    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    if done.returncode != 0:
        return None
    return done.stdout[:_MAX_CHARACTERS].decode("utf-8", errors="replace")
