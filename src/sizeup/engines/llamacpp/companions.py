"""What may be loaded beside the model: the projector of images and sound (`--mmproj`), a draft model (`-md`).

Source: MmprojModel.tensor_force_quant in conversion/base.py, tools/mtmd/clip.cpp, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

import msgspec

from sizeup.estimate.footprint import DeviceFootprint, Footprint, device_footprint
from sizeup.estimate.footprint import footprint as total_footprint
from sizeup.models.model import Model

PROJECTOR_STACKS = frozenset({"vision", "audio", "projector"})
_MATRIX, _VECTOR = 2, 4


def projector_bytes(model: Model) -> int:
    """The weights of an mmproj file: encoders and projector, matrices at 2 B, vectors at 4 B; 0 without any.

    Its compute buffer depends on the size of an image and isn't counted.
    """
    return sum(
        block.count * tensor.parameters * (_MATRIX if len(tensor.shape) > 1 else _VECTOR)
        for block in model.blocks
        if block.stack in PROJECTOR_STACKS
        for tensor in block.tensors
    )


def with_draft(main: Footprint, draft: Footprint) -> Footprint:
    """Both models on the same machine: the draft's weights, cache and buffers beside the main model's.

    What the driver and the program take is counted once. draft: `footprint(draft_model, its_setting, machine)`.
    """
    beside = {device.device: device for device in draft.devices}
    return total_footprint([_joined(device, beside.get(device.device)) for device in main.devices])


def _joined(main: DeviceFootprint, draft: DeviceFootprint | None) -> DeviceFootprint:
    added = [
        msgspec.structs.replace(item, name=f"draft model: {item.name}")
        for item in (draft.items if draft else ())
        if item.component != "overhead"
    ]
    return device_footprint(main.device, (*main.items, *added), main.budget_bytes)
