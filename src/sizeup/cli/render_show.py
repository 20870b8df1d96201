"""A model for people: what it is, where its parameters are, its bytes at every precision, its cache."""

from __future__ import annotations

from collections.abc import Iterator

from sizeup.cli import text
from sizeup.cli.explain import term_lines
from sizeup.models.count import role_name
from sizeup.operations.show import Shown
from sizeup.quantity.units import format_bytes, format_count, format_tokens


def render(shown: Shown, *, explain: bool) -> list[str]:
    """Heading, tree of parameters, bytes, cache, facts, notes."""
    return [
        *_heading(shown),
        "",
        *_tree(shown, explain=explain),
        "",
        *_definitions(shown, explain=explain),
        *_bytes(shown),
        "",
        *_cache(shown),
        *_facts(shown),
        *_stored(shown, explain=explain),
        *_adapters(shown),
        *_verification(shown),
        *(line for note in shown.notes for line in text.wrap(f"note: {note}")),
    ]


def _heading(shown: Shown) -> list[str]:
    parameters = shown.parameters
    size = f"{format_count(parameters.total)} parameters"
    if parameters.uncertainty:
        size = f"about {size} (±{parameters.uncertainty:.0%})"
    active = f", {format_count(parameters.active)} active" if parameters.active != parameters.total else ""
    stored = f"{shown.dtype}{f', {shown.scheme}' if shown.scheme else ''}"
    return [
        text.heading(shown.model, f"{shown.family}, {parameters.size_class}; read by {shown.road} ({stored})"),
        f"{text.bold(size)}{active}",
    ]


def _tree(shown: Shown, *, explain: bool) -> Iterator[str]:
    """The parameters by kind of layer and role, each with its share."""
    walked = [(depth, term) for depth, term in shown.parameters.tree.walk() if term.value]
    prefixes = text.branches([depth for depth, _ in walked])
    total = shown.parameters.total or 1
    rows = []
    for (depth, term), prefix in zip(walked, prefixes, strict=True):
        name = prefix + (text.bold(term.name) if depth < 2 else term.name)
        share = term.value / total
        row = [name, f"{term.value:,}", f"{share:.1%}", text.bar(share, 16) if depth == 1 else ""]
        rows.append([*row, text.dim(term.formula)] if explain else row)
    yield from text.table(rows, align="<>><")


def _definitions(shown: Shown, *, explain: bool) -> Iterator[str]:
    """Active parameters under each definition, where they differ; by role when explaining."""
    parameters = shown.parameters
    if parameters.active != parameters.total or explain:
        d = parameters.definitions
        yield (
            f"active: {format_count(d.all)} in all, {format_count(d.multiplied)} without looked-up tables, "
            f"{format_count(d.inner)} without tables and head"
        )
        yield ""
    if explain:
        yield text.bold("By role")
        rows = [(role_name(role), f"{count:,}") for role, count in parameters.by_role.items()]
        yield from (f"  {line}" for line in text.table(rows, align="<>"))
        yield ""


def _bytes(shown: Shown) -> Iterator[str]:
    """The weights at every common precision, in as many columns as fit."""
    yield text.bold("Weights at every common precision")
    cells = [f"{name:<15}{format_bytes(size):>9}" for name, size in shown.bytes.items()]
    columns = max(1, min(4, text.width() // 28))
    rows = -(-len(cells) // columns)
    for row in range(rows):
        yield "  " + "    ".join(cells[row::rows])


def _cache(shown: Shown) -> Iterator[str]:
    cache = shown.cache
    kinds = [f"{kind.count} × {', '.join(kind.mixers)}" for kind in shown.layers if kind.mixers and kind.stack != "mtp"]
    yield text.heading(
        "Cache (fp16, one sequence)", f"{format_bytes(cache.bytes_per_token)} a token; {'; '.join(kinds)}"
    )
    rows = [
        [format_tokens(int(tokens)) for tokens in cache.bytes_by_context],
        list(map(format_bytes, cache.bytes_by_context.values())),
    ]
    yield from (f"  {line}" for line in text.table(zip(*rows, strict=True), align=">>"))


def _facts(shown: Shown) -> Iterator[str]:
    facts = shown.facts
    rows = [
        ("context", f"{shown.context:,} tokens" if shown.context else ""),
        ("licence", facts.licence or ""),
        ("made from", facts.base_model or ""),
        ("released", facts.released or ""),
        ("prompt template", facts.prompt_template or ""),
        ("modalities", ", ".join(facts.modalities) if facts.modalities != ("text",) else ""),
        ("capabilities", ", ".join(facts.capabilities)),
        ("Ollama", facts.ollama_tag or ""),
        ("scores", "; ".join(f"{s.benchmark.replace('_', ' ')} {s.value:g}" for s in facts.scores)),
        ("facts from", facts.source or ""),
    ]
    known = [row for row in rows if row[1]]
    if known:
        yield ""
        yield from text.table(known)


def _stored(shown: Shown, *, explain: bool) -> Iterator[str]:
    """What its files and its Hub page count beside the parameters."""
    if shown.hub is not None:
        yield ""
        rest = "" if shown.hub.explained else f", {shown.hub.unexplained:+,} unexplained"
        yield text.heading(f"Its Hub page says {shown.hub.published:,}", f"because{rest}")
        yield from term_lines(shown.hub.lines)
    elif explain or len(shown.stored.parts) > 1:
        yield ""
        yield text.bold("Elements in its files")
        yield from term_lines(shown.stored)


def _adapters(shown: Shown) -> Iterator[str]:
    if shown.lora is not None:
        share = shown.lora.value / shown.parameters.total
        yield ""
        yield text.heading(f"{shown.lora.name}: {shown.lora.value:,} trainable parameters", f"{share:.2%} of the model")
        yield from term_lines(shown.lora, depth=2)


def _verification(shown: Shown) -> Iterator[str]:
    side = shown.verification
    if side is None:
        return
    yield ""
    answer = text.good("exactly as the anatomy says") if side.exact else text.bad("not as the anatomy says")
    yield f"{text.bold(f'{side.tensors:,} tensors')} {answer}"
    for kind in ("missing", "extra", "reshaped", "renamed"):
        for difference in getattr(side, kind):
            shapes = f"expected {difference.expected}, found {difference.found}"
            yield f"  {kind:<9} {difference.count:>5} × {difference.name}  {text.dim(f'{shapes} {difference.note}')}"
