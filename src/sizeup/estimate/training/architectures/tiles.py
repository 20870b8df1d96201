"""Images of any size as tiles (LLaVA-NeXT): the whole image at the tower's size, and as many tiles as fit it best.

Source: transformers 5.23, `image_processing_utils.select_best_resolution`, `models/llava_next/modeling_llava_next.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Tiling(msgspec.Struct, frozen=True):
    """Tiles of a square image. grid: tokens of all tiles but the whole image's; kept: tokens of them without padding.

    rows: lines of tokens, each of which ends with a token of its own. whole: tokens of the image at the tower's size.
    """

    tiles: int = 1
    grid: int = 0
    kept: int = 0
    rows: int = 0
    whole: int = 0

    @property
    def tokens(self) -> int:
        """Tokens that the image takes among the text's; alone it ends with one of its own."""
        return self.whole + (self.kept + self.rows if self.tiles > 1 else 1)


def best_resolution(side: int, resolutions: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The height and width that show most of a square image, with the least left over."""

    def worth(size: tuple[int, int]) -> tuple[int, int]:
        shown = min(int(side * min(size[0] / side, size[1] / side)) ** 2, side * side)
        return shown, shown - size[0] * size[1]

    return max(resolutions, key=worth)


def tiled(side: int, tile: int, across: int, resolutions: Sequence[tuple[int, int]]) -> Tiling:
    """A square image of that side; tile: pixels on a tile's side; across: its tokens on a side."""
    height, width = best_resolution(side, resolutions)
    rows, columns = height // tile * across, width // tile * across
    shorter = min(rows, columns)
    cut = (max(rows, columns) - shorter) // 2 * 2
    kept_rows, kept_columns = (rows, columns - cut) if columns > rows else (rows - cut, columns)
    tiles = 1 + -(-height // tile) * -(-width // tile)
    return Tiling(tiles, rows * columns, kept_rows * kept_columns, kept_rows, across * across)
