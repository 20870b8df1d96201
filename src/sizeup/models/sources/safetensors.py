"""The headers of safetensors files: one file, or shards named by `model.safetensors.index.json`.

Layout: a little-endian u64, that many bytes of JSON, then the data. The data must be covered by the tensors without
gap or overlap, as the reference implementation demands, so a header that lies about a size shows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from sizeup.errors import BadFile, NotFound
from sizeup.formats import lookup
from sizeup.models.config import parse_config
from sizeup.models.sources.bytesource import LocalFile
from sizeup.models.sources.header import ByteSource, Header, StoredFile, StoredTensor, Value

MAX_HEADER = 100_000_000
MAX_TENSORS = 2_000_000
MAX_DIMENSIONS = 64
MAX_SHARDS = 10_000
INDEX = "model.safetensors.index.json"
AGAIN = "download the file again"

DTYPES = (
    "BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E5M2FNUZ", "F8_E4M3FNUZ", "F8_E8M0",
    "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64", "F64", "I64", "U64",
)  # fmt: skip
_BLOCKS = {dtype: (lookup(dtype).block_elements, lookup(dtype).block_bytes) for dtype in DTYPES}


class Index(msgspec.Struct, frozen=True):
    """Which shard holds which tensor, and the bytes of all tensors as the index claims them."""

    weight_map: dict[str, str]
    total_size: int | None = None

    @property
    def shards(self) -> list[str]:
        """The names of the shards, in order."""
        return sorted(set(self.weight_map.values()))


def read_safetensors(source: ByteSource, *, data_required: bool = True) -> Header:
    """The header of one file. Raises BadFile for anything that contradicts the file's size or itself."""
    name, size = source.name, source.size
    if size < 8:
        raise BadFile(f"{name} is {size} bytes long, too short for safetensors", hint=AGAIN)
    length = int.from_bytes(source.read(0, 8), "little")
    if length > min(MAX_HEADER, size - 8):
        raise BadFile(f"{name} claims a header of {length:,} bytes, and is {size:,} bytes long", hint=AGAIN)
    entries = _entries(source.read(8, length), name)
    metadata = _metadata(entries.pop("__metadata__", None), name)
    start = 8 + length
    tensors = tuple(_tensor(tensor, entry, start, name) for tensor, entry in entries.items())
    complete = _check_coverage(tensors, start, source, data_required=data_required)
    data_bytes = sum(tensor.nbytes for tensor in tensors)
    return Header("safetensors", tensors, metadata, (StoredFile(name, size, start),), data_bytes, size, complete)


def read_safetensors_path(path: str | os.PathLike[str], *, data_required: bool = True) -> Header:
    """The header of one file on disk."""
    with LocalFile(path) as source:
        return read_safetensors(source, data_required=data_required)


def read_sharded_path(index: str | os.PathLike[str], *, data_required: bool = True) -> Header:
    """One header for all shards that an index on disk names, which must lie beside it."""
    path = Path(index)
    try:
        parsed = parse_index(path.read_bytes(), str(path))
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}", hint="check the path") from None
    missing = [shard for shard in parsed.shards if not (path.parent / shard).is_file()]
    if missing:
        raise NotFound(
            f"{len(missing)} of {len(parsed.shards)} shards are missing beside {path}, first {missing[0]}",
            hint="finish the download",
        )
    headers = [read_safetensors_path(path.parent / shard, data_required=data_required) for shard in parsed.shards]
    return merge_shards(parsed.shards, headers, parsed.weight_map)


def parse_index(raw: bytes, origin: str) -> Index:
    """An index file. Raises BadFile, also for a shard name that leads out of the folder."""
    data = parse_config(raw, origin, most=MAX_HEADER)
    weight_map = data.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadFile(f"{origin} has no weight_map", hint=AGAIN)
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not shard.endswith(".safetensors") or not _is_plain(shard):
            raise BadFile(
                f"{origin} puts {tensor[:80]} into {str(shard)[:80]!r}, not a safetensors file beside it",
                hint="pickled weights are never opened: convert the model to safetensors",
            )
    if len(set(weight_map.values())) > MAX_SHARDS:
        raise BadFile(f"{origin} names more than {MAX_SHARDS:,} shards", hint=AGAIN)
    return Index(weight_map, claimed_total(data))


def claimed_total(data: dict[str, Any]) -> int | None:
    """`metadata.total_size` of an index, also of one for pickled shards; None when absent or impossible."""
    metadata = data.get("metadata")
    size = metadata.get("total_size") if isinstance(metadata, dict) else None
    if isinstance(size, bool) or not isinstance(size, int | float) or not 0 < size < 2**63 or size != int(size):
        return None
    return int(size)


def merge_shards(
    shards: Sequence[str], headers: Sequence[Header], weight_map: Mapping[str, str] = MappingProxyType({})
) -> Header:
    """One header for the shards.

    A tensor that lies in two shards counts where the index puts it. Raises BadFile when the index names a tensor
    that its shard lacks, and when the index is silent on a tensor that lies in two shards.
    """
    tensors: dict[str, StoredTensor] = {}
    for place, (shard, header) in enumerate(zip(shards, headers, strict=True)):
        for tensor in header.tensors:
            if weight_map.get(tensor.name, shard) != shard:
                continue
            if tensor.name in tensors:
                raise BadFile(f"{tensor.name[:80]} lies in two shards, and no index says which counts", hint=AGAIN)
            tensors[tensor.name] = msgspec.structs.replace(tensor, file=place)
    for name, shard in weight_map.items():
        if name not in tensors:
            raise BadFile(f"the index puts {name[:80]} into {shard}, which has no such tensor", hint=AGAIN)
    found = tuple(tensors.values())
    return Header(
        "safetensors", found, headers[0].metadata, tuple(header.files[0] for header in headers),
        sum(tensor.nbytes for tensor in found), sum(header.file_bytes for header in headers),
        all(header.complete for header in headers),
    )  # fmt: skip


def _is_plain(name: str) -> bool:
    return bool(name) and not {"/", "\\", "\0", ":"} & set(name) and name not in {".", ".."}


def _entries(raw: bytes, name: str) -> dict[str, Any]:
    try:
        entries = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadFile(f"{name} has a header that is not JSON ({str(error)[:80]})", hint=AGAIN) from None
    if not isinstance(entries, dict):
        raise BadFile(f"{name} has a header that is not a JSON object", hint=AGAIN)
    if len(entries) > MAX_TENSORS:
        raise BadFile(f"{name} has {len(entries):,} tensors; {MAX_TENSORS:,} is the most", hint=AGAIN)
    if b"\\u" in raw or raw.count(b'"data_offsets"') != len(entries) - ("__metadata__" in entries):
        _refuse_duplicates(raw, name)
    return entries


def _refuse_duplicates(raw: bytes, name: str) -> None:
    """Decode again, slowly, and find the key that is there twice, if any; the fast decoder keeps the last one."""
    import json

    def pairs(items: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in items:
            if key in seen:
                raise BadFile(f"{name} has {key[:80]} twice in its header", hint=AGAIN)
            seen.add(key)

    json.loads(raw, object_pairs_hook=pairs)


def _metadata(found: Any, name: str) -> dict[str, Value]:
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise BadFile(f"{name} has a __metadata__ that is not an object of strings", hint=AGAIN)
    return dict(found)


def _tensor(tensor: str, entry: Any, start: int, name: str) -> StoredTensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise BadFile(f"{name} lacks dtype, shape or data_offsets for {tensor[:80]}", hint=AGAIN) from None
    if not isinstance(dtype, str) or dtype not in _BLOCKS:
        raise BadFile(
            f"{name} gives {tensor[:80]} the unknown dtype {str(dtype)[:40]!r}", hint=f"known: {', '.join(DTYPES)}"
        )
    numbers = shape if isinstance(shape, list) else [-1]
    if len(numbers) > MAX_DIMENSIONS or not all(map(_is_count, (*numbers, begin, end))) or end < begin:
        raise BadFile(f"{name} gives {tensor[:80]} an impossible shape or range: {str(entry)[:120]}", hint=AGAIN)
    block_elements, block_bytes = _BLOCKS[dtype]
    blocks, rest = divmod(prod(shape), block_elements)
    if rest or blocks * block_bytes != end - begin:
        raise BadFile(
            f"{name} gives {tensor[:80]} {end - begin:,} bytes, which is not {dtype} of shape {shape}", hint=AGAIN
        )
    return StoredTensor(tensor, dtype, tuple(shape), start + begin, end - begin)


def _is_count(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**63


def _check_coverage(tensors: tuple[StoredTensor, ...], start: int, source: ByteSource, *, data_required: bool) -> bool:
    """Whether the data is all there. Raises BadFile for a gap, an overlap, a rest, or (if required) missing data."""
    end, last = start, "the header"
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset != end:
            what = "a gap before" if tensor.offset > end else "an overlap of"
            raise BadFile(f"{source.name} has {what} {tensor.name[:80]}, after {last[:80]}", hint=AGAIN)
        end, last = tensor.offset + tensor.nbytes, tensor.name
    if source.size > end:
        raise BadFile(f"{source.name} has {source.size - end:,} bytes that belong to no tensor", hint=AGAIN)
    if data_required and source.size < end:
        raise BadFile(
            f"{source.name} is incomplete: {source.size:,} bytes of {end:,}",
            hint="finish the download, or download it again",
        )
    return source.size == end


def model_files(names: Sequence[str]) -> list[str]:
    """The files that make up the model when no index says: `model.safetensors`, else all numbered shards, else one.

    Adapters, and the second copy of the weights that some repositories keep as `consolidated*`, are left out unless
    there is nothing else. Raises BadFile when several files could be the model.
    """
    if "model.safetensors" in names:
        return ["model.safetensors"]
    models = sorted(name for name in names if not name.startswith("adapter_")) or sorted(names)
    models = [name for name in models if not name.startswith("consolidated")] or models
    shards = [name for name in models if re.search(r"-\d{5}-of-\d{5}\.safetensors$", name)]
    if shards:
        _refuse_missing_shards(shards)
        return shards
    if len(models) > 1:
        raise BadFile(f"several files could be the model: {', '.join(models[:6])}", hint="give the path of one")
    return models


def _refuse_missing_shards(shards: Sequence[str]) -> None:
    """Numbered shards must be one whole set."""
    stem, count = re.sub(r"-\d{5}-of-\d{5}\.safetensors$", "", shards[0]), int(shards[0][-17:-12])
    wanted = {f"{stem}-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)}
    if wanted != set(shards):
        odd = min(wanted ^ set(shards))
        raise BadFile(f"the shards are not one whole set: {odd} is missing or too many", hint="finish the download")
