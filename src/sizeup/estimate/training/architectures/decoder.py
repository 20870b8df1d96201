"""Decoders of the llama line and their neighbours: what differs between them is in `DecoderShape`.

embedding → layers (norm, attention, norm, feed-forward, with residuals) → norm → head → loss
"""

from __future__ import annotations

from collections.abc import Callable

from sizeup.estimate.training.architectures.experts import STACKED_NAMES
from sizeup.estimate.training.architectures.gemma3n import merged, widened
from sizeup.estimate.training.architectures.gemma4 import layer_embeddings
from sizeup.estimate.training.architectures.head import head_and_loss
from sizeup.estimate.training.architectures.layer import layer_runner
from sizeup.estimate.training.architectures.layer_norms import norm
from sizeup.estimate.training.architectures.shape import DecoderShape
from sizeup.estimate.training.basic import add, dropout, scale, scale_in_place, shift, whole_size
from sizeup.estimate.training.build import Build, wants_gradient
from sizeup.estimate.training.idle import lay_idle
from sizeup.estimate.training.masks import make_mask
from sizeup.estimate.training.positions import Rotary
from sizeup.estimate.training.program import Segment, State
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.tape import EMBEDDING, OTHER, POSITIONS, Value

__all__ = ["DecoderShape", "segments"]


def segments(shape: DecoderShape, run: Run) -> list[Segment]:
    """The step of a decoder.

    The first layer of each window has a kind of its own when it is recomputed: its mask goes with it.
    """
    parts = [Segment("start", lambda build, state: _start(build, state, shape, run), "embedding")]
    kinds: dict[str, Callable[[Build, State], None]] = {}
    seen: set[int | None] = set()
    for number in range(shape.layers):
        sparse = bool(shape.sparse) and shape.sparse[number]
        window = shape.windows[number] if shape.windows else None
        recomputed = bool(run.checkpoint) and run.checkpoint[number]
        still = bool(shape.still) and shape.still[number]
        own = shape.of(number)
        ends = own is not shape and number in ends_of(shape)
        words = (
            "first" * (number == 0), "mixture" if sparse else "dense", str(window or ""), "again" * recomputed,
            "opens" * (recomputed and window not in seen), "still" * still,
            str(shape.varied[number]) if shape.varied else "", "ends" * ends,
        )  # fmt: skip
        seen.add(window)
        key = " ".join(words)
        if key not in kinds:
            kinds[key] = layer_runner(own, run, sparse=sparse, window=window, recomputed=recomputed, still=still)
        parts.append(Segment(key, kinds[key], "mixture layer" if sparse else "layer", layer=True))
    parts.append(Segment("norm", lambda build, state: _last_norm(build, state, shape), "final norm"))
    parts.append(Segment("loss", lambda build, state: head_and_loss(build, state, shape, run), "head and loss"))
    return parts


def ends_of(shape: DecoderShape) -> set[int]:
    """The last layer of each window, whose gradients of what layers share are the first to come."""
    windows = shape.windows or (None,) * shape.layers
    return {max(number for number in range(shape.layers) if windows[number] == window) for window in set(windows)}


def _start(build: Build, state: State, shape: DecoderShape, run: Run) -> None:
    """Embedding, masks, and the tables of the rotation; the embeddings stay in a name until the model returns."""
    tape = build.tape
    if shape.mixture is not None and shape.mixture.adapted:
        build.unadapted = STACKED_NAMES
    build.unadapted |= frozenset(shape.unadapted)
    build.transposed = shape.transposed
    tape.label = EMBEDDING
    rows = shape.embedding_rows or shape.vocabulary
    x = build.embedding("embed_tokens", rows, shape.hidden, build.tokens, ways=shape.vocabulary_ways)
    if shape.embedding_scale == "module":
        x = scale(tape, x)
    if run.input_gradients and not x.needs:
        x = wants_gradient(build, x)
    if shape.embedding_scale == "model":
        x = scale(tape, x)
    if shape.embedding_scale == "in place":
        x = scale_in_place(tape, x)
    state.held["embeddings"] = x
    lay_idle(build, shape.idle)
    if shape.layer_width:
        state.held["layers"] = layer_embeddings(build, shape, x)
    tape.label = OTHER
    state.held["positions"] = tape.value(build.sequence, 8)
    if shape.position_table:
        tape.label = EMBEDDING
        rows = build.tokens if shape.positions_apart else build.sequence
        places = build.embedding("embed_positions", shape.position_table, shape.hidden, rows)
        x = add(tape, x, places)
        state.held["places"] = places
        del places
    if shape.sines:
        build.frozen("embed_positions", shape.sines * shape.hidden)
        x = add(tape, x, tape.value(build.sequence * shape.hidden, build.method.item))
    if shape.zero_added:
        x = shift(tape, x)
    x = dropout(tape, x, shape.embedding_dropout)
    tape.label = OTHER
    if shape.sequence_ways > 1:
        x = tape.result(x.n // shape.sequence_ways, x.item, (x,), whole_size(tape, x.n, x.item))
    if shape.embedding_norm:
        x = norm(build, shape, "embedding_norm", x, shape.hidden)
    if shape.alibi in {"cast", "wide"}:
        state.held["alibi"] = alibi(build, shape)
    for window in set(shape.windows or (None,)) if not shape.triangle else ():
        state.held[f"mask {window}"] = make_mask(
            build,
            window,
            padding=run.padding,
            eager=run.eager or shape.eager_only,
            flash=run.flash,
            filled=shape.way.filled,
            always=shape.always_masked,
        )
    if shape.triangle and run.padding:
        state.held["mask None"] = tape.value(build.tokens, build.method.item)
    if shape.alibi == "mask":
        state.held["mask None"] = tape.value(build.tokens * shape.head_count * build.sequence, x.item)
    if shape.rotary:
        state.held["rotary"] = tables(build, shape, x.item)
    if shape.streams is not None:
        x, state.held["streams"] = widened(build, shape, shape.streams, x)
    state.x = x


def tables(build: Build, shape: DecoderShape, item: int) -> list[Rotary]:
    """Cosines and sines of every kind of layer; the last is that of layers that see all."""
    tape = build.tape
    dim = round(shape.head_dim * shape.rotary) // (2 if shape.rotary_halved else 1)
    found = []
    lengths = shape.rotary_dims or (dim,) * shape.rotary_tables
    for place, size in enumerate(lengths):
        wide = shape.rotary_wide or (shape.rotary_wide_full and place == len(lengths) - 1)
        if shape.axes:
            found.append(Rotary.of_axes(tape, build.tokens, size, item))
        else:
            found.append(Rotary(tape, build.sequence, size, 4 if wide else item))
    return found


def alibi(build: Build, shape: DecoderShape) -> Value:
    """A number for each head and key that is added to the scores; in fp32 where the model doesn't cast it."""
    tape = build.tape
    before, tape.label = tape.label, POSITIONS
    copies, item = (build.batch, build.method.item) if shape.alibi == "cast" else (1, 4)
    found = tape.value(copies * shape.head_count * build.sequence, item)
    tape.label = before
    return found


def _last_norm(build: Build, state: State, shape: DecoderShape) -> None:
    build.scope = ""
    if shape.streams is not None:
        state.x, state.held["streams"] = merged(build, shape, shape.streams, state.hidden)
    if shape.last_norm:
        state.x = norm(build, shape, "norm", state.hidden, shape.hidden)
    build.tape.label = OTHER
    state.held.clear()
