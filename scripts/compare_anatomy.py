"""Compare the anatomy of every model type with transformers: tensor names, shapes, ties, buffers and the total.

    python scripts/compare_anatomy.py DUMP                         # summary, and each difference in one line
    python scripts/compare_anatomy.py DUMP --only llama,gemma3 -v  # every tensor that is missing, extra or reshaped
    python scripts/compare_anatomy.py DUMP --worker --markdown docs/coverage.md
    python scripts/compare_anatomy.py DUMP --golden tests/data/transformers.tsv
    python scripts/compare_anatomy.py --live --only llama          # builds the classes now; needs transformers

DUMP is a folder that scripts/dump_transformers.py has written; with it, neither torch nor transformers is needed.
`--worker` takes the worker road for what has no anatomy (SIZEUP_WORKER_PYTHON names its environment).
`--markdown` writes the coverage table, `--golden` the summary that the tests hold the anatomies to. The exit status
is 1 when a type that has an anatomy differs, or when one that the golden file lists has none.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from sizeup.errors import SizeupError
from sizeup.models.anatomy.registry import anatomy_of
from sizeup.models.config import Config
from sizeup.models.model import Block

GOLDEN = Path(__file__).parents[1] / "tests" / "data" / "transformers.tsv"
TASKS = ("causal-lm", "image-text-to-text", "seq2seq", "speech-seq2seq", "multimodal-lm", "masked-lm", "base")
MAPPINGS = (*TASKS, "truth")
Shapes = dict[str, tuple[int, ...]]
#: Types (perhaps of one mapping) whose anatomy keeps what the published files hold, where transformers, saving again,
#: writes other names or shapes.
DEVIATIONS = {
    "kimi_k25": "names as published: on saving, transformers calls the text's layers `blocks`, too",
    "qianfan_ocr": "names as published: on saving, transformers calls the text's layers `encoder.layers`, too",
    "olmo_hybrid": "shapes as published: on saving, transformers splits the one convolution into equal thirds",
    "base/bailing_hybrid": "names as published: on saving a bare model, transformers keeps its own for the tables",
    "base/deepseek_v4": "names as published: on saving a bare model, transformers renames the tables",
    "base/hy_v4": "names as published: on saving a bare model, transformers renames the last hyper-connection",
    "base/glm4v_moe_text": "names as published: on saving a bare model, transformers keeps its own stacked experts",
    "base/molmo2_text": "names as published: on saving a bare model, transformers keeps its own",
    "molmo2": "shapes as published: on saving, transformers halves the two word tables evenly",
}


class Checkpoint(NamedTuple):
    """What a model keeps on disk: stored tensors by name, tied names, persistent buffers, parameters."""

    tensors: Shapes
    ties: dict[str, str]
    buffers: frozenset[str]
    parameters: int

    def digest(self) -> str:
        """A short hash of the sorted names and shapes, tied names included."""
        lines = [f"{name} {list(shape)}" for name, shape in self.tensors.items()]
        lines += [f"{name} = {source}" for name, source in self.ties.items()]
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


class Result(NamedTuple):
    """How one class came out.

    road: `anatomy`, `worker` (it can be built, nobody described it) or `none`. taken: the worker road has been taken
    and gave what was built.
    """

    mapping: str
    model_type: str
    class_name: str
    road: str
    differences: tuple[str, ...]
    reason: str
    built: Checkpoint | None
    settings: dict[str, Any] = {}  # noqa: RUF012  (a NamedTuple's default, never changed)
    taken: bool = False

    @property
    def key(self) -> str:
        """Its name in the golden file."""
        return f"{self.mapping}/{self.model_type}"

    @property
    def exact(self) -> bool:
        """Whether the anatomy agrees in everything."""
        return (self.road == "anatomy" or self.taken) and not self.differences and not self.reason


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dump", type=Path, nargs="?", help="folder written by scripts/dump_transformers.py")
    parser.add_argument("--live", action="store_true", help="build the classes now instead of reading a dump")
    parser.add_argument("--mapping", action="append", choices=MAPPINGS)
    parser.add_argument("--only", default="", help="only these model types (or file names), comma-separated")
    parser.add_argument("-v", "--verbose", action="store_true", help="every difference instead of the first")
    parser.add_argument("--worker", action="store_true", help="take the worker road for what has no anatomy")
    parser.add_argument("--markdown", type=Path, help="write the coverage table here")
    parser.add_argument("--golden", type=Path, help="write the exact types here, for the tests")
    options = parser.parse_args()
    if not options.live and options.dump is None:
        parser.error("give a folder written by scripts/dump_transformers.py, or --live")
    records = live_records(options) if options.live else dump_records(options)
    results = [compare(record, worker=options.worker) for record in records]
    report(results, verbose=options.verbose)
    if options.markdown:
        options.markdown.write_text(coverage(results))
    if options.golden:
        options.golden.write_text(golden(results))
    return 1 if regressions(results) else 0


def dump_records(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The records of the dump that the options select."""
    only = {item for item in options.only.split(",") if item}
    for mapping in options.mapping or MAPPINGS:
        for file in sorted((options.dump / mapping).glob("*.json.gz")):
            stem = file.name.removesuffix(".json.gz")
            if only and stem not in only and mapping != "truth":
                continue
            record = json.loads(gzip.decompress(file.read_bytes()))
            if only and not {stem, record["model_type"]} & only:
                continue
            if mapping == "base" and _is_part(record) and _has_head(options.dump, stem):
                continue
            yield record | {"key": stem}


def _is_part(record: dict[str, Any]) -> bool:
    """Whether it is the bare class of a composite model, which nobody publishes alone."""
    return any(name.endswith("_config") and isinstance(part, dict) for name, part in record.get("config", {}).items())


def _has_head(dump: Path, stem: str) -> bool:
    return any((dump / mapping / f"{stem}.json.gz").exists() for mapping in TASKS if mapping != "base")


def live_records(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The records of classes that are built now."""
    import dump_transformers

    options.out = Path()
    options.mapping = [name for name in options.mapping or TASKS if name != "truth"]
    for _, request in dump_transformers._default_tasks(options):  # noqa: SLF001
        try:
            yield dump_transformers.build(request)
        except Exception as error:
            yield request | {"error": f"{type(error).__name__}: {error}"}


def compare(record: dict[str, Any], *, worker: bool = False) -> Result:
    """Lay the anatomy of a record's configuration beside what transformers built."""
    mapping = record["mapping"]
    config = record.get("given") or record.get("config") or {}
    model_type = config.get("model_type") or record["model_type"]
    named = record.get("key", model_type) if mapping == "truth" else model_type
    base = (mapping, named, record.get("class", ""))
    describe = anatomy_of(model_type)
    if "error" in record:
        road = "anatomy" if describe else "none"
        return Result(*base, road, (), f"transformers doesn't build it: {record['error']}", None)
    built = built_checkpoint(record)
    if describe is None:
        if worker and mapping not in {"base", "truth"}:
            found = tuple(by_worker(record, built))
            return Result(*base, "worker", found, "", built, record.get("settings") or {}, taken=not found)
        return Result(*base, "worker", (), "no anatomy", built)
    if not record.get("given"):
        config |= {"architectures": [record["class"]]}
    try:
        described = described_checkpoint(describe(Config(config, base[1])).blocks)
    except SizeupError as error:
        return Result(*base, "anatomy", (error.message,), "", built)
    found = tuple(differences(described, built))
    known = DEVIATIONS.get(f"{mapping}/{model_type}") or DEVIATIONS.get(model_type)
    if found and known and described.parameters == built.parameters:
        return Result(*base, "anatomy", (), known, built)
    return Result(*base, "anatomy", found, "", built, record.get("settings") or {})


def by_worker(record: dict[str, Any], built: Checkpoint) -> list[str]:
    """What the worker road gives for the record's configuration, beside what was built: names, shapes, ties, total."""
    config = json.dumps(record["config"] | {"architectures": [record["class"]]})
    described, failure = taken_road(config)
    return [failure] if described is None else list(differences(described, built))


@cache
def taken_road(config: str) -> tuple[Checkpoint | None, str]:
    """The checkpoint by the worker road, or why there is none; once for a class that stands in several mappings."""
    from sizeup.operations.built_class import model_by_transformers

    try:
        model = model_by_transformers(json.loads(config), network=False)
    except SizeupError as error:
        return None, f"the worker: {error.message.rpartition('): ')[2]}"
    return described_checkpoint(model.blocks), ""


def built_checkpoint(record: dict[str, Any]) -> Checkpoint:
    """What transformers built."""
    shapes = {name: tuple(shape) for name, shape in record["tensors"].items()}
    return Checkpoint(shapes, record["ties"], frozenset(record["buffers"]), record["parameters"])


def described_checkpoint(blocks: tuple[Block, ...]) -> Checkpoint:
    """What an anatomy describes, without what the class doesn't build: prediction layers, tensors that are `unused`."""
    tensors: Shapes = {}
    ties: dict[str, str] = {}
    buffers = set()
    for block in (block for block in blocks if block.stack != "mtp"):
        for name, tensor in block.expand():
            if name in tensors or name in ties:
                raise SizeupError(f"{name} comes twice")
            if tensor.tied_to:
                ties[name] = tensor.tied_to
                continue
            if tensor.part == "unused":
                continue
            tensors[name] = tensor.stored_shape
            if tensor.role == "buffer":
                buffers.add(name)
    return Checkpoint(tensors, ties, frozenset(buffers), sum(b.parameters for b in blocks if b.stack != "mtp"))


def differences(described: Checkpoint, built: Checkpoint) -> Iterator[str]:
    """Everything in which the two differ, in words."""
    for name in sorted(built.tensors.keys() - described.tensors.keys()):
        tied = " (described as tied)" if name in described.ties else ""
        yield f"missing {name} {list(built.tensors[name])}{tied}"
    for name in sorted(described.tensors.keys() - built.tensors.keys()):
        tied = f" (tied to {built.ties[name]})" if name in built.ties else ""
        yield f"extra {name} {list(described.tensors[name])}{tied}"
    for name in sorted(described.tensors.keys() & built.tensors.keys()):
        if described.tensors[name] != built.tensors[name]:
            yield f"{name} is {list(described.tensors[name])}, not {list(built.tensors[name])}"
    for name in sorted(described.ties.items() ^ built.ties.items()):
        where = "transformers" if built.ties.get(name[0]) == name[1] else "the anatomy"
        yield f"only {where} ties {name[0]} to {name[1]}"
    for name in sorted(described.buffers ^ built.buffers):
        where = "transformers" if name in built.buffers else "the anatomy"
        yield f"only {where} has {name} as a buffer"
    if described.parameters != built.parameters:
        yield f"{described.parameters:,} parameters, not {built.parameters:,}"
    if described.parameters != sum(math.prod(s) for n, s in described.tensors.items() if n not in described.buffers):
        yield "its blocks don't add up to its tensors"


def report(results: list[Result], *, verbose: bool) -> None:
    """One line for each class that isn't exact, then the counts."""
    for result in results:
        if result.exact:
            continue
        words = result.differences or (result.reason,)
        shown = words if verbose else words[:1]
        more = "" if verbose or len(words) == 1 else f"  (+{len(words) - 1})"
        for line in shown:
            print(f"{result.key:45} {result.road:8} {line[:200]}{more}")
    for mapping in dict.fromkeys(result.mapping for result in results):
        mine = [result for result in results if result.mapping == mapping]
        exact = sum(result.exact for result in mine)
        differ = sum(bool(result.differences) for result in mine)
        print(
            f"{mapping}: {exact} of {len(mine)} exact, {differ} differ, {len(mine) - exact - differ} without",
            file=sys.stderr,
        )
    types = {r.model_type for r in results if r.exact and r.road == "anatomy" and r.mapping != "truth"}
    print(f"{len(types)} model types exact by anatomy", file=sys.stderr)


def regressions(results: list[Result]) -> list[str]:
    """The keys that have an anatomy which differs, or that the golden file lists and that aren't exact now."""
    listed = set()
    if GOLDEN.exists():
        listed = {line.split("\t")[0] for line in GOLDEN.read_text().splitlines() if not line.startswith("#")}
    return [result.key for result in results if result.differences or (result.key in listed and not result.exact)]


def golden(results: list[Result]) -> str:
    """One line for each exact class: key, class, tensors, parameters, hash of names, shapes and ties."""
    lines = ["# mapping/model_type, class, tensors, parameters, hash, settings; by scripts/compare_anatomy.py --golden"]
    rows = {
        r.key: (r.key, r.class_name, len(r.built.tensors), r.built.parameters, r.built.digest(), json.dumps(r.settings))
        for r in sorted(results, key=lambda result: result.key)
        if r.exact and r.road == "anatomy" and r.built and r.mapping != "truth"
    }
    lines += ["\t".join(str(cell) for cell in row) for row in rows.values()]
    return "\n".join(lines) + "\n"


def coverage(results: list[Result]) -> str:
    """The coverage table for the docs: how many classes each road gives exactly, then every class that none does."""
    mappings = [mapping for mapping in TASKS if mapping != "base"]
    shown = [result for result in results if result.mapping in mappings]
    lines = [
        COVERAGE_HEAD.format(
            types=len({r.model_type for r in results if r.exact and r.road == "anatomy" and r.mapping != "truth"})
        ),
        "| mapping | classes | exact by anatomy | exact by worker | not exact |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for mapping in mappings:
        mine = [result for result in shown if result.mapping == mapping]
        by_road = [sum(r.exact and r.road == road for r in mine) for road in ("anatomy", "worker")]
        lines.append(f"| {mapping} | {len(mine)} | {by_road[0]} | {by_road[1]} | {len(mine) - sum(by_road)} |")
    lines += ["", "## Not exact, and why", "", "| model type | class | road | why |", "| --- | --- | --- | --- |"]
    lines += [f"| {row} |" for row in dict.fromkeys(_reason_row(r) for r in shown if not r.exact)]
    lines += [
        "",
        "## Exact",
        "",
        "| model type | class | road | parameters of the default |",
        "| --- | --- | --- | ---: |",
    ]
    lines += [f"| {row} |" for row in dict.fromkeys(_exact_row(r) for r in shown if r.exact and r.built)]
    return "\n".join(lines) + "\n"


COVERAGE_HEAD = """# Coverage

Written by `scripts/compare_anatomy.py DUMP --worker --markdown docs/coverage.md`: every class of the mappings of
transformers 5.23 with its default configuration, tensor names, shapes, ties and total compared. {types} model types are
exact by anatomy (bare classes included). *Worker*: nobody described the type; `sizeup show --transformers` builds it.
"""


def _exact_row(result: Result) -> str:
    parameters = result.built.parameters if result.built else 0
    return f"`{result.model_type}` | `{result.class_name}` | {result.road} | {parameters:,}"


def _reason_row(result: Result) -> str:
    why = " ".join((result.differences or (result.reason,))[0].split()).replace("|", "\\|")
    return f"`{result.model_type}` | `{result.class_name}` | {result.road} | {why[:240]}"


if __name__ == "__main__":
    sys.exit(main())
