"""What a million tokens cost: energy, hardware over its life, hosted prices, and where local becomes cheaper."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import msgspec

_FILE = Path(__file__).with_name("hosted_prices.json")
#: Share of a device's rated power while it decodes: memory-bound work leaves most arithmetic units idle.
DECODE_POWER_SHARE = 0.7
#: The rest of a machine under load: board, memory, fans, supply losses.
HOST_WATTS = 60.0
SECONDS_PER_DAY = 86400.0
DAYS_PER_YEAR = 365.25


class HostedPrice(msgspec.Struct, frozen=True):
    """A hosted API's list price, USD for a million tokens. model: of the catalogue when its weights are open.

    date, source: when and where it was read.
    """

    provider: str
    name: str
    input_usd: float
    output_usd: float
    model: str = ""
    date: str = ""
    source: str = ""


class HostedPrices(msgspec.Struct, frozen=True):
    """A dated table. date: of the newest price; how, source: in words, for all of them."""

    date: str
    how: str
    source: str
    prices: tuple[HostedPrice, ...]


@lru_cache(maxsize=1)
def hosted_prices() -> HostedPrices:
    """The table that ships with this version."""
    return msgspec.json.decode(_FILE.read_bytes(), type=HostedPrices)


class TokenCost(msgspec.Struct, frozen=True):
    """USD for a million generated tokens. hardware_usd: its price spread over what it generates in its life."""

    energy_kwh: float
    energy_usd: float
    hardware_usd: float

    @property
    def total_usd(self) -> float:
        """Energy and hardware."""
        return self.energy_usd + self.hardware_usd


def energy_kwh(watts: float, tokens_per_s: float, tokens: float = 1e6) -> float:
    """Power · time: W · tokens / (tokens/s) / 3.6·10⁶."""
    return watts * tokens / tokens_per_s / 3.6e6


def token_cost(
    watts: float, tokens_per_s: float, *, usd_per_kwh: float, hardware_usd: float, years: float, tokens_per_day: float
) -> TokenCost:
    """The cost of a million tokens of a machine that generates so many a day for so many years.

    Known error: the energy of an idle machine isn't counted (it would be on anyway, or off).
    """
    energy = energy_kwh(watts, tokens_per_s)
    lifetime = tokens_per_day * DAYS_PER_YEAR * years
    return TokenCost(energy, energy * usd_per_kwh, hardware_usd / lifetime * 1e6 if lifetime else 0.0)


def blended_usd(price: HostedPrice, input_share: float) -> float:
    """USD for a million generated tokens with the prompt tokens that come with them: out + in · share / (1 - share)."""
    return price.output_usd + price.input_usd * input_share / (1 - input_share)


def break_even_tokens_per_day(hardware_usd: float, years: float, hosted_usd: float, energy_usd: float) -> float | None:
    """Tokens a day above which the machine is cheaper: hardware / (life · saving); None if energy alone costs more."""
    saving = (hosted_usd - energy_usd) / 1e6
    return hardware_usd / (years * DAYS_PER_YEAR * saving) if saving > 0 else None


def most_tokens_per_day(tokens_per_s: float) -> float:
    """What the machine can generate in a day at all."""
    return tokens_per_s * SECONDS_PER_DAY
