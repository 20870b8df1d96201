"""Plans of other engines, tensor parallel, speculation: what follows from the physics, and what is refused."""

import pytest

import sizeup
from sizeup.engines.vllm.traffic import layout_of
from sizeup.errors import BadInput
from sizeup.estimate.speed.checkpoint import stored_bytes
from sizeup.models.load import load_model

TWO = "2x RTX 4090, 64 GB RAM"


def decode(**changes):
    found = sizeup.fit("Qwen/Qwen3-8B", **{"machine": TWO, "context": "8k"} | changes)
    return found.best.speed.decode_tokens_per_s.value


def test_weights_in_16_bits_are_the_parameters():
    model = load_model("Qwen/Qwen3-8B")

    assert stored_bytes(model, layout_of("BF16")) == pytest.approx(2 * model.parameters, rel=1e-6)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_two_gpus_share_every_layer(engine):
    one = sizeup.fit("Qwen/Qwen3-8B", machine=TWO, engine=engine, format="BF16", context="8k")
    two = sizeup.fit("Qwen/Qwen3-8B", machine=TWO, engine=engine, format="BF16", context="8k", tensor_parallel=2)

    assert 1.3 < two.best.tokens_per_s / one.best.tokens_per_s < 2
    assert two.best.footprint.component("weights") == pytest.approx(one.best.footprint.component("weights"), rel=1e-6)
    assert len(two.best.footprint.devices) == 2
    assert "2" in two.best.command


def test_fewer_bits_are_faster():
    speeds = [decode(engine="vllm", format=name) for name in ("BF16", "FP8", "AWQ")]

    assert speeds == sorted(speeds)


def test_ollama_is_llamacpp_with_a_server_around_it():
    assert 0.8 < decode(engine="ollama", format="Q4_K_M") / decode(format="Q4_K_M") < 1


def test_mlx_runs_on_apple():
    found = sizeup.fit("Qwen/Qwen3-8B", machine="M3 Max 64 GB", engine="mlx")

    assert found.fits
    assert found.best.engine == "mlx"


def test_what_does_not_fit_exits_with_3():
    found = sizeup.fit("meta-llama/Llama-3.3-70B-Instruct", machine="RTX 4090", engine="vllm", format="BF16")

    assert found.exit_code == 3
    assert found.remedies


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"engine": "mlx"}, "metal"),
        ({"engine": "vllm", "machine": "M3 Max 64 GB"}, "has none"),
        ({"engine": "vllm", "machine": "16 cores, 64 GB RAM"}, "has none"),
        ({"tensor_parallel": 2}, "splits layers"),
        ({"engine": "ollama", "tensor_parallel": 2}, "splits layers"),
        ({"engine": "vllm", "tensor_parallel": 4}, "has 2"),
        ({"engine": "vllm", "tensor_parallel": 3, "machine": "4x RTX 4090"}, "heads"),
        ({"engine": "mlx", "machine": "M3 Max 64 GB", "tensor_parallel": 2}, "no tensor parallel"),
        ({"engine": "vllm", "kv": "q8_0"}, "--kv"),
        ({"engine": "vllm", "gpu_layers": 10}, "--gpu-layers"),
        ({"engine": "vllm", "format": "Q4_K_M"}, "Q4_K_M"),
        ({"engine": "vllm", "context": "10M"}, "context"),
        ({"speculative": "2"}, "acceptance"),
        ({"speculative": "much:Qwen/Qwen3-0.6B"}, "acceptance"),
    ],
)
def test_what_cannot_be_is_refused(changes, words):
    with pytest.raises(BadInput, match=words):
        sizeup.fit("Qwen/Qwen3-8B", **{"machine": TWO} | changes)


def test_speculation_pays_with_a_small_draft():
    found = sizeup.fit(
        "Qwen/Qwen3-32B", machine="RTX 5090", format="Q4_K_M", context="8k", speculative="0.8:Qwen/Qwen3-0.6B"
    )
    spec = found.speculation

    assert 1.3 < spec.speedup < 4
    assert 1 < spec.accepted < spec.proposed + 1
    assert spec.draft_bytes > 3e8


def test_free_proposals_help_more_the_more_are_accepted():
    gains = [
        sizeup.fit("Qwen/Qwen3-8B", machine=TWO, format="Q4_K_M", context="8k", speculative=str(a)).speculation.speedup
        for a in (0.2, 0.5, 0.9)
    ]

    assert gains == sorted(gains)


def test_users_share_what_is_read():
    found = sizeup.fit("Qwen/Qwen3-8B", machine=TWO, engine="vllm", format="AWQ", context="4k", users=8)
    by_users = {row.users: row.tokens_per_s for row in found.best.speed.by_users}

    assert by_users[8] > 3 * by_users[1]
