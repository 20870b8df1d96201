"""Sources are tested in a home of their own, against a Hub on the loopback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hub_server import FakeHub

from sizeup.models.sources.environment import HubSettings

PREFIXES = ("HF_", "HUGGING", "OLLAMA", "LLAMA_", "SIZEUP_", "XDG_", "TRANSFORMERS_", "DO_NOT_TRACK")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder and an environment without anyone's settings or proxies."""
    for name in os.environ:
        if name.startswith(PREFIXES) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    monkeypatch.setenv("SIZEUP_HOME", str(folder / "sizeup"))
    return folder


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """A Hub with no repositories yet."""
    with FakeHub() as server:
        yield server


@pytest.fixture
def settings(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> HubSettings:
    """The environment's settings, pointing at the fake Hub."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    return HubSettings.from_environment()
