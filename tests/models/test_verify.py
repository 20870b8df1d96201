"""Headers laid beside anatomies, and stored totals explained."""

from __future__ import annotations

import csv
import math

import msgspec
import pytest
import recorded
from test_packed import on_disk, quantized

from sizeup.models.anatomy.registry import INDEX
from sizeup.models.config import Config
from sizeup.models.from_config import model_from_config
from sizeup.models.from_safetensors import model_from_safetensors
from sizeup.models.load import load_model
from sizeup.models.reconcile import explain, stored_elements
from sizeup.models.sources.header import Header, StoredTensor
from sizeup.models.verify import verify

DESCRIBED = [name for name in recorded.families() if name in INDEX]


def laid_side_by_side(family, tensors=None, **changes):
    header = recorded.header(family, "safetensors")
    if tensors is not None:
        header = msgspec.structs.replace(header, tensors=tuple(tensors))
    config = recorded.config(family) | {"num_nextn_predict_layers": 0} | changes
    return verify(header, Config(config, "config.json"))


@pytest.mark.parametrize("family", DESCRIBED)
def test_a_real_header_is_exact(family):
    found = laid_side_by_side(family)

    assert found.exact, (found.missing[:3], found.extra[:3], found.reshaped[:3], found.renamed[:3])


def test_a_missing_tensor_is_named_with_its_count():
    tensors = [t for t in recorded.header("llama", "safetensors").tensors if "up_proj" not in t.name]
    found = laid_side_by_side("llama", tensors)

    (missing,) = found.missing
    assert missing.name == "model.layers.{layer}.mlp.up_proj.weight"
    assert missing.count == 4
    assert missing.elements == 4 * 224 * 96
    assert missing.expected == (224, 96)
    assert found.extra == found.reshaped == found.renamed == ()


def test_an_extra_tensor_is_named():
    tensors = [*recorded.header("llama", "safetensors").tensors, StoredTensor("extra.weight", "F32", (3,), 0, 12)]

    assert [item.name for item in laid_side_by_side("llama", tensors).extra] == ["extra.weight"]


def test_a_reshaped_tensor_shows_both_shapes():
    tensors = [
        msgspec.structs.replace(t, shape=t.shape[::-1]) if t.name.endswith("down_proj.weight") else t
        for t in recorded.header("llama", "safetensors").tensors
    ]
    (reshaped,) = laid_side_by_side("llama", tensors).reshaped

    assert (reshaped.expected, reshaped.found, reshaped.count) == ((96, 224), (224, 96), 4)


def test_another_prefix_is_a_rename():
    tensors = [
        msgspec.structs.replace(t, name=t.name.removeprefix("model."))
        for t in recorded.header("llama", "safetensors").tensors
    ]
    found = laid_side_by_side("llama", tensors)

    assert found.missing == found.extra == found.reshaped == ()
    assert all("the anatomy has model." in item.note for item in found.renamed)


def test_a_tied_head_in_the_file_is_extra_with_its_reason():
    found = laid_side_by_side("qwen2", tie_word_embeddings=True)

    assert [(item.name, item.note) for item in found.extra] == [("lm_head.weight", "tied to model.embed_tokens.weight")]


@pytest.mark.parametrize("method", ["awq", "gptq", "fp8", "nvfp4", "compressed-tensors w4a16"])
def test_quantized_files_are_compared_by_logical_names(method):
    config = quantized("llama", method)

    assert verify(on_disk(config), Config(config, "config.json")).exact


def hub_count(header: Header) -> int:
    """Elements as a Hub counts them: by dtype."""
    return sum(math.prod(tensor.shape) for tensor in header.tensors)


@pytest.mark.parametrize(
    "method", ["awq", "gptq", "fp8", "fp8 per tensor", "nvfp4", "bitsandbytes int8", "compressed-tensors w4a16", "mlx"]
)
def test_stored_elements_are_those_of_the_files(method):
    """Packed weights, scales and all: the figure of a Hub page, from the configuration alone."""
    config = quantized("llama", method)
    header = on_disk(config)

    assert stored_elements(model_from_config(config)).value == hub_count(header)
    assert stored_elements(model_from_safetensors(header, config)).value == hub_count(header)


@pytest.mark.parametrize("family", recorded.families())
def test_stored_elements_of_headers_are_exact(family):
    header = recorded.header(family, "safetensors")

    assert stored_elements(model_from_safetensors(header, recorded.config(family))).value == hub_count(header)


def test_an_unexplained_figure_is_said():
    model = model_from_config(recorded.config("llama"))
    found = explain(model, model.parameters + 123_457)

    assert not found.explained
    assert found.unexplained == 123_457


def test_the_shortest_explanation_wins():
    model = model_from_config(recorded.config("llama"))

    assert explain(model, model.parameters).lines.parts[0].value == model.parameters
    assert len(explain(model, model.parameters).lines.parts) == 1


def test_published_totals_are_explained(truth_dir):
    """Every row that truth explains, of the families with an anatomy, comes out to the last element."""
    with (truth_dir / "params.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["match"] in {"explained", "exact_with_buffers"}]
    unexplained = []
    for row in rows:
        if row["model_type"] not in INDEX or "BY SIZE ONLY" in row["explanation"]:
            continue
        model = load_model(truth_dir / "configs" / f"{row['model_id'].replace('/', '--')}.json")
        if not explain(model, int(row["published_params"])).explained:
            unexplained.append((row["model_id"], explain(model, int(row["published_params"])).unexplained))

    assert unexplained == []
