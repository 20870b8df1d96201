"""Images that contradict a setting or the model: an error that names both and the way out."""

from __future__ import annotations

from sizeup.errors import BadInput
from sizeup.estimate.training.architectures.programs import Shape
from sizeup.estimate.training.architectures.shape import DecoderShape
from sizeup.estimate.training.architectures.vision_shape import Tower
from sizeup.estimate.training.settings import TrainSetting

#: More of either is a slip.
MOST_IMAGES, MOST_PIXELS = 2**16, 2**16


def check_images(setting: TrainSetting, shape: Shape) -> None:
    """Raise BadInput for images that can't be."""
    alone = not isinstance(shape, DecoderShape) and hasattr(shape, "tower")
    tower = shape.tower if isinstance(shape, DecoderShape) else None
    for name, most in (("images", MOST_IMAGES), ("image_size", MOST_PIXELS)):
        value = getattr(setting, name)
        if not 0 <= value <= most:
            raise BadInput(f"{name} is {value}", hint=f"give {name}=0 to {most:,}")
    seeing = isinstance(shape, DecoderShape) and bool(shape.idle)
    if not setting.train_vision and not seeing and not alone:
        raise BadInput("train_vision=False freezes a vision tower, but the model has none", hint="leave it out")
    if not setting.images:
        if setting.image_size and not alone:
            raise BadInput(
                f"image_size is {setting.image_size}, but images is 0, so the step is of text alone",
                hint="set images=1 or more, or leave image_size out",
            )
        return
    if tower is None:
        raise BadInput(
            f"images is {setting.images}, but "
            + ("the model's tower has no program yet" if seeing else "the model takes none among its tokens"),
            hint="leave images out: its tower's weights are counted" if seeing else "leave images out",
        )
    _check_sides(setting, tower)
    _check_room(setting, tower)


def image_notes(setting: TrainSetting, shape: Shape) -> list[str]:
    """What is to be said of a tower: that it lies idle, or how many tokens an image takes and what trains."""
    if not isinstance(shape, DecoderShape) or not shape.idle:
        return []
    if shape.tower is None or not setting.images:
        return ["given text alone, its towers lie idle: weights on the device, without gradients or optimizer states"]
    tower = shape.tower
    tokens = tower.tokens_of(setting.image_size, setting.images)
    trains = "the vision tower trains, too (train_vision=False freezes it)"
    share = trains if setting.train_vision else "the vision tower is frozen"
    return [f"an image takes {tokens:,} of a sequence's {setting.sequence:,} tokens; {share}"]


def _check_sides(setting: TrainSetting, tower: Tower) -> None:
    side, step = setting.image_size or tower.side, tower.patch * tower.projector.side
    if not side:
        raise BadInput(
            f"images is {setting.images}, but image_size isn't given, and the tower takes images of any size",
            hint=f"set image_size to a multiple of {step}",
        )
    if tower.resolutions:
        return
    if tower.position_rows and tower.positions != "resampled" and side != tower.side:
        raise BadInput(
            f"image_size is {side}, but the tower has positions for {tower.side} × {tower.side} pixels only",
            hint=f"set image_size={tower.side}, or leave it out",
        )
    if not tower.projector.tokens and side % step:
        raise BadInput(
            f"image_size {side} isn't a multiple of the {step} pixels that become one token",
            hint=f"set image_size={max(step, side // step * step)}",
        )


def _check_room(setting: TrainSetting, tower: Tower) -> None:
    """Images are among the tokens of a sequence, each after a token of text."""
    tokens = tower.tokens_of(setting.image_size, setting.images)
    least = setting.images * (tokens + 1)
    if least > setting.sequence:
        raise BadInput(
            f"images is {setting.images}, of {tokens:,} tokens each, but sequence is {setting.sequence:,}",
            hint=f"set sequence={least} or more, or fewer images",
        )
    for name in ("pipeline_parallel", "context_parallel"):
        if getattr(setting, name) > 1:
            raise BadInput(
                f"images is {setting.images}, but {name} is {getattr(setting, name)}, which splits text alone here",
                hint=f"set {name}=1, or images=0",
            )
