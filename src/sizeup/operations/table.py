"""The table of operations. CLI commands, the Python API, REST routes and JSON schemas are all made from it.

A row names its module; the module is imported when the operation is used, so that a face starts fast.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import msgspec

from sizeup.errors import BadInput


class Operation(msgspec.Struct, frozen=True):
    """One thing sizeup can do.

    name: `fit`; nested commands have a space: `machine calibrate`. help: one line.
    module: where its request type, response type and function live.
    request, function: their names there; the function takes one request and returns the response.
    argument: the request's field that the command line takes as its positional argument.
    """

    name: str
    help: str
    module: str
    request: str
    function: str
    argument: str | None = None

    @property
    def request_type(self) -> type[msgspec.Struct]:
        """The request type; imports the operation's module."""
        found: type[msgspec.Struct] = getattr(import_module(self.module), self.request)
        return found

    @property
    def call(self) -> Callable[[Any], msgspec.Struct]:
        """The function; imports the operation's module."""
        found: Callable[[Any], msgspec.Struct] = getattr(import_module(self.module), self.function)
        return found


def _operation(name: str, help_: str, argument: str | None = None) -> Operation:
    word = name.replace(" ", "_")
    request = "".join(part.capitalize() for part in name.split()) + "Request"
    return Operation(name, help_, f"sizeup.operations.{word}", request, word, argument)


OPERATIONS = (
    _operation("advise", "Which models run well on this machine, for a task."),
    _operation("show", "A model's parameters, bytes and cache, each number explained.", "model"),
    _operation("fit", "Whether a model fits and how fast it runs, by format and context.", "model"),
    _operation("train", "The memory of a training step: its peak, phases, parts, and what would make it fit.", "model"),
    _operation("machine", "This machine, or one described: what is free and usable, and how it is known."),
    _operation("machine calibrate", "Measure this machine in a minute; later predictions use what was found."),
    _operation("hardware", "Which machines run a model at a speed, cheapest and lowest-power first.", "model"),
    _operation("cost", "What a model's tokens cost here, against hosted APIs.", "model"),
    _operation("scale", "Scaling laws: loss, tokens, FLOPs, GPU-hours, energy and money of a training run."),
    _operation("rules", "Popular rules of thumb beside the exact figures.", "model"),
    _operation("accuracy", "How far off the estimates are, against simulations and measurements."),
    _operation("ledger", "Your ledger of simulations and measurements: list, export, import."),
    _operation("run", "Start the best plan of a model on an engine, and print its address.", "model"),
    _operation("chat", "Talk to a model, or to a server that runs.", "model"),
    _operation("bench", "Measure a model or a server: speed, waiting times, memory, beside the prediction.", "model"),
    _operation("eval", "Judge a model's output: what quantization cost, coding problems, standard tasks.", "model"),
    _operation("tune", "Find a model's fastest setting here by trying, within time and memory.", "model"),
    _operation("watch", "Watch the machine and its servers of models; a guard before memory runs out."),
    _operation("demo", "Train a small code model on this machine, to try everything without a download."),
    _operation("engine list", "The engines that are here, and those that are listening."),
    _operation("engine install", "Install an engine into an environment of its own.", "engine"),
)


def find_operation(name: str) -> Operation:
    """The operation of that name, its words parted by blanks or underscores. Raises BadInput for an unknown one."""
    for operation in OPERATIONS:
        if name in {operation.name, operation.name.replace(" ", "_")}:
            return operation
    raise BadInput(f"no such operation: {name!r}", hint=f"one of: {', '.join(o.name for o in OPERATIONS)}")
