"""What a model's loss is taken on: the user's text, else prose of sizeup's own and source of the standard library.

The source is read where Python is installed; those files are held out of the demo model's training.
"""

from __future__ import annotations

import hashlib
import sysconfig
from pathlib import Path

import msgspec

from sizeup.errors import BadFile, BadInput, NotFound

_PROSE = Path(__file__).with_name("prose.txt")
#: Small files of plain code, in every Python that sizeup runs on.
HELD_OUT_MODULES = (
    "heapq.py", "bisect.py", "textwrap.py", "shlex.py", "fnmatch.py", "graphlib.py", "colorsys.py", "statistics.py",
)  # fmt: skip
_MOST_BYTES = 64 << 20
CODE, PROSE = "code", "prose"


class Text(msgspec.Struct, frozen=True):
    """A text and what it is called. digest: of its bytes, so that two results can be told to be of the same text."""

    name: str
    content: str

    @property
    def digest(self) -> str:
        """The first 12 digits of its SHA-256."""
        return hashlib.sha256(self.content.encode()).hexdigest()[:12]


def text_named(name: str = "") -> Text:
    """The text to use: `code`, `prose`, both when nothing is said, else a file.

    Raises NotFound for a file that isn't there, BadFile for one that isn't UTF-8 text, BadInput for an empty one.
    """
    match name:
        case "":
            return Text("prose and code", prose() + "\n\n" + code())
        case "prose":
            return Text(PROSE, prose())
        case "code":
            return Text(CODE, code())
    return Text(Path(name).name, _read(Path(name).expanduser()))


def prose() -> str:
    """A few thousand words, written for sizeup."""
    return _PROSE.read_text(encoding="utf-8")


def code() -> str:
    """The standard library's files that the demo model hasn't seen. Raises NotFound where Python has no sources."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = [path.read_text(encoding="utf-8") for name in HELD_OUT_MODULES if (path := root / name).is_file()]
    if not found:
        raise NotFound(f"no source of the standard library in {root}", hint="use --text prose, or a file of your own")
    return "\n\n".join(found)


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BadInput(f"{path} has {path.stat().st_size:,} bytes", hint="a few MB of text are plenty")
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise NotFound(f"can't read {path}: {error.strerror}", hint="give a text file, `code` or `prose`") from error
    except UnicodeDecodeError as error:
        raise BadFile(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    if not content.strip():
        raise BadInput(f"{path} is empty", hint="give a text of some thousand words")
    return content
