"""Decoders of the llama line and their neighbours: what differs between them is in `DecoderShape`.

embedding → layers (norm, attention, norm, feed-forward, with residuals) → norm → head → loss
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from sizeup.estimate.training.architectures.experts import STACKED_NAMES
from sizeup.estimate.training.architectures.gemma3n import merged, widened
from sizeup.estimate.training.architectures.gemma4 import layer_embeddings
from sizeup.estimate.training.architectures.head import head_and_loss
from sizeup.estimate.training.architectures.image_features import deepened, with_features
from sizeup.estimate.training.architectures.layer import layer_runner, mask_and_table
from sizeup.estimate.training.architectures.layer_norms import norm
from sizeup.estimate.training.architectures.reference import reference_forward
from sizeup.estimate.training.architectures.shape import DecoderShape
from sizeup.estimate.training.architectures.vision_tower import segments as tower_segments
from sizeup.estimate.training.basic import add, copy, dropout, scale, scale_in_place, shift, whole_size
from sizeup.estimate.training.build import Build, wants_gradient
from sizeup.estimate.training.idle import lay_idle
from sizeup.estimate.training.masks import bidirectional_mask, make_mask
from sizeup.estimate.training.positions import Rotary
from sizeup.estimate.training.program import Kind, Segment, State
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.tape import EMBEDDING, OTHER, POSITIONS, Value

__all__ = ["DecoderShape", "segments"]


def segments(shape: DecoderShape, run: Run) -> list[Segment]:
    """The step of a decoder: a layer is of the same kind as another if its parts are and what it is given."""
    parts = _beginning(shape, run)
    layers: dict[tuple[object, ...], Segment] = {}
    seen: set[int | None] = set()
    handed: set[int] = set()
    before: set[tuple[str, ...]] = set()
    varied: list[dict[str, Any]] = []
    shared = any(fields.get("caches") or "index" in fields for fields in shape.varied)
    ends = ends_of(shape) if shared else set()
    for number in range(shape.layers):
        sparse = bool(shape.sparse) and shape.sparse[number]
        window = shape.windows[number] if shape.windows else None
        recomputed = bool(run.checkpoint) and run.checkpoint[number]
        still = bool(shape.still) and shape.still[number]
        if shape.varied and shape.varied[number] not in varied:
            varied.append(shape.varied[number])
        words = (
            "first" * (number == 0), "mixture" if sparse else "dense", "again" * recomputed, "still" * still,
            f"variant {varied.index(shape.varied[number])}" if shape.varied else "", "ends" * (number in ends),
            f"shares {window}" * shared,
        )  # fmt: skip
        key = (*words, window, window in seen, tuple(sorted(before)))
        seen.add(window)
        before.add(words[1:])
        if key not in layers:
            own = shape.of(number)
            runner = layer_runner(own, run, sparse=sparse, window=window, recomputed=recomputed, still=still)
            kind = _kind(own, words, window, handed, recomputed=recomputed)
            name = "mixture layer" if sparse else "layer"
            layers[key] = Segment(" ".join(map(str, key)), runner, name, layer=True, kind=kind)
        parts.append(layers[key])
        if run.images and shape.tower is not None and number < len(shape.tower.deep):
            parts.append(Segment(f"deep {number}", deepened(number), "image features"))
    parts.append(Segment("norm", lambda build, state: _last_norm(build, state, shape), "final norm"))
    parts.append(Segment("loss", lambda build, state: _loss(build, state, shape, run), "head and loss"))
    return parts


def _loss(build: Build, state: State, shape: DecoderShape, run: Run) -> None:
    head_and_loss(build, state, shape, run)
    if run.objective == "dpo" and run.reference:
        frozen = msgspec.structs.replace(run, checkpoint=(), selective=False, input_gradients=False, reference=False)
        reference_forward(build, segments(shape, frozen))


def _kind(
    shape: DecoderShape, words: tuple[str, ...], window: int | None, handed: set[int], *, recomputed: bool
) -> Callable[[State], Kind]:
    """The kind of a layer: its parts, its mask, the length of its table, and whether anything trains before it.

    The first layer that keeps a table for its backward pass lets it go; so does it a mask if it is recomputed. shape:
    the layer's. handed: what earlier layers keep.
    """
    first, turns = bool(words[0]), recomputed or shape.mixer is None

    def kind(state: State) -> Kind:
        mask, table = mask_and_table(state, window)
        length = shape.rotary_dims[-1 if window is None else 0] if shape.rotary_dims and table is not None else ""
        kept = [table if turns and "still" not in words else None, mask if recomputed and shape.masked else None]
        opened = tuple([thing for thing in kept if thing is not None and id(thing) not in handed])
        handed.update(map(id, opened))
        untrained = "untrained" * (not state.hidden.needs)
        name = " ".join(filter(None, (*words, "masked" * (mask is not None), f"{length}", untrained)))
        return Kind(name, () if first else opened)

    return kind


def ends_of(shape: DecoderShape) -> set[int]:
    """The last layer of each window, whose gradients of what layers share are the first to come."""
    windows = shape.windows or (None,) * shape.layers
    return {max(number for number in range(shape.layers) if windows[number] == window) for window in set(windows)}


def _beginning(shape: DecoderShape, run: Run) -> list[Segment]:
    """What comes before the layers: the embedding, and with images the tower, its features put among the embeddings."""
    tower = shape.tower
    if not run.images or tower is None:
        return [Segment("start", lambda build, state: _start(build, state, shape, run), "embedding")]

    def words(build: Build, state: State) -> None:
        state.held["words"] = _embedded(build, shape, run)

    def start(build: Build, state: State) -> None:
        _prepared(build, state, shape, run, with_features(build, state, shape, tower))

    return [
        Segment("words", words, "embedding"),
        *tower_segments(tower, run),
        Segment("start", start, "image features"),
    ]


def _start(build: Build, state: State, shape: DecoderShape, run: Run) -> None:
    """Embedding, masks, and the tables of the rotation; the embeddings stay in a name until the model returns."""
    x = _embedded(build, shape, run)
    lay_idle(build, shape.idle, frozen=not run.train_vision)
    _prepared(build, state, shape, run, x)


def _embedded(build: Build, shape: DecoderShape, run: Run) -> Value:
    """The embeddings of the tokens."""
    tape = build.tape
    if shape.mixture is not None and shape.mixture.adapted:
        build.unadapted = STACKED_NAMES
    build.unadapted |= frozenset(shape.unadapted)
    build.transposed, build.input_gradients = shape.transposed, run.input_gradients
    tape.label = EMBEDDING
    rows = shape.embedding_rows or shape.vocabulary
    ways = 1 if shape.table_whole else shape.vocabulary_ways
    name = "embed_in" if shape.table_whole and not shape.tied else "embed_tokens"
    x = build.embedding(name, rows, shape.hidden, build.tokens, ways=ways)
    if shape.embedding_scale == "module":
        x = scale(tape, x)
    if run.input_gradients and not x.needs:
        x = wants_gradient(build, x)
    if shape.embedding_scale == "model":
        x = scale(tape, x)
    if shape.embedding_scale == "in place":
        x = scale_in_place(tape, x)
    return x


def _prepared(build: Build, state: State, shape: DecoderShape, run: Run, x: Value) -> None:
    """Positions, masks, and the tables of the rotation; the embeddings stay in a name until the model returns."""
    tape = build.tape
    state.held["embeddings"] = x
    if shape.order == "zamba":
        state.held["original"] = copy(tape, x)
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
        item = 2 if build.method.four_bit else build.method.item
        build.frozen("embed_positions", shape.sines * shape.hidden, item=item)
        x = add(tape, x, tape.value(build.sequence * shape.hidden, item))
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
        if not shape.way.causal:
            state.held[f"mask {window}"] = bidirectional_mask(build, build.sequence, build.sequence, run, window)
            continue
        state.held[f"mask {window}"] = make_mask(
            build,
            window,
            padding=run.padding or (bool(run.images) and shape.masks_images),
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
    found = tape.value(copies * shape.head_count * (shape.alibi_positions or build.sequence), item)
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
