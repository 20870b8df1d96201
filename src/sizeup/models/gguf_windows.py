"""Which layers of a GGUF model see only a window: llama.cpp decides by architecture, then by metadata.

Source: load_swa_pattern and load_arch_hparams in src/models/*.cpp, llama.cpp 0c1e570 (October 2026). An architecture
that isn't listed ignores `attention.sliding_window`, even when the file gives one.
"""

from __future__ import annotations

import msgspec


class WindowRule(msgspec.Struct, frozen=True):
    """period: every period-th layer is full (0: none is; None: the file must list the layers).

    full_first: the full layer is the first of each period, not the last. size: the window when the file names none.
    """

    period: int | None
    full_first: bool = False
    size: int | None = None
    chunked: bool = False

    def windowed(self, layer: int) -> bool:
        """Whether a layer has a window, by the rule alone."""
        if not self.period:
            return self.period == 0
        return layer % self.period != 0 if self.full_first else layer % self.period < self.period - 1


RULES = {
    **dict.fromkeys(("afmoe", "cohere2", "mellum", "muse-glimmer", "olmo2"), WindowRule(4)),
    **dict.fromkeys(("cohere2moe", "laguna"), WindowRule(4, full_first=True)),
    **dict.fromkeys(("gemma3", "gemma-embedding"), WindowRule(6)),
    **dict.fromkeys(
        ("gemma4", "gemma4-assistant", "mimo2", "maple", "step35", "spark2_5", "granite_swa", "dots3note", "dflash"),
        WindowRule(None),
    ),
    **dict.fromkeys(("deepseek4", "lfm2"), WindowRule(0)),
    "exaone-moe": WindowRule(4, size=128),
    "exaone4": WindowRule(4, size=4096),
    "gemma2": WindowRule(2, size=4096),
    "gemma3n": WindowRule(5),
    "gpt-oss": WindowRule(2),
    "llama4": WindowRule(4, size=8192, chunked=True),
    "modern-bert": WindowRule(3, full_first=True),
    "plamo3": WindowRule(8),
    "smallthinker": WindowRule(4, full_first=True, size=4096),
}

#: EXAONE 4 has windows only at this depth (its 32B model).
_EXAONE4_LAYERS = 64


def windows(
    architecture: str, layers: int, size: int | None, pattern: tuple[bool, ...] | int | None
) -> list[int | None]:
    """The window of each layer, None for full attention.

    size: `attention.sliding_window` (0 switches windows off). pattern: `attention.sliding_window_pattern`, a list of
    layers or a period.
    """
    rule = RULES.get(architecture)
    if rule is None or size == 0 or (architecture == "exaone4" and layers != _EXAONE4_LAYERS):
        return [None] * layers
    fixed = architecture in {"llama4", "smallthinker"}
    if fixed and size is None and architecture == "smallthinker":
        return [None] * layers
    window = rule.size if fixed else size or rule.size
    if window is None:
        return [None] * layers
    if isinstance(pattern, tuple):
        return [window if layer < len(pattern) and pattern[layer] else None for layer in range(layers)]
    if isinstance(pattern, int):
        rule = msgspec.structs.replace(rule, period=pattern)
    return [window if rule.windowed(layer) else None for layer in range(layers)]


def is_chunked(architecture: str) -> bool:
    """Whether the architecture's windows are chunks (Llama 4)."""
    rule = RULES.get(architecture)
    return rule is not None and rule.chunked
