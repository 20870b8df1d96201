"""Worker: train a small code model on the Python standard library's source, with a tokenizer trained the same way.

    job      {"folder": where to write, "minutes": time to train, "threads", "seed", "config": {LlamaConfig fields …},
              "vocabulary": tokens, "held_out": [file names that are neither trained on nor seen by the tokenizer]}
    events   progress {done, all (seconds), what}
    results  {"loss" (nats a token on held-out text), "tokens" trained on, "steps", "parameters", "files"}

The learning rate follows the clock, so that training always ends in time: a slow machine makes a worse model, not a
longer wait. Matrices inside the layers are trained with Muon (Jordan 2024; torch.optim.Muon), the rest with AdamW.
"""

from __future__ import annotations

import os
import random
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from sizeup.workers.protocol import Refused, Say, answer

END = "<|endoftext|>"
#: Short stretches first: cheap, and most of what there is to learn. Long ones at the end teach far positions.
BATCH_TOKENS, SHORT, LONG, LONG_SHARE = 2048, 256, 1024, 0.2
RATE, WARM_UP_SHARE, LEAST_SHARE = 4e-3, 0.04, 0.02
HELD_OUT_BATCHES = 8
MAX_FILE_BYTES = 150_000
#: Tables, generated code and tests teach little.
SKIPPED = frozenset({"test", "tests", "idlelib", "encodings", "site-packages", "pydoc_data", "lib2to3", "turtledemo",
                     "ensurepip", "idle_test", "__pycache__"})  # fmt: skip


def sources(held_out: frozenset[str]) -> tuple[list[str], list[str]]:
    """The standard library's files as text: those to train on, and those held out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    trained: list[str] = []
    kept: list[str] = []
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if SKIPPED & set(inside.parts) or path.stat().st_size > MAX_FILE_BYTES:
            continue
        text = code_of(path.read_text(encoding="utf-8", errors="replace"))
        (kept if str(inside) in held_out else trained).append(text)
    if not trained or not kept:
        raise Refused("missing", f"no source of the standard library in {root}")
    return trained, kept


def code_of(text: str) -> str:
    """A source without its whole-line comments: licences and banners teach no code."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.lstrip().startswith("#"))


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
    for text in texts:
        ids += [end, *tokenizer.encode(text).ids]
    return torch.tensor(ids, dtype=torch.long)


def optimizers(model: Any) -> list[Any]:
    """Muon for the layers' matrices, AdamW for embeddings and norms."""
    import torch

    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    muon = torch.optim.Muon(matrices, lr=RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(rest, lr=RATE, betas=(0.9, 0.95), weight_decay=0.0)
    return [muon, adam]


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


def loss_of(model: Any, batch: Any) -> Any:
    """Mean cross entropy of the next token, in nats, computed in bfloat16."""
    import torch

    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model(input_ids=batch, labels=batch).loss


def train(model: Any, tokens: Any, seconds: float, seed: int, say: Say) -> int:
    """Train until the time is up; returns the steps made."""
    chooser = random.Random(seed)  # noqa: S311  places in a text
    made = optimizers(model)
    began, steps = time.monotonic(), 0
    while (spent := time.monotonic() - began) < seconds:
        for optimizer in made:
            for group in optimizer.param_groups:
                group["lr"] = RATE * rate_share(spent / seconds)
        length = SHORT if spent / seconds < 1 - LONG_SHARE else LONG
        loss = loss_of(model, windows(tokens, chooser, length))
        loss.backward()
        for optimizer in made:
            optimizer.step()
            optimizer.zero_grad()
        steps += 1
        say("progress", done=spent, all=seconds, what=f"training: loss {loss.item():.2f} after {steps} steps")
    return steps


def held_out_loss(model: Any, tokens: Any) -> float:
    """The loss on text that was held out."""
    import torch

    chooser = random.Random(0)  # noqa: S311
    with torch.no_grad():
        losses = [loss_of(model, windows(tokens, chooser, SHORT)).item() for _ in range(HELD_OUT_BATCHES)]
    return float(sum(losses) / len(losses))


def work(job: dict[str, Any], say: Say) -> None:
    """Train, and write config.json, model.safetensors (half precision) and tokenizer.json."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "PASSIVE"}
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    say("progress", done=0, all=job["minutes"] * 60, what="training the tokenizer")
    trained, kept = sources(frozenset(job["held_out"]))
    tokenizer = train_tokenizer(trained, job["vocabulary"])
    end = tokenizer.token_to_id(END)
    config = transformers.LlamaConfig(
        **job["config"], vocab_size=tokenizer.get_vocab_size(), bos_token_id=end, eos_token_id=end
    )
    model = transformers.LlamaForCausalLM(config)
    steps = train(model, encoded(tokenizer, trained), job["minutes"] * 60, job["seed"], say)
    loss = held_out_loss(model, encoded(tokenizer, kept))
    folder = Path(job["folder"])
    model.half().save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    parameters = sum(p.numel() for p in model.parameters())
    say(
        "result",
        loss=loss,
        steps=steps,
        tokens=steps * BATCH_TOKENS,
        parameters=parameters,
        files=len(trained),
    )


if __name__ == "__main__":
    sys.exit(answer(work))
