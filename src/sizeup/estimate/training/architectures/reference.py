"""The forward pass of a frozen reference, in a step of preferences: beside everything that the policy keeps.

TRL 1.16, `trainer/dpo_trainer.py`: after the policy's forward pass the reference (a second model, or with adapters the
same one without them) computes the same batch without a graph and without recomputation.
"""

from __future__ import annotations

import msgspec

from sizeup.estimate.training.build import Build
from sizeup.estimate.training.program import Segment, State


def reference_forward(build: Build, parts: list[Segment]) -> None:
    """Run each kind of part once without a graph; its weights are counted apart."""
    tape = build.tape
    grad, tape.grad = tape.grad, False
    cached, tape.cached = tape.cached, []
    method = msgspec.structs.replace(build.method, train=False, rank=0, dora=False)
    other, state = Build(tape, method, build.batch, build.sequence, build.target), State()
    seen: set[str] = set()
    for part in parts:
        kind = part.key if part.kind is None else part.kind(state).name
        if kind not in seen:
            seen.add(kind)
            part.run(other, state)
    tape.grad, tape.cached = grad, cached
