"""What a model is trained for: the head on top of it, named by a setting or by its configuration's `architectures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

Shape = TypeVar("Shape")

#: `lm`: words; `classification`: one label a sequence (or image); `tokens`: one a token; `question`: where an answer
#: begins and ends; `embedding`: one vector a sequence, matched with its partner's against all others of the batch.
HEADS = ("lm", "classification", "tokens", "question", "embedding")

_ENDINGS = {
    "ForSequenceClassification": "classification",
    "ForImageClassification": "classification",
    "ForTokenClassification": "tokens",
    "ForQuestionAnswering": "question",
}


def default_head(config: Mapping[str, Any]) -> str:
    """The head that the first of the configuration's architectures has; `lm` where it names none of these."""
    names = config.get("architectures")
    first = names[0] if isinstance(names, Sequence) and names and isinstance(names[0], str) else ""
    return next((head for ending, head in _ENDINGS.items() if first.endswith(ending)), "lm")


def default_labels(config: Mapping[str, Any]) -> int:
    """Labels of a classifier: `num_labels`, else as many as `id2label` names, else two."""
    number, names = config.get("num_labels"), config.get("id2label")
    if isinstance(number, int) and not isinstance(number, bool) and number > 0:
        return number
    return len(names) if isinstance(names, Mapping) and names else 2


def headed(shape: Shape, config: Mapping[str, Any]) -> Shape:
    """The shape with the head and labels of its configuration, if its program has heads."""
    head = default_head(config)
    if head == "lm" or not hasattr(shape, "head"):
        return shape
    return msgspec.structs.replace(shape, head=head, labels=default_labels(config))  # type: ignore[type-var]
