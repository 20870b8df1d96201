"""How device names are compared: exactly, after spelling is made the same. Never by substring.

`NVIDIA GeForce RTX 4090`, `rtx-4090` and `RTX4090` are one name; `RTX 4090 Laptop GPU` is another, and `L4` is not
`L40`.
"""

from __future__ import annotations

# Words that say who made it or that it is a GPU, and nothing about which one it is.
_EMPTY_WORDS = frozenset((
    "nvidia", "geforce", "tesla", "amd", "ati", "radeon", "instinct", "intel", "apple", "gpu", "graphics",
    "corporation",
))  # fmt: skip
_SAME_WORDS = {"mobile": "laptop", "generation": "", "edition": "", "processor": ""}
_SEPARATORS = str.maketrans(dict.fromkeys("-_/(),[]\u2010\u2011\u2012\u2013\u2014\u00a0\u202f\"'", " "))


def normalise(name: str) -> str:
    """The key under which a name is compared: lower case, without vendor, spaces and punctuation.

    `+` stays, because `Max+` is part of a name.
    """
    text = name.lower().replace("(r)", " ").replace("(tm)", " ").replace("®", " ").replace("™", " ")
    words = (_SAME_WORDS.get(word, word) for word in text.translate(_SEPARATORS).split())
    return "".join(word for word in words if word not in _EMPTY_WORDS)
