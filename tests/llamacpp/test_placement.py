"""Placement: the fastest that fits; commands say what was planned."""

import msgspec
import pytest
from golden import GIB, machine, model
from hypothesis import given, settings
from hypothesis import strategies as st

from sizeup.engines.llamacpp.command import server_command
from sizeup.engines.llamacpp.companions import projector_bytes, with_draft
from sizeup.engines.llamacpp.footprint import footprint
from sizeup.engines.llamacpp.placement import place
from sizeup.engines.llamacpp.setting import LlamaSetting, Override
from sizeup.errors import BadInput
from sizeup.models.from_config import model_from_config


def test_everything_on_the_gpu_when_it_fits():
    """An 8B model on 24 GB."""
    found = place(model("Llama-3.1-8B"), LlamaSetting(), machine(24 * GIB))

    assert found.fits
    assert found.setting.gpu_layers == -1
    assert found.setting.cpu_moe_layers == 0


def test_experts_go_to_the_host_before_layers_do():
    """A mixture keeps what every token reads on the GPU, and no more experts on the host than need be."""
    m, computer = model("Qwen3-30B-A3B"), machine(12 * GIB)
    found = place(m, LlamaSetting(), computer)
    fewer = msgspec.structs.replace(found.setting, cpu_moe_layers=found.setting.cpu_moe_layers - 1)

    assert found.fits
    assert found.setting.gpu_layers == -1
    assert 0 < found.setting.cpu_moe_layers < 48
    assert not place(m, fewer, computer).fits


def test_layers_go_to_the_host_when_there_are_no_experts():
    """As many layers on the GPU as fit, and one more doesn't."""
    m, computer = model("gemma-2-27b"), machine(12 * GIB)
    found = place(m, LlamaSetting(), computer)
    more = msgspec.structs.replace(found.setting, gpu_layers=found.setting.gpu_layers + 1)

    assert found.fits
    assert 0 < found.setting.gpu_layers < 46
    assert not place(m, more, computer).fits


def test_uneven_gpus_are_balanced():
    """When llama.cpp's own split overfills one card, layers move to the other."""
    m = model("gemma-2-27b")
    computer = machine(16 * GIB, 6 * GIB)
    found = place(m, LlamaSetting(), computer)

    assert found.fits
    assert found.setting.gpu_layers == -1
    assert all(d.total_bytes <= d.budget_bytes for d in found.footprint.devices)


def test_nothing_fits():
    """A model beyond everything is reported as such, not as an error."""
    found = place(model("DeepSeek-V2"), LlamaSetting(), machine(8 * GIB, memory=16 * GIB))

    assert not found.fits
    assert found.footprint.total_bytes > 100 * GIB


def test_a_given_number_of_layers_is_kept():
    """-ngl from the user is no subject for a search."""
    found = place(model("Llama-3.1-8B"), LlamaSetting(gpu_layers=7), machine(24 * GIB))

    assert found.setting.gpu_layers == 7


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["Llama-3.1-8B", "Qwen3-30B-A3B", "gemma-3-1b"]), st.integers(2, 40), st.integers(2, 96))
def test_what_is_said_to_fit_is_within_every_budget(name, gpu, host):
    """No device is ever planned beyond its budget."""
    found = place(model(name), LlamaSetting(context=16384), machine(gpu * GIB, memory=host * GIB))
    within = all(d.budget_bytes is None or d.total_bytes <= d.budget_bytes for d in found.footprint.devices)

    assert found.fits == within or not found.fits


def test_a_footprint_adds_up():
    """Devices, items and derivations tell one total."""
    found = footprint(model("Qwen3-30B-A3B"), LlamaSetting(gpu_layers=-1, cpu_moe_layers=8), machine(24 * GIB, 8 * GIB))

    assert found.total_bytes == sum(d.total_bytes for d in found.devices)
    assert found.total_bytes == sum(found.component(c) for c in ("weights", "cache", "compute", "overhead"))
    assert int(found.term.value) == found.total_bytes
    assert [d.device for d in found.devices] == ["card 0 #0", "card 1 #1", "host"]


def test_the_command_says_what_was_planned():
    """Only what differs from the defaults."""
    wanted = LlamaSetting(
        context=32768, gpu_layers=-1, cache_k="q8_0", cache_v="q8_0", cpu_moe_layers=12, parallel=2, unified=False
    )

    assert server_command(wanted, "m.gguf") == (
        [
            "llama-server",
            "-m",
            "m.gguf",
            "-c",
            "32768",
            "-ngl",
            "all",
            "-np",
            "2",
            "--no-kv-unified",
            "-ctk",
            "q8_0",
            "-ctv",
            "q8_0",
            "--n-cpu-moe",
            "12",
        ]
    )
    assert "--device none" in " ".join(server_command(LlamaSetting(gpu_layers=0), "m.gguf"))
    assert server_command(LlamaSetting(), "o/m:Q4_K_M", hub=True)[1:3] == ["-hf", "o/m:Q4_K_M"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cache_v": "q8_0", "flash_attention": "off"}, ("cache_v", "flash_attention")),
        ({"cache_k": "q3_0"}, ("cache_k", "q3_0")),
        ({"context": 0}, ("context",)),
        ({"parallel": 300}, ("parallel",)),
        ({"parallel": 8, "context": 4, "unified": False}, ("parallel", "context")),
        ({"gpu_layers": -2}, ("gpu_layers",)),
        ({"split_mode": "row"}, ("split_mode",)),
        ({"tensor_split": (0.0, 0.0)}, ("tensor_split",)),
        ({"flash_attention": "maybe"}, ("flash_attention",)),
        ({"overrides": (Override("(", "CPU"),)}, ("override",)),
        ({"overrides": (Override("x", "NPU"),)}, ("override", "NPU")),
        ({"format": "Q9_Z"}, ("Q9_Z",)),
    ],
)
def test_settings_that_llama_cpp_refuses(changes, words):
    """Both settings that disagree are named, and the way out."""
    with pytest.raises(BadInput) as told:
        footprint(model("Llama-3.1-8B"), LlamaSetting(**changes), machine())

    assert all(word in str(told.value) for word in words)
    assert told.value.hint


def test_projectors_count_where_they_go():
    """The encoder of images goes to the first GPU, at two bytes a parameter."""
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
        "text_config": {
            "model_type": "gemma3_text", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 1024,
            "sliding_window": 64,
        },
        "vision_config": {
            "model_type": "siglip_vision_model", "hidden_size": 128, "intermediate_size": 256,
            "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 224, "patch_size": 14,
        },
    }  # fmt: skip
    m = model_from_config(config)
    computer = machine(8 * GIB)
    wanted = LlamaSetting(format="F16", gpu_layers=-1)
    without = footprint(m, wanted, computer)
    with_it = footprint(m, msgspec.structs.replace(wanted, projector=True), computer)

    assert with_it.devices[0].total_bytes - without.devices[0].total_bytes == projector_bytes(m) > 0
    assert with_it.devices[1] == without.devices[1]


def test_a_draft_model_shares_the_program():
    """Weights, cache and buffers are added; contexts of the driver are not."""
    computer = machine(24 * GIB)
    main = footprint(model("gemma-2-27b"), LlamaSetting(gpu_layers=-1), computer)
    draft = footprint(model("gemma-3-1b"), LlamaSetting(gpu_layers=-1), computer)
    both = with_draft(main, draft)

    assert both.component("overhead") == main.component("overhead")
    assert both.component("weights") == main.component("weights") + draft.component("weights")
