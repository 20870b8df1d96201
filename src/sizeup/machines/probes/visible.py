"""The variables that hide GPUs: CUDA_VISIBLE_DEVICES, ROCR_VISIBLE_DEVICES, HIP_VISIBLE_DEVICES, ZE_AFFINITY_MASK."""

from __future__ import annotations


def visible(value: str | None, identities: list[str]) -> list[int]:
    """The indices that a variable leaves visible, in its order, as the drivers read it.

    Unset: all. Empty, `-1` or `none`: none. Numbers are indices; other words match the start of an identity
    (`GPU-8932f937`). The list ends at the first entry that names no device, as CUDA's does.
    """
    if value is None:
        return list(range(len(identities)))
    chosen: list[int] = []
    for word in (part.strip() for part in value.split(",")):
        index = _index(word, identities)
        if index is None or index in chosen:
            break
        chosen.append(index)
    return chosen


def _index(word: str, identities: list[str]) -> int | None:
    if word.isascii() and word.isdigit():
        return int(word) if len(word) < 6 and int(word) < len(identities) else None
    if not word or word.startswith("-") or word.lower() == "none":
        return None
    matches = [index for index, identity in enumerate(identities) if identity.lower().startswith(word.lower())]
    return matches[0] if len(matches) == 1 else None
