"""Slots of the llama.cpp server worker: sequences that are computed together, one batch after the other.

Each step puts the next token of every sequence that is being written into one batch, and fills it up with prompt tokens
of those that are being read (continuous batching).
"""

from __future__ import annotations

import ctypes
import queue
import time
from typing import Any

import numpy as np

from sizeup.workers.llamacpp_server_text import Decoder, Text
from sizeup.workers.server_http import Request

_TOP_K, _TOP_P = 40, 0.95


class Slot:
    """One sequence of the context, and the request that it serves."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.request: Request | None = None
        self.kept: list[int] = []
        self.sampler: Any = None
        self.written = 0
        self.reused = 0
        self.started = self.first = self.last = 0.0

    @property
    def reading(self) -> bool:
        """Whether some of the prompt is still to be computed."""
        return self.request is not None and self.written == 0

    def common(self, tokens: list[int]) -> int:
        """How many tokens at the beginning of a prompt are in this slot's cache already."""
        same = 0
        for ours, theirs in zip(self.kept, tokens, strict=False):
            if ours != theirs:
                break
            same += 1
        return same


class Batch:
    """The arrays of a llama_batch, filled by slices."""

    def __init__(self, binding: Any, size: int, sequences: int) -> None:
        self.size, self.used = size, 0
        self._token = (binding.llama_token * size)()
        self._position = (binding.llama_pos * size)()
        self._counts = (ctypes.c_int32 * size)(*[1] * size)
        self._ids = [(binding.llama_seq_id * 1)(number) for number in range(sequences)]
        self._places = (ctypes.c_size_t * size)()
        self._wanted = (ctypes.c_int8 * size)()
        self.raw = binding.llama_batch()
        for name, array in (
            ("token", self._token), ("pos", self._position), ("n_seq_id", self._counts),
            ("seq_id", self._places), ("logits", self._wanted),
        ):  # fmt: skip
            kind = dict(binding.llama_batch._fields_)[name]
            setattr(self.raw, name, ctypes.cast(array, kind))

    def clear(self) -> None:
        """Start anew."""
        self.used = 0

    def add(self, tokens: list[int], position: int, sequence: int, *, last: bool) -> int:
        """Add tokens of one sequence; `last` wants logits of the last one. Returns its place in the batch."""
        start, end = self.used, self.used + len(tokens)
        self._token[start:end] = tokens
        self._position[start:end] = range(position, position + len(tokens))
        self._places[start:end] = [ctypes.addressof(self._ids[sequence])] * len(tokens)
        self._wanted[start:end] = [0] * len(tokens)
        self._wanted[end - 1] = int(last)
        self.used = self.raw.n_tokens = end
        return end - 1


class Slots:
    """All sequences of a context, and the loop that computes them."""

    def __init__(self, binding: Any, context: Any, text: Text, sequences: int) -> None:
        self._binding, self._context, self._text = binding, context, text
        self._memory = binding.llama_get_memory(context)
        self._slots = [Slot(number) for number in range(sequences)]
        self._decoders: dict[int, Decoder] = {}
        self._waiting: queue.Queue[Request] = queue.Queue()
        self._batch = Batch(binding, binding.llama_n_batch(context), sequences)
        self._alone = False
        self.length = int(binding.llama_n_ctx_seq(context))
        self.prompt_tokens = self.generated = 0

    @property
    def running(self) -> int:
        """Requests being computed."""
        return sum(slot.request is not None for slot in self._slots)

    @property
    def waiting(self) -> int:
        """Requests without a slot."""
        return self._waiting.qsize()

    def submit(self, request: Request) -> None:
        """Hand a request in, from any thread."""
        self._waiting.put(request)

    def run(self) -> None:
        """Compute for ever."""
        while True:
            self._admit()
            wanted = self._fill()
            if wanted is None:
                continue
            status = self._binding.llama_decode(self._context, self._batch.raw)
            if status:
                self._fail(f"llama_decode returned {status} for {self._batch.used} tokens")
                continue
            for slot, place in wanted:
                self._sampled(slot, place)

    def _admit(self) -> None:
        """Give waiting requests free slots; without anything to do, wait for one."""
        while any(slot.request is None for slot in self._slots) and (self.waiting or not self.running):
            request = self._waiting.get()
            free = [slot for slot in self._slots if slot.request is None]
            slot = max(free, key=lambda s: s.common(request.tokens)) if request.cached else free[0]
            self._alone = not self.running
            self._begin(slot, request)

    def _begin(self, slot: Slot, request: Request) -> None:
        slot.started = time.perf_counter()
        keep = min(slot.common(request.tokens), len(request.tokens) - 1) if request.cached else 0
        if not self._binding.llama_memory_seq_rm(self._memory, slot.number, keep, -1):
            keep = 0
            self._binding.llama_memory_seq_rm(self._memory, slot.number, -1, -1)
        slot.request, slot.written, slot.reused = request, 0, keep
        slot.kept = slot.kept[:keep]
        slot.sampler = self._sampler(request)
        self._decoders[slot.number] = Decoder(self._text)
        if self._alone:
            self._binding.llama_perf_context_reset(self._context)

    def _sampler(self, request: Request) -> Any:
        binding = self._binding
        chain = binding.llama_sampler_chain_init(binding.llama_sampler_chain_default_params())
        if request.temperature <= 0:
            return chain
        for part in (
            binding.llama_sampler_init_top_k(_TOP_K),
            binding.llama_sampler_init_top_p(_TOP_P, 1),
            binding.llama_sampler_init_temp(request.temperature),
            binding.llama_sampler_init_dist(request.seed),
        ):
            binding.llama_sampler_chain_add(chain, part)
        return chain

    def _fill(self) -> list[tuple[Slot, int]] | None:
        """Fill the batch: the slots that want logits with their places in it; None when there is nothing to do."""
        self._batch.clear()
        wanted = []
        for slot in self._slots:
            request = slot.request
            if request is not None and request.cancelled:
                self._finish(slot, "cancelled")
            elif request is not None and slot.written:
                wanted.append((slot, self._batch.add(slot.kept[-1:], len(slot.kept) - 1, slot.number, last=True)))
        for slot in self._slots:
            request = slot.request
            room = self._batch.size - self._batch.used
            if request is None or not slot.reading or not room:
                continue
            piece = request.tokens[len(slot.kept) : len(slot.kept) + room]
            whole = len(slot.kept) + len(piece) == len(request.tokens)
            place = self._batch.add(piece, len(slot.kept), slot.number, last=whole)
            slot.kept += piece
            if whole:
                wanted.append((slot, place))
        return wanted if self._batch.used else None

    def _sampled(self, slot: Slot, place: int) -> None:
        """Take the next token of a slot and pass it on."""
        request = slot.request
        if request is None:
            return
        token = self._chosen(slot, request, place)
        slot.last = time.perf_counter()
        slot.first = slot.last if slot.written == 0 else slot.first
        slot.written += 1
        slot.kept.append(token)
        self.generated += 1
        ended = self._text.ends(token) and not request.exact
        text = "" if ended else self._decoders[slot.number].feed(token)
        request.events.put({"content": text, "tokens": [token], "stop": False})
        if ended:
            self._finish(slot, "eos")
        elif slot.written >= request.most or len(slot.kept) >= self.length:
            self._finish(slot, "limit")

    def _chosen(self, slot: Slot, request: Request, place: int) -> int:
        """The next token. The likeliest is found in the logits themselves: a sampler copies the vocabulary first."""
        if request.temperature > 0:
            return int(self._binding.llama_sampler_sample(slot.sampler, self._context, place))
        logits = self._binding.llama_get_logits_ith(self._context, place)
        return int(np.ctypeslib.as_array(logits, (self._text.size,)).argmax())

    def _finish(self, slot: Slot, why: str) -> None:
        request, decoder = slot.request, self._decoders.pop(slot.number)
        assert request is not None  # noqa: S101  only slots that serve one finish
        self._binding.llama_sampler_free(slot.sampler)
        # the last token has been chosen, not computed: it isn't in the cache
        slot.request, slot.kept = None, slot.kept[:-1] if slot.written else slot.kept
        self.prompt_tokens += len(request.tokens) - slot.reused
        request.events.put({
            "content": decoder.rest(),
            "tokens": [],
            "stop": True,
            "stop_type": why,
            "tokens_evaluated": len(request.tokens),
            "tokens_predicted": slot.written,
            "timings": self._timings(slot, len(request.tokens)),
        })  # fmt: skip
        request.events.put(None)

    def _timings(self, slot: Slot, prompt: int) -> dict[str, float]:
        """The times of a request, as llama-server tells them; and llama.cpp's own when nothing else ran."""
        steps, read = max(0, slot.written - 1), prompt - slot.reused
        prompt_ms, predicted_ms = (slot.first - slot.started) * 1e3, (slot.last - slot.first) * 1e3
        times = {
            "cache_n": slot.reused,
            "prompt_n": read,
            "prompt_ms": prompt_ms,
            "predicted_n": slot.written,
            "predicted_ms": predicted_ms,
            "predicted_per_token_ms": predicted_ms / steps if steps else 0.0,
        }
        if self._alone and not self.running:
            own = self._binding.llama_perf_context(self._context)
            times |= {"perf_prompt_n": own.n_p_eval, "perf_prompt_ms": own.t_p_eval_ms}
            times |= {"perf_predicted_n": own.n_eval, "perf_predicted_ms": own.t_eval_ms}
        return times

    def _fail(self, why: str) -> None:
        """Give up all that was in the batch; the cache is emptied."""
        self._binding.llama_memory_clear(self._memory, True)
        for slot in self._slots:
            slot.kept = []
            if slot.request is not None:
                slot.request.events.put({"error": {"message": why, "code": 500}})
                slot.request.events.put(None)
                slot.request = None
