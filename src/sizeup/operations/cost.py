"""What a model's tokens cost here: energy, the hardware over its life, against hosted APIs, and where it breaks even.

Hosted prices are a dated table; give your own with --hosted-usd.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sizeup.advice.plans import Plan, make_plan
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.errors import AnswerIsNo, BadInput
from sizeup.estimate import cost as money
from sizeup.estimate.cost import HostedPrice, TokenCost
from sizeup.machines.device import Machine
from sizeup.machines.spec import load_machine
from sizeup.models.load import load_model
from sizeup.models.model import Model
from sizeup.quantity.units import format_rate, parse_count, parse_tokens

#: Batched decoding shares the weights' bytes: what the machine generates in all with --users.
_UNKNOWN_WATTS = 65.0


class CostRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which model, where, how much, and at what prices."""

    model: Annotated[str | dict[str, Any], Meta(description="A catalogue name, Hub id, path, Ollama tag.")]
    machine: Annotated[str, Meta(description="'2x RTX 4090, 64 GB RAM', a TOML file; default: this machine.")] = ""
    format: Annotated[str, Meta(description="The format to run.")] = "Q4_K_M"
    context: Annotated[str | int, Meta(description="Tokens of context for each user.")] = "8k"
    users: Annotated[int, Meta(description="Sequences at once.", ge=1, le=256)] = 1
    tokens_per_day: Annotated[str, Meta(description="Tokens generated a day (200K, 5M).")] = "1M"
    input_share: Annotated[float, Meta(description="Share of all tokens that are prompts.", ge=0, lt=1)] = 0.75
    years: Annotated[float, Meta(description="Years that the hardware serves.", gt=0)] = 3.0
    usd_per_kwh: Annotated[float, Meta(description="Price of electricity.", ge=0)] = 0.30
    hardware_usd: Annotated[float | None, Meta(description="What the machine cost; default: launch prices.")] = None
    hosted_usd: Annotated[float | None, Meta(description="Hosted price of a million generated tokens.")] = None
    offline: Annotated[bool, Meta(description="Never use the network.")] = False


class Comparison(msgspec.Struct, frozen=True):
    """One hosted price, with the prompts that come along, and tokens a day from which local is cheaper.

    date, source: when and where the price was read.
    """

    provider: str
    name: str
    usd_per_million: float
    same_model: bool
    break_even_tokens_per_day: float | None
    reachable: bool
    date: str = ""
    source: str = ""


class CostReport(msgspec.Struct, frozen=True):
    """USD for a million generated tokens here, and beside it what others ask.

    hardware_usd: None when no price is known; the cost is then energy alone.
    """

    model: str
    machine: str
    tokens_per_s: float
    watts: float
    hardware_usd: float | None
    tokens_per_day: float
    most_tokens_per_day: float
    local: TokenCost
    local_usd_per_million: float
    hosted: tuple[Comparison, ...]
    hosted_date: str
    hosted_source: str
    considerations: tuple[str, ...]
    notes: tuple[str, ...] = ()
    schema: str = "sizeup.cost/1"


def cost(request: CostRequest) -> CostReport:
    """Speed and power give energy; price and use give the share of the hardware; both stand beside hosted prices."""
    for name in ("hardware_usd", "hosted_usd"):
        value = getattr(request, name)
        if value is not None and value < 0:
            raise BadInput(f"{name} is {value}", hint="give 0 or more")
    model = load_model(request.model, network=not request.offline)
    machine = load_machine(request.machine or None)
    setting = LlamaSetting(
        format=request.format, context=parse_tokens(request.context) * request.users, parallel=request.users,
        unified=request.users == 1,
    )  # fmt: skip
    plan = make_plan(model, setting, machine)
    speed = plan.speed.decode_tokens_per_s
    if plan.fits.verdict == "no":
        raise AnswerIsNo(f"{model.name} in {request.format} doesn't fit on {machine.name}", hint="see `sizeup fit`")
    if speed is None:
        raise BadInput(plan.speed.because, hint="describe the machine's bandwidth in a TOML file")
    total = speed.value * request.users
    watts, price = _watts(machine, plan), request.hardware_usd
    price = _price(machine) if price is None else price
    wanted = float(parse_count(request.tokens_per_day))
    local = money.token_cost(
        watts, total, usd_per_kwh=request.usd_per_kwh, hardware_usd=price or 0.0, years=request.years,
        tokens_per_day=wanted,
    )  # fmt: skip
    table = money.hosted_prices()
    source = f"{table.how}: {table.source}"
    return CostReport(
        model.name, machine.name, total, watts, price, wanted, money.most_tokens_per_day(total), local,
        local.total_usd, _compared(request, model, local, price or 0.0, total), table.date, source,
        _considerations(speed.value), _notes(price, wanted, total),
    )  # fmt: skip


def _compared(
    request: CostRequest, model: Model, local: TokenCost, price: float, speed: float
) -> tuple[Comparison, ...]:
    own = [HostedPrice("yours", "given", 0.0, request.hosted_usd, model.name)] if request.hosted_usd is not None else []
    rows = []
    for hosted in (*own, *money.hosted_prices().prices):
        usd = hosted.output_usd if hosted.provider == "yours" else money.blended_usd(hosted, request.input_share)
        even = money.break_even_tokens_per_day(price, request.years, usd, local.energy_usd)
        reachable = even is not None and even <= money.most_tokens_per_day(speed)
        same = hosted.model == model.name
        rows.append(
            Comparison(hosted.provider, hosted.name, usd, same, even, reachable, hosted.date, hosted.source)
        )  # fmt: skip
    rows.sort(key=lambda row: (row.provider != "yours", not row.same_model, row.usd_per_million))
    return tuple(rows)


def _watts(machine: Machine, plan: Plan) -> float:
    """Power while decoding: the devices that work at their share of rated power, and the rest of the machine."""
    names = {device.device for device in plan.footprint.devices}
    working = [d for d in machine.gpus if any(name.startswith(d.name) for name in names)] or [machine.cpu]
    rated = sum(float(device.power_w or _UNKNOWN_WATTS) for device in working)
    own = 0.0 if machine.unified else money.HOST_WATTS
    return rated * money.DECODE_POWER_SHARE + own


def _price(machine: Machine) -> float | None:
    from sizeup.advice.hardware import HOST_USD, RAM_USD_PER_GIB

    if not machine.gpus or any(gpu.price_usd is None for gpu in machine.gpus):
        return None
    cards = float(sum(gpu.price_usd or 0 for gpu in machine.gpus))
    return cards if machine.unified else cards + HOST_USD + (machine.cpu.memory_bytes or 0) / 2**30 * RAM_USD_PER_GIB


def _considerations(speed: float) -> tuple[str, ...]:
    return (
        "local: prompts and answers stay on the machine; it works without a network; the model never changes under you",
        "hosted: larger models, no idle hardware, many requests at once; prices and models change",
        f"speed: one sequence here gets {format_rate(speed)} tokens/s; hosted services give 50 to 300",
    )


def _notes(price: float | None, wanted: float, speed: float) -> tuple[str, ...]:
    notes = []
    if price is None:
        notes.append("no price is known for this machine: energy alone is counted; give --hardware-usd")
    if wanted > money.most_tokens_per_day(speed):
        notes.append(
            f"{wanted:,.0f} tokens a day are more than the machine can generate; more users at once raise that"
        )
    return tuple(notes)
