"""Worker: a model's loss on a text, and how far its predictions are from a reference's.

    job      {"gguf": path, "reference": path or null, "text", "length": tokens of a stretch, "stretches": at most,
              "model": {llama_model_params …}, "context": {llama_context_params …}}
    results  {"part": "text", "tokens", "stretches", "vocabulary", "version", "trained_length"}
             {"part": "stretch", "index", "scored", "loss", and with a reference "reference_loss", "divergence",
              "agreement"}: means over its scored tokens, losses and divergences in nats

The text is cut into stretches; the first half of each is only read, the second half is scored, as llama-perplexity
does (tools/perplexity, llama.cpp 0.5.0). The divergence is KL(reference ‖ model); both are computed side by side.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from sizeup.workers.llamacpp_binding import Log, fill, load, started
from sizeup.workers.llamacpp_server_text import Text
from sizeup.workers.protocol import Refused, Say, answer

_ROWS_AT_ONCE = 64


class Scorer:
    """One model, ready to give the logits of a stretch's second half."""

    def __init__(self, binding: Any, path: str, job: dict[str, Any], log: Log) -> None:
        self._binding = binding
        params = fill(binding.llama_model_default_params(), job["model"])
        self.model = load(binding, path, params, log)
        context = fill(binding.llama_context_default_params(), job["context"])
        self._context = binding.llama_init_from_model(self.model, context)
        if not self._context:
            raise RuntimeError(f"llama.cpp made no context: {log.failure()}")
        self.text = Text(binding, self.model)
        self.trained_length = int(binding.llama_model_n_ctx_train(self.model))
        self._batch = binding.llama_batch_init(job["length"], 0, 1)

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


def work(job: dict[str, Any], say: Say) -> None:
    """Do one job."""
    binding, version = started()
    log = Log(binding)
    own = Scorer(binding, job["gguf"], job, log)
    other = Scorer(binding, job["reference"], job, log) if job["reference"] else None
    if not own.text.known:
        raise Refused("config", f"{Path(job['gguf']).name} has no vocabulary: random weights have no quality")
    if other is not None and other.text.size != own.text.size:
        raise Refused("config", f"the vocabularies differ: {own.text.size} tokens, the reference has {other.text.size}")
    tokens = own.text.tokens(job["text"], special=True)
    begins = binding.llama_vocab_get_add_bos(own.text.vocabulary)
    first = binding.llama_vocab_bos(own.text.vocabulary) if begins else None
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
        wanted = part[-scored:]
        reference = other.logits(part, scored) if other else None
        say(
            "result",
            part="stretch",
            index=index,
            scored=scored,
            **scores(own.logits(part, scored), reference, wanted),
        )
        say("progress", done=index + 1, all=len(parts), what="reading the text")


if __name__ == "__main__":
    sys.exit(answer(work))
