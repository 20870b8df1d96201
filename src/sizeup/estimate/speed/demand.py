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


class _Sums:
    """What adds up over the shares of a device."""

    def __init__(self) -> None:
        self.weight = self.expert = self.cache = self.attention = self.scatter = self.kernels = self.widths = 0.0
        self.rows = 0.0
        self.values, self.flops, self.expert_flops = ([0.0] * len(PACKINGS) for _ in range(3))

    def add_dense(self, demand: Demand, count: int, passing: int) -> None:
        """All but the routed experts, with so many tokens passing through."""
        self.weight += count * demand.weight_bytes
        self.kernels += count * demand.kernels
        self.widths += count * demand.widths * passing
        _add(self.values, demand.values, count)
        _add(self.flops, demand.values, 2 * count * passing)

    def add_memory(self, demand: Demand, count: int, tokens: int, depth: float, sequences: int) -> None:
        """States, keys and values, and attention to them."""
        self.cache += count * sequences * demand.state_bytes
        for reach in demand.reaches:
            seen = count * sequences * reach.seen_over(depth, tokens)
            self.cache += count * sequences * reach.bytes * reach.seen(depth + tokens)
            self.attention += reach.flops * seen
            self.scatter += reach.scatter * seen

    def add_experts(self, demand: Demand, count: int, passing: int) -> None:
        """Routed experts: those that the tokens choose between them are read, each token computes its own."""
        part = distinct_experts(demand.experts, demand.chosen, passing) / demand.experts
        used = demand.chosen / demand.experts
        self.expert += count * part * demand.expert_bytes
        self.kernels += count * demand.expert_kernels
        self.widths += count * demand.chosen * demand.expert_widths * passing
        self.rows = max(self.rows, passing * used / part)
        _add(self.values, demand.expert_values, count * part)
        _add(self.expert_flops, demand.expert_values, 2 * count * passing * used)


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
    sums, logits = _Sums(), output_rows or sequences
    for share in shares:
        passing = logits if share.outputs else tokens * sequences
        if share.dense:
            sums.add_dense(share.demand, share.count, passing)
            sums.add_memory(share.demand, share.count, tokens, depth, sequences)
        if share.experts and share.demand.experts:
            sums.add_experts(share.demand, share.count, passing)
    if output is not None:
        sums.add_dense(output, 1, logits)
    return Work(
        tokens * sequences, sums.weight + sums.expert, tuple(sums.values), tuple(sums.flops), tuple(sums.expert_flops),
        sums.rows, sums.attention, sums.cache, sums.widths, sums.kernels, sums.expert, layers, output is not None,
        tokens, sums.scatter,
    )  # fmt: skip


def _add(sums: list[float], more: tuple[float, ...], times: float) -> None:
    for place, value in enumerate(more):
        if value:
            sums[place] += value * times
