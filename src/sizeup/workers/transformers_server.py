"""A server around a model of transformers: `python transformers_server.py JOB`. It needs torch and transformers.

    job     {"folder": path, "host", "port", "context": tokens, "threads": count or null}
    routes  those of `server_http.py`

A folder with weights is loaded in the type that they are stored in; one with a config.json alone gets random weights
in bfloat16. Code that comes with a model is never run. Requests are computed one after the other.
"""

from __future__ import annotations

import json
import queue
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from sizeup.workers.server_http import App, Request, listen

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


class Text:
    """The folder's tokenizer; without one there are ids only."""

    def __init__(self, tokenizer: Any, size: int) -> None:
        self.tokenizer, self.size = tokenizer, size

    def tokens(self, text: str) -> list[int]:
        """The ids of a text. Raises ValueError without a tokenizer."""
        return list(self._known().encode(text))

    def chat(self, messages: Any) -> list[int]:
        """The ids of a chat in the model's template, else its contents by lines."""
        tokenizer = self._known()
        if not getattr(tokenizer, "chat_template", None):
            return self.tokens("\n".join(str(message["content"]) for message in messages))
        return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))

    def words(self, tokens: list[int]) -> str:
        """The text of some ids; empty without a tokenizer."""
        return self.tokenizer.decode(tokens, skip_special_tokens=True) if self.tokenizer is not None else ""

    def _known(self) -> Any:
        if self.tokenizer is None:
            raise ValueError("this model has no tokenizer: give token ids")
        return self.tokenizer


class Slots:
    """One sequence at a time: reads its prompt, then computes a token after the other."""

    running = 0

    def __init__(self, torch: Any, model: Any, text: Text, length: int, ends: set[int]) -> None:
        self._torch, self._model, self._text, self._ends = torch, model, text, ends
        self._waiting: queue.Queue[Request] = queue.Queue()
        self._kept: list[int] = []
        self._cache: Any = None
        self.length = length
        self.prompt_tokens = self.generated = 0

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return self._waiting.qsize()

    def submit(self, request: Request) -> None:
        """Hand a request in, from any thread."""
        self._waiting.put(request)

    def run(self) -> None:
        """Compute for ever."""
        while True:
            request = self._waiting.get()
            self.running = 1
            try:
                with self._torch.inference_mode():
                    self._answer(request)
            except Exception as error:
                self._kept, self._cache = [], None
                request.events.put({"error": {"message": f"{type(error).__name__}: {error}"[:500], "code": 500}})
            request.events.put(None)
            self.running = 0

    def _answer(self, request: Request) -> None:
        since = time.perf_counter()
        reused = self._reuse(request)
        tokens, said, why = request.tokens, "", "limit"
        new: list[int] = []
        logits = self._step(tokens[reused:])
        first = last = since
        while not request.cancelled:
            token = self._chosen(logits, request)
            last = time.perf_counter()
            first = last if not new else first
            new.append(token)
            self.generated += 1
            if token in self._ends and not request.exact:
                why = "eos"
            whole = self._text.words(new) if why == "limit" else said
            piece = "" if whole.endswith("\N{REPLACEMENT CHARACTER}") else whole[len(said) :]
            said += piece
            request.events.put({"content": piece, "tokens": [token], "stop": False})
            if why == "eos" or len(new) >= request.most or len(tokens) + len(new) >= self.length:
                break
            logits = self._step([token])
        self._kept = (tokens + new)[: len(tokens) + max(0, len(new) - 1)]
        self.prompt_tokens += len(tokens) - reused
        request.events.put(_last(why, len(tokens), reused, new, (first - since, last - first)))

    def _reuse(self, request: Request) -> int:
        """How many tokens at the beginning are in the cache already; what is behind them is cut off."""
        same = 0
        if request.cached and self._cache is not None:
            while same < min(len(self._kept), len(request.tokens) - 1) and self._kept[same] == request.tokens[same]:
                same += 1
        if same:
            same = self._cut(same)
        if not same:
            self._cache = None
        return same

    def _cut(self, length: int) -> int:
        """Cut the cache to this length; 0 when its layers can't be cut (windows, recurrent states)."""
        try:
            if surplus := self._cache.get_seq_length() - length:
                self._cache.crop(-surplus)
        except Exception:
            return 0
        return length

    def _step(self, tokens: list[int]) -> Any:
        """The logits behind these tokens."""
        ids = self._torch.tensor([tokens], device=self._model.device)
        out = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._cache = out.past_key_values
        return out.logits[0, -1]

    def _chosen(self, logits: Any, request: Request) -> int:
        if request.temperature <= 0:
            return int(logits.argmax())
        likely = self._torch.softmax(logits.float() / request.temperature, -1)
        return int(self._torch.multinomial(likely, 1))


def _last(why: str, prompt: int, reused: int, new: list[int], seconds: tuple[float, float]) -> dict[str, Any]:
    """The last event of a request, with its times as llama-server tells them."""
    steps = max(0, len(new) - 1)
    timings = {
        "cache_n": reused,
        "prompt_n": prompt - reused,
        "prompt_ms": seconds[0] * 1e3,
        "predicted_n": len(new),
        "predicted_ms": seconds[1] * 1e3,
        "predicted_per_token_ms": seconds[1] * 1e3 / steps if steps else 0.0,
    }
    told = {"content": "", "tokens": [], "stop": True, "stop_type": why, "timings": timings}
    return told | {"tokens_evaluated": prompt, "tokens_predicted": len(new)}


def _loaded(torch: Any, folder: Path) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if any(next(folder.glob(pattern), None) for pattern in _WEIGHTS):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", use_safetensors=True)
    else:
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    return model.eval().to(device)


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    named = [path for path in folder.iterdir() if path.name.startswith(("tokenizer", "vocab", "spiece"))]
    return AutoTokenizer.from_pretrained(folder) if named else None


def serve(job: dict[str, Any]) -> None:
    """Load the model and serve it until the process ends."""
    import torch
    import transformers

    if job.get("threads"):
        torch.set_num_threads(job["threads"])
    folder = Path(job["folder"])
    model = _loaded(torch, folder)
    text = Text(_tokenizer(folder), model.get_input_embeddings().num_embeddings)
    ends = model.generation_config.eos_token_id if model.generation_config else None
    known = {ends} if isinstance(ends, int) else set(ends or ())
    slots = Slots(torch, model, text, job["context"], known)
    version = f"transformers {transformers.__version__}, torch {torch.__version__}"
    props = {"engine": "transformers", "build_info": version, "n_ctx": slots.length}
    listen(App(folder.name, text, slots, props, "transformers"), job["host"], job["port"])
    slots.run()


def main() -> int:
    """Serve the job in the first argument."""
    try:
        serve(json.loads(sys.argv[1]))
    except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
