"""Loss on a text, and what quantization changed: perplexity, KL divergence and top-1 agreement with a reference.

    loss L          mean of −ln p(token) over the scored tokens, in nats
    perplexity      e^L
    divergence      mean of Σ p_ref · ln(p_ref / p) over the scored tokens, in nats
    agreement       share of the tokens for which both think the same token likeliest

Standard errors are those of the means of stretches, which are nearly independent; tokens beside each other aren't.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.simulate import context_parameters, load_parameters
from sizeup.errors import SizeupError
from sizeup.measure.quality.statistics import mean_and_error
from sizeup.measure.quality.texts import Text
from sizeup.measure.simulation import worker_python
from sizeup.progress import tell
from sizeup.workers.host import run_worker


class Estimated(msgspec.Struct, frozen=True):
    """A mean with its standard error; None for the error of a single stretch."""

    value: float
    error: float | None


class LossReport(msgspec.Struct, frozen=True):
    """A model's loss on a text. tokens: that were scored. version: of llama.cpp's package.

    reference: its file's name, with its format; the last four are only there beside one. apart: the two were loaded
    one after the other, for want of memory. loss_rise: the model's loss less the
    reference's, stretch by stretch, which is surer than the difference of two losses.
    """

    text: str
    digest: str
    length: int
    stretches: int
    tokens: int
    version: str
    trained_length: int
    loss: Estimated
    reference: str = ""
    reference_format: str = ""
    reference_loss: Estimated | None = None
    loss_rise: Estimated | None = None
    divergence: Estimated | None = None
    agreement: Estimated | None = None
    apart: bool = False

    @property
    def perplexity(self) -> Estimated:
        """e^loss; its error is e^loss · error, to first order."""
        return _exponential(self.loss)

    @property
    def reference_perplexity(self) -> Estimated | None:
        """The reference's perplexity on the same tokens."""
        return None if self.reference_loss is None else _exponential(self.reference_loss)


class Reference(msgspec.Struct, frozen=True):
    """What a model is compared with. format: of its weights. gpu_layers: on the GPUs.

    apart: where to keep its logits, when it is loaded before the model rather than beside it.
    """

    path: Path
    format: str = ""
    gpu_layers: int | None = None
    apart: Path | None = None


class Wanted(msgspec.Struct, frozen=True):
    """How the text is read. length: tokens of a stretch. stretches: at most."""

    length: int = 512
    stretches: int = 64
    threads: int = 2
    gpu_layers: int | None = None
    cache_k: str = "f16"
    cache_v: str = "f16"
    flash_attention: str = "auto"
    timeout: float = 24 * 3600.0


def measure_loss(gguf: Path, text: Text, wanted: Wanted, reference: Reference | None = None) -> LossReport:
    """Compute it in a worker with llama-cpp-python.

    Raises MissingPart without it, BadConfig for vocabularies that differ or a text too short, BadFile for a bad file.
    """
    found: list[dict[str, Any]] = []

    def hear(event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            tell(event["what"], event["done"], event["all"])
        elif event["event"] == "result":
            found.append(event)

    tell("loading the model")
    with _kept(reference) as kept:
        job = {
            "gguf": str(gguf),
            "reference": str(reference.path) if reference else None,
            "kept": str(kept) if kept else None,
            "text": text.content,
            "length": wanted.length,
            "stretches": wanted.stretches,
            **_parameters(wanted, reference),
        }
        run_worker("llamacpp_logits.py", job, python=worker_python(), timeout=wanted.timeout, on_event=hear)
    return report(found, text, wanted, reference)


@contextlib.contextmanager
def _kept(reference: Reference | None) -> Iterator[Path | None]:
    """A file for the reference's logits in the folder that it names, gone at the end of the block."""
    if reference is None or reference.apart is None:
        yield None
        return
    reference.apart.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="logits-", dir=reference.apart) as folder:
        yield Path(folder, "reference")


def logits_bytes(wanted: Wanted, vocabulary: int) -> int:
    """Bytes of a reference's logits on disk, at most: stretches · ⌊length / 2⌋ · vocabulary · 4."""
    return wanted.stretches * (wanted.length // 2) * vocabulary * 4


def report(results: Iterable[dict[str, Any]], text: Text, wanted: Wanted, reference: Reference | None) -> LossReport:
    """The worker's results in one report. Raises SizeupError when it scored nothing."""
    about: dict[str, Any] = {}
    parts: list[dict[str, Any]] = []
    for result in results:
        if result["part"] == "text":
            about = result
        else:
            parts.append(result)
    if not parts:
        raise SizeupError("the worker scored no token", hint="give a longer text")
    beside = {}
    if reference:
        beside = {name: _mean(part[name] for part in parts) for name in ("reference_loss", "divergence", "agreement")}
        beside["loss_rise"] = _mean(part["loss"] - part["reference_loss"] for part in parts)
    return LossReport(
        text=text.name,
        digest=text.digest,
        length=wanted.length,
        stretches=len(parts),
        tokens=sum(part["scored"] for part in parts),
        version=about["version"],
        trained_length=about["trained_length"],
        loss=_mean(part["loss"] for part in parts),
        reference=reference.path.name if reference else "",
        reference_format=reference.format if reference else "",
        apart=bool(reference and reference.apart),
        **beside,
    )


def _mean(values: Iterable[float]) -> Estimated:
    listed: Sequence[float] = list(values)
    return Estimated(*mean_and_error(listed))


def _exponential(loss: Estimated) -> Estimated:
    value = math.exp(loss.value)
    return Estimated(value, None if loss.error is None else value * loss.error)


def loss_setting(wanted: Wanted) -> LlamaSetting:
    """What llama.cpp is told: every token of a stretch may be asked for (`outputs=0`), in one batch."""
    return LlamaSetting(
        format="",
        context=wanted.length,
        batch=wanted.length,
        gpu_layers=wanted.gpu_layers,
        cache_k=wanted.cache_k,
        cache_v=wanted.cache_v,
        flash_attention=wanted.flash_attention,
        outputs=0,
    )


def _parameters(wanted: Wanted, reference: Reference | None) -> dict[str, Any]:
    setting = loss_setting(wanted)
    other = msgspec.structs.replace(setting, gpu_layers=reference.gpu_layers) if reference else setting
    threads = {"n_threads": wanted.threads, "n_threads_batch": wanted.threads}
    return {
        "model": load_parameters(setting),
        "reference_model": load_parameters(other),
        "context": context_parameters(setting) | threads,
    }
