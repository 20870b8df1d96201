"""Worker: a model's loss on a text, and how far its predictions are from a reference's.

    job      {"gguf": path, "reference": path or null, "text", "length": tokens of a stretch, "stretches": at most,
              "model": {llama_model_params …}, "reference_model": the same of the reference,
              "context": {llama_context_params …}, "kept": path or null}
    results  {"part": "text", "tokens", "stretches", "vocabulary", "version", "trained_length"}
             {"part": "stretch", "index", "scored", "loss", and with a reference "reference_loss", "divergence",
              "agreement"}: means over its scored tokens, losses and divergences in nats

The text is cut into stretches; the first half of each is only read, the second half is scored, as llama-perplexity
does (tools/perplexity, llama.cpp 0.5.0). The divergence is KL(reference ‖ model). Both are loaded side by side; where
"kept" names a file, one after the other, and the reference's logits wait in that file in single precision.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from sizeup.workers.llamacpp_binding import Log, fill, load, started
from sizeup.workers.llamacpp_server_text import Text
from sizeup.workers.protocol import Refused, Say, answer

_ROWS_AT_ONCE = 64


class Scorer:
    """One model, ready to give the logits of a stretch's second half."""

    def __init__(self, binding: Any, path: str, parameters: dict[str, Any], job: dict[str, Any], log: Log) -> None:
        self._binding = binding
        params = fill(binding.llama_model_default_params(), parameters)
        self.model = load(binding, path, params, log)
        context = fill(binding.llama_context_default_params(), job["context"])
        self._context = binding.llama_init_from_model(self.model, context)
        if not self._context:
            raise RuntimeError(f"llama.cpp made no context: {log.failure()}")
        self.text = Text(binding, self.model)
        self.trained_length = int(binding.llama_model_n_ctx_train(self.model))
        self._batch = binding.llama_batch_init(job["length"], 0, 1)

    def tokens(self, text: str) -> tuple[list[int], int | None]:
        """A text's tokens, and the token that begins every text, where the model has one."""
        vocabulary = self.text.vocabulary
        first = self._binding.llama_vocab_bos(vocabulary) if self._binding.llama_vocab_get_add_bos(vocabulary) else None
        return self.text.tokens(text, special=True), first

    def close(self) -> None:
        """Give its memory back."""
        self._binding.llama_batch_free(self._batch)
        self._binding.llama_free(self._context)
        self._binding.llama_model_free(self.model)

    def logits(self, tokens: list[int], scored: int) -> Any:
        """Logits after each of the last `scored` tokens but one: those that predict the tokens after them."""
        import numpy as np

        first, batch = len(tokens) - scored - 1, self._batch
        for place, token in enumerate(tokens):
            batch.token[place], batch.pos[place], batch.n_seq_id[place] = token, place, 1
            batch.seq_id[place][0] = 0
            batch.logits[place] = int(first <= place < len(tokens) - 1)
        batch.n_tokens = len(tokens)
        self._binding.llama_memory_clear(self._binding.llama_get_memory(self._context), True)
        if status := self._binding.llama_decode(self._context, batch):
            raise RuntimeError(f"llama_decode returned {status} for {len(tokens)} tokens")
        rows = self._binding.llama_get_logits(self._context)
        return np.ctypeslib.as_array(rows, shape=(scored, self.text.size))


def log_shares(logits: Any) -> Any:
    """The logarithms of the softmax of each row, in double precision."""
    import numpy as np

    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))


def scores(found: Any, reference: Any, wanted: list[int]) -> dict[str, float]:
    """Means over the scored tokens: loss, and beside a reference its loss, the divergence and the agreement."""
    import numpy as np

    sums = {"loss": 0.0}
    if reference is not None:
        sums |= {"reference_loss": 0.0, "divergence": 0.0, "agreement": 0.0}
    for start in range(0, len(wanted), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        right = np.asarray(wanted[some])[:, None]
        shares = log_shares(found[some])
        sums["loss"] -= float(np.take_along_axis(shares, right, axis=1).sum())
        if reference is not None:
            other = log_shares(reference[some])
            sums["reference_loss"] -= float(np.take_along_axis(other, right, axis=1).sum())
            sums["divergence"] += float((np.exp(other) * (other - shares)).sum())
            sums["agreement"] += float((other.argmax(axis=1) == shares.argmax(axis=1)).sum())
    return {name: total / len(wanted) for name, total in sums.items()}


def stretches(tokens: list[int], length: int, most: int, first: int | None) -> list[list[int]]:
    """Whole stretches of a text, evenly spread over it when there are more than are wanted.

    first: the token that begins every text, where the model has one.
    """
    plain = tokens[1:] if first is not None and tokens[:1] == [first] else tokens
    room = length if first is None else length - 1
    count = len(plain) // room
    if not count:
        raise Refused("config", f"the text has {len(tokens)} tokens and a stretch has {length}")
    chosen = [number * count // most for number in range(most)] if count > most else list(range(count))
    head = [] if first is None else [first]
    return [[*head, *plain[number * room : (number + 1) * room]] for number in chosen]


#: The reference's logits of a stretch, by its number and tokens.
Reference = Callable[[int, list[int]], Any]


def beside(job: dict[str, Any], own: Scorer, binding: Any, log: Log) -> Reference | None:
    """The reference loaded beside the model; None without one."""
    if not job["reference"]:
        return None
    other = Scorer(binding, job["reference"], job["reference_model"], job, log)
    agree(own, other.text.size, other.tokens(job["text"])[0], job)
    return lambda _, part: other.logits(part, len(part) // 2)


def beforehand(job: dict[str, Any], binding: Any, log: Log, say: Say) -> tuple[int, list[int], Reference]:
    """The reference alone, its logits put into a file: the size of its vocabulary, its tokens, a reader of the file."""
    import numpy as np

    other = Scorer(binding, job["reference"], job["reference_model"], job, log)
    size = other.text.size
    tokens, first = other.tokens(job["text"])
    parts = stretches(tokens, job["length"], job["stretches"], first)
    with Path(job["kept"]).open("wb") as file:
        for index, part in enumerate(parts):
            other.logits(part, len(part) // 2).tofile(file)
            say("progress", done=index + 1, all=len(parts), what="reading the text with the reference")
    other.close()
    kept = np.memmap(job["kept"], dtype=np.float32, mode="r", shape=(len(parts), len(parts[0]) // 2, size))
    return size, tokens, lambda index, _: kept[index]


def agree(own: Scorer, size: int, tokens: list[int], job: dict[str, Any]) -> None:
    """Refuse a reference with another vocabulary: its shares are of other tokens."""
    if own.text.size != size:
        raise Refused("config", f"the vocabularies differ: {own.text.size} tokens, the reference has {size}")
    if own.tokens(job["text"])[0] != tokens:
        raise Refused("config", f"the vocabularies differ: the same {size} tokens, but another text of them")


def work(job: dict[str, Any], say: Say) -> None:
    """Do one job."""
    binding, version = started()
    log = Log(binding)
    first_pass = beforehand(job, binding, log, say) if job["kept"] else None
    own = Scorer(binding, job["gguf"], job["model"], job, log)
    if not own.text.known:
        raise Refused("config", f"{Path(job['gguf']).name} has no vocabulary: random weights have no quality")
    if first_pass:
        agree(own, first_pass[0], first_pass[1], job)
    reference = first_pass[2] if first_pass else beside(job, own, binding, log)
    tokens, first = own.tokens(job["text"])
    parts = stretches(tokens, job["length"], job["stretches"], first)
    say(
        "result",
        part="text",
        tokens=len(tokens),
        stretches=len(parts),
        vocabulary=own.text.size,
        version=version,
        trained_length=own.trained_length,
    )
    for index, part in enumerate(parts):
        scored = len(part) // 2
        found = scores(own.logits(part, scored), reference(index, part) if reference else None, part[-scored:])
        say("result", part="stretch", index=index, scored=scored, **found)
        say("progress", done=index + 1, all=len(parts), what="reading the text")


if __name__ == "__main__":
    sys.exit(answer(work))
