"""Fit the speed model on published rows, and judge it on hardware (vLLM: models) that the fit has not seen.

    python scripts/fit_speed.py TRUTH [--write] [--held-back]

Residuals are log(predicted / measured) under a soft L1 loss; every parameter is a logarithm with a prior that says what
is physically plausible, which keeps those that few rows speak of near it.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from scipy.optimize import least_squares

sys.path.insert(0, str(Path(__file__).parent))
import speed_rows

from sizeup.estimate.speed.ceilings import ceilings
from sizeup.estimate.speed.parameters import Engine, Parameters, Spread, Stack, parameters
from sizeup.estimate.speed.passes import Rates, pass_seconds
from sizeup.estimate.speed.work import PACKINGS, Work, family
from sizeup.measure.speed_accuracy import HeldBack, parameters_digest

SOURCE = Path(__file__).parents[1] / "src/sizeup"
OUT = SOURCE / "estimate/speed/parameters.json"
HELD = SOURCE / "measure/data/speed_held_back.json"
STACKS = ("cuda", "rocm", "vulkan", "metal", "mlx", "vllm", "llamafile-rocm")
ENGINES = ("llama.cpp", "ollama", "lmstudio", "llamafile", "mlx", "vllm", "vllm<0.7", "sglang")
#: How far off a usual row is, in log: what the loss is scaled by.
NOISE_DECODE, NOISE_PROMPT = 0.15, 0.22
LOCALSCORE = speed_rows.LOCALSCORE

#: name → (prior, standard deviation of its logarithm), for each stack.
STACK_PRIORS = {
    "streaming": (0.80, 0.2), "cache_streaming": (0.60, 0.2), "kernel_seconds": (3e-6, 1.0), "matrix": (0.5, 0.5),
    "plain_matrix": (0.55, 0.4), "scaling": (0.25, 0.7), "attention": (0.3, 0.4), "passing": (0.6, 0.5),
}  # fmt: skip
UNPACK_PRIORS = {"plain": 0.5, "legacy": 2.5, "k": 3.5, "codebook": 6.0, "float4": 3.0, "integer": 3.0}
RESCALE_PRIORS = {"legacy": 1.0, "k": 1.3, "codebook": 1.3, "float4": 1.0, "integer": 1.0}
#: No published row speaks of these; values of the nearest relative. Processors: scripts/fit_processor.py.
UNSEEN = {"sycl": "vulkan"}


class Vector:
    """Names and places in the vector of logarithms."""

    def __init__(self, generations: list[str]) -> None:
        self.names: dict[str, int] = {}
        self.prior: list[float] = []
        self.width: list[float] = []
        for stack in STACKS:
            for name, (value, width) in STACK_PRIORS.items():
                free = stack == "llamafile-rocm" and name == "cache_streaming"
                self.add(f"{stack}.{name}", value, 1.0 if free else width)
        for name, value in UNPACK_PRIORS.items():
            self.add(f"unpack.{name}", value, 0.6)
        for name in generations:
            self.add(f"generation.{name}", 1.0, 0.3 if name == "Pascal" else 0.08)
            self.add(f"prompt_generation.{name}", 1.0, 0.3)
        for name in ENGINES:
            self.add(f"{name}.token", {"ollama": 6e-4, "llamafile": 1.2e-3, "vllm<0.7": 3e-3}.get(name, 3e-4), 1.0)
            self.add(f"{name}.factor", 1.0, 1e-3 if name in {"llama.cpp", "mlx", "vllm", "vllm<0.7"} else 0.1)
            self.add(f"{name}.prompt", 1.0, 1e-3 if name in {"llama.cpp", "mlx", "vllm", "vllm<0.7"} else 0.3)
        self.add("expert_reading", 1.2, 0.3)
        self.add("expert_computing", 1.8, 0.5)
        self.add("all_reduce", 2e-5, 0.7)
        self.add("without_flash", 1.1, 0.01)  # the same card and build with and without: 1.04 to 1.2
        for name, value in RESCALE_PRIORS.items():
            self.add(f"rescale.{name}", value, 0.001 if name == "legacy" else 0.4)
        self.start = np.array(self.prior)
        self.widths = np.array(self.width)

    def add(self, name: str, value: float, width: float) -> None:
        """One more parameter, with its prior."""
        self.names[name] = len(self.prior)
        self.prior.append(np.log(value))
        self.width.append(width)

    def take(self, x: Any, names: list[str]) -> Any:
        """The values of these parameters."""
        return np.exp(x[[self.names[name] for name in names]])


def stack_of(row: Any) -> str:
    if row.engine == "llamafile" and row.backend == "rocm":
        return "llamafile-rocm"  # kernels of its own in place of rocBLAS, attention not fused
    return {"mlx": "mlx", "vllm": "vllm", "sglang": "vllm"}.get(row.engine, row.backend)


def engine_of(row: Any) -> str:
    return "vllm<0.7" if row.old else row.engine


class Table:
    """Rows as arrays, and their predicted seconds for a vector of parameters."""

    def __init__(self, rows: list[Any], vector: Vector) -> None:
        self.rows, self.vector = rows, vector
        tops = [ceilings(row.device.device(row.device.memory_bytes or 1 << 34), stack_of(row)) for row in rows]
        self.top = {name: np.array([getattr(t, name) for t in tops]) for name in
                    ("bandwidth", "vector", "integer", "packed_matrix", "plain_matrix")}  # fmt: skip
        self.stacks = [stack_of(row) for row in rows]
        self.generation = [row.device.arch for row in rows]
        self.engine = [engine_of(row) for row in rows]
        self.decode = _works([row.work for row in rows])
        self.prompt = _works([row.prompt for row in rows])
        self.flash = np.array([row.flash for row in rows])
        self.passes = np.array([row.passes for row in rows])
        self.tokens = np.array([row.prompt_tokens for row in rows], float)
        self.generated = np.array([row.generated for row in rows], float)
        self.reduced = np.array(
            [2 * row.work.layers if row.count > 1 and stack_of(row) == "vllm" else 0 for row in rows]
        )
        self.speed = np.array([row.decode or np.nan for row in rows], float)
        self.read = np.array([row.prefill or np.nan if row.prompt_tokens >= 256 else np.nan for row in rows], float)
        self.whole = np.array([row.total_time for row in rows])
        self.device = np.array([row.device.id for row in rows])

    def rates(self, x: Any) -> Rates:
        """The rates of every row."""

        def of(name: str) -> Any:
            return self.vector.take(x, [f"{s}.{name}" for s in self.stacks])

        generation = self.vector.take(x, [f"generation.{g}" for g in self.generation])
        prompt = self.vector.take(x, [f"prompt_generation.{g}" for g in self.generation])
        top = self.top
        one = self.vector.take
        return Rates(
            streaming=top["bandwidth"] * of("streaming") * generation,
            caching=top["bandwidth"] * of("cache_streaming"),
            unpacking=[one(x, [f"unpack.{p}"])[0] / top["integer"] for p in UNPACK_PRIORS],
            flop=[
                1 / (top["plain_matrix"] * of("plain_matrix") * prompt)
                if p == "plain"
                else (
                    1 / (top["packed_matrix"] * of("matrix"))
                    + one(x, [f"rescale.{p}"])[0] * of("scaling") / top["vector"]
                )
                / prompt
                for p in UNPACK_PRIORS
            ],
            attention_flop=1 / (top["plain_matrix"] * of("attention")),
            attention_one=1 / (top["plain_matrix"] * of("attention")),
            activation=4 / (top["bandwidth"] * of("passing")),
            kernel=of("kernel_seconds"),
            expert_reading=one(x, ["expert_reading"])[0],
            expert_computing=one(x, ["expert_computing"])[0],
        )

    def seconds(self, x: Any) -> tuple[Any, Any]:
        """Seconds of one decoded token, and of the whole prompt."""
        rate, take = self.rates(x), self.vector.take
        token = take(x, [f"{e}.token" for e in self.engine])
        reduce = self.reduced * take(x, ["all_reduce"])[0]
        one = pass_seconds(self.decode, rate).total * take(x, [f"{e}.factor" for e in self.engine]) + token + reduce
        prompt = self.passes * pass_seconds(self.prompt, rate).total * take(x, [f"{e}.prompt" for e in self.engine])
        return one, prompt * np.where(self.flash, 1.0, take(x, ["without_flash"])[0]) + token

    def residuals(self, x: Any) -> tuple[Any, Any]:
        """log(predicted / measured) of decode and of prompt; nan where there is no measurement."""
        one, prompt = self.seconds(x)
        decode = np.where(self.whole, self.generated / (self.generated * one + prompt), 1 / one)
        return np.log(decode / self.speed), np.log(self.tokens / prompt / self.read)


def _works(works: list[Work]) -> Work:
    """All rows in one, their packings merged into families (the order of UNPACK_PRIORS)."""

    def of(name: str) -> Any:
        return np.array([getattr(w, name) for w in works], float)

    def merged(name: str) -> Any:
        each = np.array([getattr(w, name) for w in works]).T
        return tuple(
            sum(row for row, packing in zip(each, PACKINGS, strict=True) if family(packing) == kept)
            for kept in UNPACK_PRIORS
        )

    return Work(
        tokens=of("tokens"), weight_bytes=of("weight_bytes"), values=merged("values"), flops=merged("flops"),
        expert_flops=merged("expert_flops"), expert_rows=of("expert_rows"), attention_flops=of("attention_flops"),
        cache_bytes=of("cache_bytes"), activations=of("activations"), kernels=of("kernels"),
        expert_bytes=of("expert_bytes"), layers=of("layers"),
    )  # fmt: skip


def fit(table: Table, keep: Any, start: Any, most: int) -> Any:
    vector = table.vector

    def errors(x: Any) -> Any:
        decode, prompt = table.residuals(x)
        decode, prompt = decode[keep] / NOISE_DECODE, prompt[keep] / NOISE_PROMPT
        return np.concatenate(
            [decode[~np.isnan(decode)], prompt[~np.isnan(prompt)], (x - vector.start) / vector.widths]
        )

    return least_squares(errors, start, loss="soft_l1", max_nfev=most).x


def report(name: str, residuals: Any) -> str:
    found = residuals[~np.isnan(residuals)]
    if not len(found):
        return f"{name}: no rows"
    error = np.abs(np.exp(found) - 1)
    return (
        f"{name:34} n={len(found):4d}  median {np.median(error):6.1%}  p90 {np.quantile(error, 0.9):6.1%}  "
        f"within 20 % {np.mean(error <= 0.2):6.1%}  bias {np.exp(np.median(found)) - 1:+.1%}"
    )


def jacobian(table: Table, x: Any) -> tuple[Any, Any]:
    """Derivatives of both residuals by every parameter, at x."""
    base = np.concatenate(table.residuals(x))
    columns = []
    for place in range(len(x)):
        moved = x.copy()
        moved[place] += 1e-4
        columns.append((np.concatenate(table.residuals(moved)) - base) / 1e-4)
    return base, np.array(columns).T


def refit(base: Any, slopes: Any, x: Any, keep: Any, vector: Vector) -> Any:
    """The fit to the kept rows, by Gauss-Newton steps with derivatives taken at x, where a fit to all rows ended.

    The logarithms are near linear in each other over such a distance; residuals are then taken exactly.
    """
    known = keep & ~np.isnan(base)
    noise = np.concatenate([np.full(len(keep) // 2, NOISE_DECODE), np.full(len(keep) // 2, NOISE_PROMPT)])[known]
    left, there = slopes[known] / noise[:, None], base[known] / noise
    step = np.zeros(len(x))
    for _ in range(12):
        residual = there + left @ step
        weight = 1 / np.sqrt(1 + residual**2)
        pull = 1 / vector.widths**2
        matrix = left.T @ (left * weight[:, None]) + np.diag(pull)
        gradient = left.T @ (weight * residual) + pull * (x + step - vector.start)
        step -= np.linalg.solve(matrix, gradient)
    return x + step


def by_device(table: Table) -> list[Any]:
    """What is held back together: a device's rows; of vLLM and SGLang, which ran on few, a model's."""
    vllm = np.array([stack == "vllm" for stack in table.stacks])
    models = np.array([_family(row.model) for row in table.rows])
    folds = [(table.device == device) & ~vllm for device in sorted(set(table.device[~vllm]))]
    return folds + [(models == model) & vllm for model in sorted(set(models[vllm]))]


def by_source(table: Table) -> list[Any]:
    """All that one source published."""
    sources = np.array([row.source for row in table.rows])
    return [sources == source for source in sorted(set(sources))]


def held_back(table: Table, x: Any, folds: list[Any]) -> tuple[Any, Any]:
    """Residuals of each row from a fit without the rows that are held back with it."""
    count = len(table.rows)
    decode, prompt = np.full(count, np.nan), np.full(count, np.nan)
    base, slopes = jacobian(table, x)
    for fold in folds:
        found = refit(base, slopes, x, np.concatenate([~fold, ~fold]), table.vector)
        one, two = table.residuals(found)
        decode[fold], prompt[fold] = one[fold], two[fold]
    return decode, prompt


def held_back_rows(table: Table, decode: Any, prompt: Any) -> tuple[tuple[str, str, str, str, float, float], ...]:
    """What was taken out, measured and predicted, in tokens/s; whole answers count as decode."""
    found = []
    for row, engine, *residuals in zip(table.rows, table.engine, decode, prompt, strict=True):
        for quantity, measured, residual in zip(
            ("decode", "prompt"), (row.decode, row.prefill), residuals, strict=True
        ):
            if measured and not np.isnan(residual):
                predicted = float(measured * np.exp(residual))
                found.append((row.device.id, engine, row.model, quantity, round(measured, 4), round(predicted, 4)))
    return tuple(sorted(found))


def _family(model: str) -> str:
    return model.rsplit("/", 1)[-1].lower()


def coverage(residuals: Any, groups: Any) -> float:
    """Share of rows within the 5th to 95th percentile of the other devices' residuals."""
    inside = total = 0
    for group in sorted(set(groups)):
        mine = residuals[groups == group]
        mine = mine[~np.isnan(mine)]
        rest = residuals[groups != group]
        rest = rest[~np.isnan(rest)]
        low, high = np.quantile(rest, [0.05, 0.95])
        inside += int(((mine >= low) & (mine <= high)).sum())
        total += len(mine)
    return inside / total


def spreads(table: Table, residuals: Any) -> dict[str, Spread]:
    found = {}
    for stack in ("all", *STACKS):
        part = residuals[[stack in {"all", s} for s in table.stacks]]
        part = part[~np.isnan(part)]
        if len(part) >= 40:
            low, high = np.quantile(part, [0.05, 0.95])
            found[stack] = Spread(round(float(low), 3), round(float(high), 3), len(part))
    return found


def to_parameters(vector: Vector, x: Any, generations: list[str], spread: Any) -> Parameters:
    def value(name: str) -> float:
        return float(f"{np.exp(x[vector.names[name]]):.4g}")

    stacks = {s: Stack(**{name: value(f"{s}.{name}") for name in STACK_PRIORS}) for s in STACKS}
    stacks |= {name: stacks[like] for name, like in UNSEEN.items()} | {"cpu": parameters().stacks["cpu"]}
    engines = {e: Engine(value(f"{e}.token"), value(f"{e}.factor"), value(f"{e}.prompt")) for e in ENGINES}
    engines["llama.cpp"] = msgspec.structs.replace(engines["llama.cpp"], processor_seconds=PROCESSOR_SECONDS)
    engines["transformers"] = engines["vllm<0.7"]
    return Parameters(
        stacks, engines,
        {g: value(f"generation.{g}") for g in generations}, {g: value(f"prompt_generation.{g}") for g in generations},
        {name: value(f"unpack.{name}") for name in UNPACK_PRIORS},
        {name: value(f"rescale.{name}") for name in RESCALE_PRIORS}, value("without_flash"),
        value("expert_reading"), value("expert_computing"), value("all_reduce"), *spread,
    )  # fmt: skip


#: Seconds that llama.cpp adds to a pass where no GPU has to be waited for.
PROCESSOR_SECONDS = 3e-5


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("truth", type=Path)
    arguments.add_argument("--write", action="store_true")
    arguments.add_argument("--held-back", action="store_true", help="write only what held-back rows were predicted")
    arguments.add_argument("--cache", type=Path)
    given = arguments.parse_args()
    import pickle

    if given.cache and given.cache.exists():
        every, bench = pickle.loads(given.cache.read_bytes())
    else:
        every, bench = speed_rows.speed_rows(given.truth), speed_rows.bench_rows(given.truth)
        if given.cache:
            given.cache.write_bytes(pickle.dumps((every, bench)))
    print(f"{len(every)} rows; dropped:")
    for reason, count in Counter(row.dropped.split(":")[0] for row in every if row.dropped).most_common():
        print(f"  {count:4d}  {reason}")
    for row in every:
        if row.dropped.startswith(speed_rows.HELD_UP):
            where = f"{row.source[:30]}, {row.hardware}, {row.engine}"
            print(f"        {where}: {row.model} {row.format}, {row.decode:.3g}/s: {row.dropped}")
    rows = [row for row in every if not row.dropped and (row.decode or row.prefill)] + bench
    generations = sorted({row.device.arch for row in rows})
    vector = Vector(generations)
    table = Table(rows, vector)
    everything = np.ones(len(rows), bool)
    x = fit(table, everything, vector.start, 25)
    decode, prompt = table.residuals(x)
    benches = np.array([row.key.startswith("bench") for row in rows])
    vllm = np.array([stack == "vllm" for stack in table.stacks])
    print(report("fitted: decode", decode), report("fitted: prompt", prompt), sep="\n")
    decode, prompt = held_back(table, x, by_source(table))
    print("\nheld back by source")
    print(report("decode, speed.csv", decode[~benches]), report("prompt, speed.csv", prompt[~benches]), sep="\n")
    print(report("llama-bench tg", decode[benches]), report("llama-bench pp512", prompt[benches]), sep="\n")
    decode, prompt = held_back(table, x, by_device(table))
    print("\nheld back by device (vLLM and SGLang: by model)")
    print(report("decode, speed.csv", decode[~benches]))
    print(report("decode, speed.csv without vLLM", decode[~benches & ~vllm]))
    print(report("decode, vLLM and SGLang", decode[vllm]))
    print(report("llama-bench tg", decode[benches]))
    print(report("llama-bench pp512", prompt[benches]))
    print(report("prompt, speed.csv", prompt[~benches]))
    for engine in ENGINES:
        print(report(f"  decode {engine}", decode[[e == engine for e in table.engine]]))
    print(
        f"90 % intervals cover {coverage(decode, table.device):.1%} of decode, {coverage(prompt, table.device):.1%} of prompt"  # noqa: E501
    )
    worst = defaultdict(list)
    for row, residual in zip(rows, decode, strict=True):
        worst[row.device.id, row.engine].append(residual)
    print("\nlargest device biases:", ", ".join(
        f"{d}/{e} {np.exp(np.nanmedian(v)) - 1:+.0%} ({len(v)})"
        for (d, e), v in sorted(worst.items(), key=lambda kv: -len(kv[1]) * abs(np.nanmedian(kv[1])))[:14]))  # fmt: skip  # noqa: E501
    found = to_parameters(vector, x, generations, (spreads(table, decode), spreads(table, prompt)))
    print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    if given.write:
        OUT.write_text(msgspec.json.format(msgspec.json.encode(found), indent=1).decode() + "\n")
    if given.write or given.held_back:
        rows_out = held_back_rows(table, decode, prompt)
        HELD.write_text(
            msgspec.json.encode(HeldBack(parameters_digest(), rows_out)).decode().replace("],[", "],\n[") + "\n"
        )


if __name__ == "__main__":
    main()
