"""The inverse question: which machines run a model fast enough for so many users, cheapest and lowest-power first."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sizeup.advice.plans import Plan, make_plan
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.errors import SizeupError
from sizeup.machines.budget import machine_budget
from sizeup.machines.catalogue import Entry, entries
from sizeup.machines.device import Machine
from sizeup.machines.words import parse_machine
from sizeup.models.model import Model
from sizeup.quantity.units import GIB

COUNTS = (1, 2, 4, 8)
#: A machine without its GPUs: board, processor, supply, case, disk; and RAM for each GiB.
HOST_USD, RAM_USD_PER_GIB = 700, 4
HOST_WATTS = 60
#: Cards of laptops and chips that are part of something else can't be bought for a machine.
_NOT_SOLD = frozenset({"laptop", "embedded", "cpu"})
_LEAST_RAM = 32


class Choice(msgspec.Struct, frozen=True):
    """A machine that does it. price_usd: devices at launch price without tax, and a plain host; watts: at full load."""

    machine: str
    price_usd: int
    watts: int | None
    tokens_per_s: float
    low_tokens_per_s: float
    memory_bytes: int
    plan: Plan


class Wanted(msgspec.Struct, frozen=True):
    """What the machine must do: tokens/s for each of the users, each with a context."""

    speed: float
    context: int
    users: int
    format: str


def choices(model: Model, wanted: Wanted, most: int = 12) -> tuple[list[Choice], int]:
    """At most so many machines, by price, then power; and how many were looked at.

    A machine is left out when one with no higher price has no higher power and is as fast.
    """
    found: list[Choice] = []
    looked = 0
    for text, price, watts in _machines():
        looked += 1
        choice = _choice(model, wanted, text, price, watts)
        if choice is not None:
            found.append(choice)
    found.sort(key=lambda c: (c.price_usd, c.watts or 1 << 30))
    kept: list[Choice] = []
    for choice in found:
        if not any(_beats(better, choice) for better in kept):
            kept.append(choice)
    return kept[:most], looked


def _beats(one: Choice, other: Choice) -> bool:
    return one.tokens_per_s >= other.tokens_per_s and (one.watts or 1 << 30) <= (other.watts or 1 << 30)


def _machines() -> Iterator[tuple[str, int, int | None]]:
    """Descriptions of machines that can be bought, with price and power."""
    for entry in entries():
        if entry.klass in _NOT_SOLD or entry.bandwidth is None:
            continue
        if entry.kind == "unified":
            for size in entry.memory_choices:
                if entry.price_usd:
                    yield f"{entry.name} {size // GIB} GB", entry.price_usd, entry.power_w
        elif entry.price_usd and entry.memory_bytes:
            yield from _cards(entry)


def _cards(entry: Entry) -> Iterator[tuple[str, int, int | None]]:
    for count in COUNTS:
        ram = max(_LEAST_RAM, 1 << (count * (entry.memory_bytes or 0) // GIB).bit_length())
        price = count * (entry.price_usd or 0) + HOST_USD + ram * RAM_USD_PER_GIB
        watts = count * entry.power_w + HOST_WATTS if entry.power_w else None
        yield f"{count}x {entry.name}, {ram} GB RAM", price, watts


def _choice(model: Model, wanted: Wanted, text: str, price: int, watts: int | None) -> Choice | None:
    try:
        machine = parse_machine(text)
    except SizeupError:
        return None
    plan = _plan(model, wanted, machine)
    speed = plan.speed.decode_tokens_per_s
    if plan.fits.verdict == "no" or speed is None or speed.value < wanted.speed:
        return None
    memory = sum(device.memory_bytes or 0 for device in machine.gpus) or machine.cpu.memory_bytes or 0
    return Choice(text, price, watts, speed.value, speed.low, memory, plan)


def _plan(model: Model, wanted: Wanted, machine: Machine) -> Plan:
    setting = LlamaSetting(
        format=wanted.format, context=wanted.context * wanted.users, parallel=wanted.users, unified=wanted.users == 1,
        gpu_layers=-1 if machine.gpus else None,
    )  # fmt: skip
    return make_plan(model, setting, machine, machine_budget(machine))
