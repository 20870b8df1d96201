"""A file system in a folder: what a probe reads, without the machine it was written down on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sizeup.machines.probes.files import Files


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[dict[str, str]], Files]:
    def build(contents: dict[str, str]) -> Files:
        for name, text in contents.items():
            path = tmp_path / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return Files(str(tmp_path))

    return build
