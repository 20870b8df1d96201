"""Where other programs keep models, and what the environment says about the Hub. Read at each call, never kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from sizeup.errors import BadInput

DEFAULT_ENDPOINT = "https://huggingface.co"
_YES = frozenset({"1", "on", "yes", "true"})


class HubSettings(msgspec.Struct, frozen=True):
    """The Hub as the environment describes it.

    endpoint: `HF_ENDPOINT`.
    token: `HF_TOKEN`, else the file `HF_TOKEN_PATH`, else `HF_HOME/token`; none under
        `HF_HUB_DISABLE_IMPLICIT_TOKEN`.
    offline: `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`.
    user_agent: bare under `HF_HUB_DISABLE_TELEMETRY` or `DO_NOT_TRACK`, else with the version.
    own_cache: where this program keeps configurations and headers: `SIZEUP_HOME/cache`, else the user's cache folder.
    timeout_seconds: `HF_HUB_DOWNLOAD_TIMEOUT`.
    """

    endpoint: str
    token: str
    offline: bool
    user_agent: str
    own_cache: Path
    timeout_seconds: float

    @classmethod
    def from_environment(cls, env: Mapping[str, str] | None = None) -> HubSettings:
        """Read the environment. Raises BadInput for a token that can't be sent."""
        env = os.environ if env is None else env
        return cls(
            endpoint=(env.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/"),
            token=_token(env, hub_home(env)),
            offline=any(_is_yes(env.get(name)) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")),
            user_agent=_user_agent(env),
            own_cache=_own_cache(env),
            timeout_seconds=_timeout(env.get("HF_HUB_DOWNLOAD_TIMEOUT")),
        )


def hub_home(env: Mapping[str, str]) -> Path:
    """`HF_HOME`, else `XDG_CACHE_HOME/huggingface`, else `~/.cache/huggingface`."""
    return _path(env.get("HF_HOME")) or (_path(env.get("XDG_CACHE_HOME")) or Path.home() / ".cache") / "huggingface"


def hub_caches(env: Mapping[str, str] | None = None) -> list[Path]:
    """Folders laid out as the Hub's cache: llama.cpp's own (`LLAMA_CACHE`), then the Hub's."""
    env = os.environ if env is None else env
    own = _path(env.get("LLAMA_CACHE"))
    hub = _path(env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE")) or hub_home(env) / "hub"
    return [hub] if own is None else [own, hub]


def llama_cpp_folders(env: Mapping[str, str] | None = None) -> list[Path]:
    """Where llama.cpp keeps, or kept before it used the Hub's cache, what it downloads."""
    env = os.environ if env is None else env
    if sys.platform == "darwin":
        usual = Path.home() / "Library" / "Caches" / "llama.cpp"
    elif sys.platform == "win32":
        usual = (_path(env.get("LOCALAPPDATA")) or Path.home() / "AppData" / "Local") / "llama.cpp"
    else:
        usual = (_path(env.get("XDG_CACHE_HOME")) or Path.home() / ".cache") / "llama.cpp"
    own = _path(env.get("LLAMA_CACHE"))
    return [usual] if own is None else [own, usual]


def ollama_folders(env: Mapping[str, str] | None = None) -> list[Path]:
    """`OLLAMA_MODELS` alone when it is set; else the user's folder and those of the usual services."""
    env = os.environ if env is None else env
    own = _path(env.get("OLLAMA_MODELS"))
    if own is not None:
        return [own]
    services = [Path("/usr/share/ollama/.ollama/models"), Path("/var/lib/ollama/models")]
    return [Path.home() / ".ollama" / "models", *services]


def lm_studio_folders() -> list[Path]:
    """LM Studio's model folders: `~/.lmstudio-home-pointer` names its home; `~/.cache/lm-studio` is the old one."""
    homes = [Path.home() / ".lmstudio", Path.home() / ".cache" / "lm-studio"]
    try:
        pointed = (Path.home() / ".lmstudio-home-pointer").read_text()[:4096].strip()
    except (OSError, UnicodeDecodeError):
        pointed = ""
    if pointed and "\0" not in pointed:
        homes.insert(0, Path(pointed))
    return [home / "models" for home in homes]


def _path(text: str | None) -> Path | None:
    return Path(text).expanduser() if text else None


def _is_yes(text: str | None) -> bool:
    return (text or "").strip().lower() in _YES


def _token(env: Mapping[str, str], home: Path) -> str:
    token, where = (env.get("HF_TOKEN") or env.get("HUGGING_FACE_HUB_TOKEN") or "").strip(), "HF_TOKEN"
    if not token and not _is_yes(env.get("HF_HUB_DISABLE_IMPLICIT_TOKEN")):
        path = _path(env.get("HF_TOKEN_PATH")) or home / "token"
        try:
            token, where = path.read_text()[:4096].strip(), str(path)
        except (OSError, UnicodeDecodeError):
            token = ""
    if not all("!" <= character <= "~" for character in token):
        raise BadInput(f"the token in {where} holds characters that no token has", hint=f"correct {where}")
    return token


def _user_agent(env: Mapping[str, str]) -> str:
    if any(_is_yes(env.get(name)) for name in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")):
        return "sizeup"
    from sizeup import __version__

    return f"sizeup/{__version__}"


def _own_cache(env: Mapping[str, str]) -> Path:
    home = _path(env.get("SIZEUP_HOME"))
    if home is not None:
        return home / "cache"
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("sizeup", appauthor=False))


def _timeout(text: str | None) -> float:
    try:
        seconds = float(text or 10)
    except ValueError:
        return 10.0
    return min(max(seconds, 1.0), 300.0) if seconds == seconds else 10.0  # noqa: PLR0124  (NaN)
