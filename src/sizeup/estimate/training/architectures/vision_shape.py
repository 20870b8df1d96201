"""What a vision tower is made of, and how many images, patches and tokens a step gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from sizeup.estimate.training.architectures.projectors import Projector
from sizeup.estimate.training.architectures.tiles import Tiling, tiled
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.idle import Idle
from sizeup.estimate.training.settings import TrainSetting

if TYPE_CHECKING:
    from sizeup.estimate.training.runs import Run


class Tower(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes and habits of a tower.

    Patches. patch, frames, channels: of a patch; side: of an image in pixels, where the model says. patch_bias: of the
    convolution. class_token: trained rows before the patches. positions: a `table` that is looked up, a trained
    `parameter`, or a table that is `resampled` (four rows a patch, weighed) or `sampled` (as an image); position_rows
    long. resolutions: heights and widths that images are cut into tiles at; tiles_alone: only where a sequence has one
    image. hook: what passes for input embeddings, `patches`, or `embeddings` with their positions, or nothing.

    Layers. norm: `layer` or `rms`; first_norm, last_norm: before and after all layers. fused: query, key and value are
    one matrix. mlp: `plain` or `gated`. rotary: heads are turned in the type of the `stream`, or `wide`, in fp32.
    packed: all images are one sequence, attention runs image by image. masked: they are one, and a mask keeps them
    apart (Pixtral). window: patches on a side of a window of attention; whole: layers that see whole images. scaled:
    each half is multiplied by a weight (InternViT).

    Results. features: layers up to the one whose output is used; the rest runs in vain. deep: layers whose output is
    handed to the first layers of the text. names: of modules, where adapters ask for others. rest: weights that take no
    part. typed: the model is told which tokens are an image's; pixel_masks: and which pixels aren't padding.
    """

    hidden: int
    layers: int
    head_count: int
    ffn: int
    patch: int
    projector: Projector
    side: int = 0
    frames: int = 1
    channels: int = 3
    patch_bias: bool = True
    class_token: int = 0
    positions: str = ""
    position_rows: int = 0
    norm: str = "layer"
    first_norm: bool = False
    last_norm: bool = False
    fused: bool = False
    qkv_bias: bool = True
    output_bias: bool = True
    mlp: str = "plain"
    mlp_bias: bool = True
    activation: str = "gelu"
    rotary: str = ""
    packed: bool = False
    masked: bool = False
    window: int = 0
    whole: tuple[int, ...] = ()
    scaled: bool = False
    softmax_in_fp32: bool = True
    features: int = 0
    deep: tuple[int, ...] = ()
    names: dict[str, str] = {}
    rest: tuple[Idle, ...] = ()
    resolutions: tuple[tuple[int, int], ...] = ()
    tiles_alone: bool = False
    hook: str = "patches"
    typed: bool = False
    pixel_masks: bool = False

    def name(self, module: str) -> str:
        """The name of a module as adapters ask for it."""
        return self.names.get(module, module)

    def tiling(self, side: int, images: int) -> Tiling:
        """Tiles of each image of that side (0: of the tower's), where a sequence has so many."""
        if not self.resolutions:
            return Tiling()
        across = self.side // self.patch
        if self.tiles_alone and images > 1:
            return Tiling(whole=across * across)
        return tiled(side or self.side, self.side, across, self.resolutions)

    def tokens_of(self, side: int, images: int) -> int:
        """Tokens of an image of that side (0: of the tower's), where a sequence has so many."""
        if self.resolutions:
            return self.tiling(side, images).tokens
        return self.projector.tokens_of((side or self.side) // self.patch)

    def input_sizes(self, setting: TrainSetting) -> list[int]:
        """Bytes of pixels in fp32, of grids or sizes, of the kinds of tokens and of a mask of the pixels."""
        side = setting.image_size or self.side
        side -= side % self.patch if self.packed else 0
        if self.resolutions:
            side = self.side
        images = setting.sequences * setting.images * self.tiling(setting.image_size, setting.images).tiles
        sizes = [4 * images * self.channels * self.frames * side * side]
        if self.packed or self.masked or self.resolutions:
            sizes.append(24 * images)
        if self.typed:
            sizes.append(8 * setting.sequences * setting.sequence)
        return [*sizes, 8 * images * side * side] if self.pixel_masks else sizes

    @property
    def used(self) -> int:
        """Layers whose output is used."""
        return self.features or self.layers


class Images(msgspec.Struct, frozen=True):
    """How many images (or tiles of them) there are, their patches on a side, rows beside them, and how they are cut."""

    count: Any
    across: int
    extra: int
    tiling: Tiling = Tiling()

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return self.across * self.across

    @property
    def rows(self) -> int:
        """Rows of an image in the stream."""
        return self.patches + self.extra

    @property
    def tokens(self) -> Any:
        """Rows of all images."""
        return self.count * self.rows


def images_of(build: Build, tower: Tower, run: Run) -> Images:
    """The images of a step."""
    tiling = tower.tiling(run.image_size, run.images)
    side = tower.side if tower.resolutions else run.image_size or tower.side
    count = build.batch * run.images * tiling.tiles
    return Images(count, side // tower.patch, tower.class_token, tiling)
