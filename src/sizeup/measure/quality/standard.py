"""Standard tasks, handed over to lm-evaluation-harness in its own environment.

It talks to the server that is being judged, over OpenAI's API. Source: docs/API_guide.md and docs/interface.md of
lm-evaluation-harness 0.4.9; tried with 0.4.13.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from sizeup.engines.protocol import Endpoint
from sizeup.errors import MissingPart, SizeupError
from sizeup.workers.host import environments_folder

VARIABLE = "SIZEUP_LM_EVAL"
PROGRAM = "lm_eval"
ENVIRONMENT = "lm-eval"
_HINT = (
    f"python -m venv ENV && ENV/bin/pip install 'lm_eval[api]', then set {VARIABLE} to ENV/bin/{PROGRAM} "
    f"(or have {PROGRAM} on the path)"
)

#: What the harness says of tasks that compare likelihoods, to a server of completions and to one of chats.
_LIKELIHOODS = ("Tokenizer is required for loglikelihood", "Loglikelihood is not supported for chat completions")


class TaskScore(msgspec.Struct, frozen=True):
    """One metric of one task as the harness reports it. error: its standard error; None where it gives none."""

    task: str
    metric: str
    value: float
    error: float | None


def harness() -> str:
    """The harness's program: SIZEUP_LM_EVAL, sizeup's own environment, the path. Raises MissingPart."""
    named = os.environ.get(VARIABLE)
    if named and not Path(named).is_file():
        raise MissingPart(f"{VARIABLE} names {named!r}, which isn't there", hint=f"correct or unset {VARIABLE}")
    made = environments_folder() / ENVIRONMENT / "bin" / PROGRAM
    found = named or (str(made) if made.is_file() else shutil.which(PROGRAM))
    if not found:
        raise MissingPart("standard tasks need lm-evaluation-harness, which is not installed here", hint=_HINT)
    return found


def command(
    program: str, endpoint: Endpoint, tasks: Sequence[str], *, chat: bool, limit: int | None, output: str
) -> list[str]:
    """What is run: one request at a time, results as JSON.

    The server makes tokens of the text, so the harness needs no tokenizer (it would look for one on a hub). Tasks that
    compare likelihoods need one, and the probabilities of a prompt's tokens, which most servers don't give.
    """
    route = "chat/completions" if chat else "completions"
    kind = "local-chat-completions" if chat else "local-completions"
    options = ("num_concurrent=1", "tokenizer_backend=none", "tokenized_requests=False")
    arguments = ",".join((f"base_url={endpoint.url}/v1/{route}", f"model={endpoint.model}", *options))
    found = [program, "--model", kind, "--model_args", arguments, "--tasks", ",".join(tasks), "--output_path", output]
    found += ["--apply_chat_template"] if chat else []
    return found + (["--limit", str(limit)] if limit else [])


def run_tasks(
    endpoint: Endpoint, tasks: Sequence[str], *, chat: bool, limit: int | None
) -> tuple[tuple[TaskScore, ...], list[str]]:
    """Run the harness: its scores, and the command. Raises MissingPart, and SizeupError with its last words."""
    program = harness()
    with tempfile.TemporaryDirectory(prefix="sizeup-lm-eval-") as folder:
        line = command(program, endpoint, tasks, chat=chat, limit=limit, output=folder)
        environment = os.environ | {"OPENAI_API_KEY": endpoint.key or "none"}
        done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise _failure(done.returncode, done.stderr or done.stdout, line)
        return read_results(Path(folder)), line


def _failure(status: int, said: str, line: Sequence[str]) -> SizeupError:
    """The harness's last words; one sentence for tasks that no server can do."""
    if any(words in said for words in _LIKELIHOODS):
        return SizeupError(
            "one of these tasks compares likelihoods: the server would have to give those of a prompt's tokens",
            hint="choose tasks that generate: gsm8k, ifeval, humaneval",
        )
    last = (said.strip().splitlines() or ["it said nothing"])[-1]
    return SizeupError(f"{PROGRAM} ended with status {status}: {last[:300]}", hint=f"run it: {' '.join(line)}")


def read_results(folder: Path) -> tuple[TaskScore, ...]:
    """The scores in the newest results_*.json below a folder. Raises SizeupError when there is none."""
    files = sorted(folder.rglob("results_*.json"))
    if not files:
        raise SizeupError(f"{PROGRAM} left no results", hint="look at its output")
    results: dict[str, dict[str, Any]] = msgspec.json.decode(files[-1].read_bytes())["results"]
    return tuple(
        TaskScore(task, metric, float(value), _error(values, metric))
        for task, values in sorted(results.items())
        for metric, value in values.items()
        if isinstance(value, int | float) and "," in metric and not metric.partition(",")[0].endswith("_stderr")
    )


def _error(values: dict[str, Any], metric: str) -> float | None:
    name, _, filter_ = metric.partition(",")
    found = values.get(f"{name}_stderr,{filter_}")
    return float(found) if isinstance(found, int | float) else None
