"""Graphics cards in /sys/class/drm, whoever made them."""

from __future__ import annotations

import msgspec

from sizeup.machines.device import Link
from sizeup.machines.probes.files import Files, to_int

_FOLDER = "/sys/class/drm"
# Transfers per second and lane of PCIe generations, and the share of them that is payload (8b/10b, then 128b/130b).
_GENERATIONS = {"2.5": ("1.0", 250e6), "5.0": ("2.0", 500e6), "8.0": ("3.0", 985e6), "16.0": ("4.0", 1969e6),
                "32.0": ("5.0", 3938e6), "64.0": ("6.0", 7563e6)}  # fmt: skip


class Card(msgspec.Struct, frozen=True):
    """One card. path: its device folder; numbers: `vendor:device:revision` and `vendor:device` in hexadecimal."""

    path: str
    vendor: str
    numbers: tuple[str, str]
    address: str
    display: bool
    link: Link | None


def read_cards(files: Files, vendor: str) -> list[Card]:
    """The cards of a PCI vendor (`1002`), in the order of their PCI addresses."""
    cards = []
    names = files.names(_FOLDER)
    for name in names:
        if not (name.startswith("card") and name[4:].isdigit()):
            continue
        path = f"{_FOLDER}/{name}/device"
        number = _hex(files.read(f"{path}/vendor"))
        if number == vendor:
            connectors = [other for other in names if other.startswith(f"{name}-")]
            cards.append(_card(files, path, vendor, connectors))
    return sorted(cards, key=lambda card: card.address)


def parse_link(speed: str | None, width: str | None) -> Link | None:
    """`16.0 GT/s PCIe` and `16` → the link; None for anything else."""
    words = (speed or "").split()
    generation = _GENERATIONS.get(words[0]) if words else None
    lanes = to_int(width)
    if generation is None or not lanes or lanes > 32:
        return None
    return Link(kind="pcie", bytes_per_s=int(generation[1] * lanes), generation=generation[0], lanes=lanes)


def _card(files: Files, path: str, vendor: str, connectors: list[str]) -> Card:
    device = _hex(files.read(f"{path}/device"))
    revision = _hex(files.read(f"{path}/revision")).removeprefix("00") or "00"
    connected = (files.read(f"{_FOLDER}/{name}/enabled") for name in connectors)
    uevent = files.read(f"{path}/uevent") or ""
    address = next((line[14:] for line in uevent.splitlines() if line.startswith("PCI_SLOT_NAME=")), path)
    return Card(
        path=path, vendor=vendor, numbers=(f"{vendor}:{device}:{revision}", f"{vendor}:{device}"), address=address,
        display=any((state or "").strip() == "enabled" for state in connected),
        link=parse_link(files.read(f"{path}/max_link_speed"), files.read(f"{path}/max_link_width")),
    )  # fmt: skip


def _hex(text: str | None) -> str:
    """`0x744c` → `744c`; empty for anything else."""
    value = to_int(text) if text and text.strip().lower().startswith("0x") else None
    return "" if value is None or value > 0xFFFF else (f"{value:04x}" if value > 0xFF else f"{value:02x}")
