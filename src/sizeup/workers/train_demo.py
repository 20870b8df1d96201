"""Worker: train a small code model on the Python standard library's source, with a tokenizer trained the same way.

    job      {"folder": where to write and to keep what is unfinished, "minutes": time to train, "threads", "seed",
              "config": {config.json of a Llama, but for the vocabulary}, "vocabulary": tokens,
              "held_out": [file names that are neither trained on nor seen by the tokenizer]}
    events   progress {done, all (seconds), what}
    results  {"loss" (nats a token on held-out text), "tokens" trained on, "steps", "parameters", "files"}

The learning rate follows the clock, so that training always ends in time: a slow machine makes a worse model, not a
longer wait. Matrices inside the layers are trained with Muon (Jordan 2024), the rest with AdamW. What is trained so
far is saved every half minute; the same job in the same folder goes on from there.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from sizeup.workers.demo_corpus import Corpus, corpus
from sizeup.workers.protocol import Refused, Say, answer

END = "<|endoftext|>"
#: Short stretches first: cheap, and most of what there is to learn. Long ones at the end teach far positions.
BATCH_TOKENS, SHORT, LONG, LONG_SHARE = 2048, 256, 1024, 0.1
RATE, DECAY, WARM_UP_SHARE, LEAST_SHARE = 4e-3, 0.05, 0.03, 0.02
HELD_OUT_BATCHES = 8
SAVE_SECONDS = 30.0
TOKENIZER, UNFINISHED = "tokenizer.json", "unfinished.safetensors"


def train_tokenizer(texts: list[str], size: int) -> Any:
    """A byte-level BPE tokenizer with GPT-2's way to split text, which llama.cpp knows as `gpt-2`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encoded(tokenizer: Any, texts: list[str]) -> Any:
    """All texts as one row of token ids, each begun with the end-of-text token."""
    import torch

    end = tokenizer.token_to_id(END)
    ids: list[int] = []
    for one in tokenizer.encode_batch(texts):
        ids += [end, *one.ids]
    return torch.tensor(ids, dtype=torch.long)


def rate_share(share: float) -> float:
    """The learning rate at a share of the time: a short rise, then a straight fall."""
    if share < WARM_UP_SHARE:
        return max(LEAST_SHARE, share / WARM_UP_SHARE)
    return max(LEAST_SHARE, 1 - (share - WARM_UP_SHARE) / (1 - WARM_UP_SHARE))


def windows(tokens: Any, chooser: random.Random, length: int) -> Any:
    """A batch of stretches from random places."""
    import torch

    starts = [chooser.randrange(len(tokens) - length) for _ in range(BATCH_TOKENS // length)]
    return torch.stack([tokens[start : start + length] for start in starts])


class Training:
    """Weights in training, with the momenta of their optimizers, how many steps and seconds it took so far."""

    def __init__(self, config: dict[str, Any], seed: int, key: str) -> None:
        import torch

        from sizeup.workers.demo_model import Shape, fastest_dtype, fresh, is_matrix

        self.shape, self.seed, self.key = Shape(config), seed, key
        self.dtype = fastest_dtype()
        self.steps, self.seconds = 0, 0.0
        self.weights = fresh(self.shape, seed)
        for weight in self.weights.values():
            weight.requires_grad_()
        self.momenta = {name: torch.zeros_like(w) for name, w in self.weights.items() if is_matrix(name)}
        others = [weight for name, weight in self.weights.items() if name not in self.momenta]
        self._adam = torch.optim.AdamW(others, lr=RATE, betas=(0.9, 0.95), weight_decay=0.0, foreach=True)

    def step(self, batch: Any, rate: float) -> float:
        """One step; the loss before it."""
        from sizeup.workers.demo_model import loss_of, muon

        loss = loss_of(self.weights, self.shape, batch, self.dtype)
        loss.backward()
        muon(self.weights, self.momenta, rate, DECAY, self.dtype)
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()
        for weight in self.weights.values():
            weight.grad = None
        self.steps += 1
        return float(loss.item())

    def save(self, path: Path) -> None:
        """Everything that is needed to go on, in one file that appears whole."""
        from safetensors.torch import save_file

        adam = self._adam.state_dict()["state"]
        tensors = {f"weight.{name}": weight.detach() for name, weight in self.weights.items()}
        tensors |= {f"momentum.{name}": momentum for name, momentum in self.momenta.items()}
        tensors |= {f"adam.{place}.{name}": value for place, state in adam.items() for name, value in state.items()}
        about = {"key": self.key, "steps": str(self.steps), "seconds": str(self.seconds)}
        half = path.with_suffix(".part")
        save_file(tensors, str(half), metadata=about)
        half.replace(path)

    def restore(self, path: Path) -> bool:
        """Go on from what was saved, if that was the same training."""
        import torch
        from safetensors import safe_open

        if not path.is_file():
            return False
        with safe_open(str(path), "pt") as file:
            about = file.metadata() or {}
            if about.get("key") != self.key:
                return False
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
        with torch.no_grad():
            for prefix, kept in (("weight", self.weights), ("momentum", self.momenta)):
                for name, tensor in kept.items():
                    tensor.copy_(tensors[f"{prefix}.{name}"])
        state: dict[int, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            if name.startswith("adam."):
                _, place, value = name.split(".")
                state.setdefault(int(place), {})[value] = tensor
        self._adam.load_state_dict(self._adam.state_dict() | {"state": state})
        self.steps, self.seconds = int(about["steps"]), float(about["seconds"])
        return True


def train(training: Training, tokens: Any, seconds: float, path: Path, say: Say) -> None:
    """Train until the time is up, and save what there is from time to time; end with whoever started this."""
    began, saved = time.monotonic() - training.seconds, time.monotonic()
    average, host = 0.0, os.getppid()
    while (spent := time.monotonic() - began) < seconds:
        share = spent / seconds
        chooser = random.Random(f"{training.seed} {training.steps}")  # noqa: S311  places in a text
        batch = windows(tokens, chooser, SHORT if share < 1 - LONG_SHARE else LONG)
        loss = training.step(batch, RATE * rate_share(share))
        average = loss if not average else 0.95 * average + 0.05 * loss
        training.seconds = time.monotonic() - began
        if os.getppid() != host:
            training.save(path)
            raise Refused("failed", "the program that started the training is gone")
        if time.monotonic() - saved > SAVE_SECONDS:
            training.save(path)
            saved = time.monotonic()
        speed = training.steps * BATCH_TOKENS / max(training.seconds, 1e-9)
        say("progress", done=min(spent, seconds), all=seconds,
            what=f"training: loss {average:.2f}, {training.steps} steps, {speed:,.0f} tokens/s")  # fmt: skip


def held_out_loss(training: Training, tokens: Any) -> float:
    """The loss on text that was held out."""
    import torch

    from sizeup.workers.demo_model import loss_of

    chooser = random.Random(0)  # noqa: S311
    with torch.no_grad():
        losses = [
            loss_of(training.weights, training.shape, windows(tokens, chooser, SHORT), training.dtype).item()
            for _ in range(HELD_OUT_BATCHES)
        ]
    return float(sum(losses) / len(losses))


def _tokenizer(job: dict[str, Any], texts: Corpus, path: Path, key: str) -> Any:
    """The tokenizer of the unfinished training, else a new one. The training's key is kept beside it."""
    from tokenizers import Tokenizer

    note = path.with_suffix(".key")
    if path.is_file() and note.is_file() and note.read_text() == key:
        return Tokenizer.from_file(str(path))
    tokenizer = train_tokenizer(texts.trained, job["vocabulary"])
    tokenizer.save(str(path))
    note.write_text(key)
    return tokenizer


def work(job: dict[str, Any], say: Say) -> None:
    """Train, and write config.json, model.safetensors (half precision) and tokenizer.json."""
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "PASSIVE"}
    import torch
    from safetensors.torch import save_file

    from sizeup.workers.demo_model import checkpoint

    torch.set_num_threads(job["threads"])
    seconds, folder = job["minutes"] * 60, Path(job["folder"])
    say("progress", done=0, all=seconds, what="reading the standard library")
    texts = corpus(frozenset(job["held_out"]), job["seed"])
    key = json.dumps([texts.digest, *(job[name] for name in ("seed", "vocabulary", "config"))], sort_keys=True)
    say("progress", done=0, all=seconds, what="training the tokenizer")
    tokenizer = _tokenizer(job, texts, folder / TOKENIZER, key)
    end = tokenizer.token_to_id(END)
    config = job["config"] | {"vocab_size": tokenizer.get_vocab_size(), "bos_token_id": end, "eos_token_id": end}
    training = Training(config, job["seed"], key)
    unfinished = folder / UNFINISHED
    if training.restore(unfinished):
        say("progress", done=training.seconds, all=seconds, what=f"going on after {training.steps} steps")
    train(training, encoded(tokenizer, texts.trained), seconds, unfinished, say)
    loss = held_out_loss(training, encoded(tokenizer, texts.held_out))
    save_file(checkpoint(training.weights), str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    for path in (unfinished, (folder / TOKENIZER).with_suffix(".key")):
        path.unlink(missing_ok=True)
    say(
        "result",
        loss=loss,
        steps=training.steps,
        tokens=training.steps * BATCH_TOKENS,
        parameters=sum(weight.numel() for weight in training.weights.values()),
        files=texts.files,
    )


if __name__ == "__main__":
    sys.exit(answer(work))
