"""What each layer asks for, and the sum over the layers that a device computes in one pass."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sizeup.estimate.speed.work import PACKINGS, Work

NOTHING = (0.0,) * len(PACKINGS)
#: Keys and values of a token from which a processor's prefetchers don't follow them.
_FAR_BYTES = 4096


class Reach(msgspec.Struct, frozen=True):
    """How a mixer looks back. window: the most tokens it sees; None means all.

    bytes: keys and values kept for one token. flops: of one token for each token that it sees. heads: of queries.
    """

    window: int | None
    bytes: float
    flops: float
    heads: int = 0

    @property
    def scatter(self) -> float:
        """Heads · (bytes / 4,096)²: how far apart the keys lie that a head reads one after the other."""
        return self.heads * (self.bytes / _FAR_BYTES) ** 2

    def seen(self, depth: float) -> float:
        """Tokens that one sees at that depth."""
        return depth if self.window is None else min(depth, self.window)

    def seen_over(self, depth: float, tokens: int) -> float:
        """Σ over `tokens` new tokens after `depth` of what each sees, itself included."""
        if self.window is None or depth + tokens <= self.window:
            return tokens * (depth + (tokens + 1) / 2)
        growing = max(0.0, self.window - depth)
        return growing * (depth + (growing + 1) / 2) + (tokens - growing) * self.window


class Demand(msgspec.Struct, frozen=True):
    """One layer (or the output) of a model in one format.

    weight_bytes, values: of all tensors but the routed experts; values by packing.
    expert_bytes, expert_values: of all routed experts together; experts, chosen: how many there are, how many a token
    uses. widths: inputs and outputs of the dense matrices, expert_widths: of one expert's. reaches: of its attention.
    state_bytes: of its recurrent state, read and written. kernels: started a pass.
    """

    weight_bytes: float = 0.0
    values: tuple[float, ...] = NOTHING
    expert_bytes: float = 0.0
    expert_values: tuple[float, ...] = NOTHING
    experts: int = 0
    chosen: int = 0
    widths: float = 0.0
    expert_widths: float = 0.0
    reaches: tuple[Reach, ...] = ()
    state_bytes: float = 0.0
    kernels: float = 0.0
    expert_kernels: float = 0.0


class Share(msgspec.Struct, frozen=True):
    """`count` layers of one kind on a device: all of the layer, or only one part of it.

    outputs: only tokens that get logits pass through.
    """

    demand: Demand
    count: int
    dense: bool = True
    experts: bool = True
    outputs: bool = False


def distinct_experts(experts: int, chosen: int, tokens: float) -> float:
    """Expected distinct experts that tokens choose: E · (1 - (1 - k/E)^n), choices taken as even and independent.

    Real routers are uneven: a batch of 32 over 128 experts reads about a tenth fewer.
    """
    return experts * (1 - (1 - chosen / experts) ** tokens) if experts else 0.0


def pass_work(
    shares: Iterable[Share],
    *,
    tokens: int = 1,
    depth: float = 0,
    sequences: int = 1,
    layers: int = 0,
    output: Demand | None = None,
    output_rows: int | None = None,
) -> Work:
    """The sum of what a device does in one pass of `tokens` new tokens for each of `sequences`, after `depth` tokens.

    output: the head, when it is on this device; output_rows: of the tokens, how many get logits (None: one a sequence).
    """
    every = tokens * sequences
    weight = expert = cache = attention = scatter = kernels = widths = rows = 0.0
    values, flops, expert_flops = ([0.0] * len(PACKINGS) for _ in range(3))
    for share in shares:
        demand, count = share.demand, share.count
        passing = (output_rows or sequences) if share.outputs else every
        if share.dense:
            weight += count * demand.weight_bytes
            kernels += count * demand.kernels
            widths += count * demand.widths * passing
            cache += count * sequences * demand.state_bytes
            _add(values, demand.values, count)
            _add(flops, demand.values, 2 * count * passing)
            for reach in demand.reaches:
                cache += count * sequences * reach.bytes * reach.seen(depth + tokens)
                seen = count * sequences * reach.seen_over(depth, tokens)
                attention += reach.flops * seen
                scatter += reach.scatter * seen
        if share.experts and demand.experts:
            part = distinct_experts(demand.experts, demand.chosen, passing) / demand.experts
            used = demand.chosen / demand.experts
            expert += count * part * demand.expert_bytes
            kernels += count * demand.expert_kernels
            widths += count * demand.chosen * demand.expert_widths * passing
            rows = max(rows, passing * used / part)
            _add(values, demand.expert_values, count * part)
            _add(expert_flops, demand.expert_values, 2 * count * passing * used)
    if output is not None:
        weight += output.weight_bytes
        kernels += output.kernels
        _add(values, output.values, 1)
        _add(flops, output.values, 2 * (output_rows or sequences))
    return Work(
        every,
        weight + expert,
        tuple(values),
        tuple(flops),
        tuple(expert_flops),
        rows,
        attention,
        cache,
        widths,
        kernels,
        expert,
        layers,
        output is not None,
        tokens,
        scatter,
    )


def _add(sums: list[float], more: tuple[float, ...], times: float) -> None:
    for place, value in enumerate(more):
        if value:
            sums[place] += value * times
