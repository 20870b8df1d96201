"""Simulation: jobs and answers, and llama.cpp's own allocator against what is known of it."""

import json
import os
import resource as limits
import signal
import subprocess
import sys
import time
from pathlib import Path

import gguf
import pytest

from sizeup.engines.llamacpp.report import read_run
from sizeup.engines.llamacpp.setting import LlamaSetting, Override
from sizeup.engines.llamacpp.simulate import batches, context_parameters, job, read_answers, resident
from sizeup.errors import BadFile, MissingPart, NotFound, SizeupError
from sizeup.measure import simulation
from sizeup.measure.simulation import measure, measure_file, simulate, simulate_file
from sizeup.models.from_config import model_from_config

needs_llama = pytest.mark.llamacpp

ENGINE = {"part": "engine", "engine": "llama.cpp", "version": "1.2", "system": "AVX2 = 1"}


def context(index: int, model: int = 100) -> dict:
    return {
        "part": "context",
        "index": index,
        "seconds": 0.1,
        "buffers": [
            {"name": "CPU", "device": "CPU", "host": True, "model": model, "context": 20, "compute": 3},
            {"name": "CPU_REPACK", "device": "CPU", "host": False, "model": 50, "context": 0, "compute": 0},
        ],
        "output": 7,
        "work": 5,
        "metadata": 11,
        "graph": {"nodes": 9, "splits": 1},
        "tokens": 512,
    }


def test_answers_become_footprints():
    settings = [LlamaSetting(context=512), LlamaSetting(context=1024)]
    refused = {"part": "refused", "index": 1, "message": "no"}

    first, second = read_answers([ENGINE, context(0), refused], settings)

    assert (first.weights, first.cache, first.compute, first.output, first.total) == (150, 20, 3, 7, 180)
    assert (first.repacked, first.plain_weights, first.graph.nodes, first.version) == (50, 100, 9, "1.2")
    assert (second.refused, second.buffers, second.setting.context) == ("no", (), 1024)


@pytest.mark.parametrize(("mmap", "mapped", "weights"), [(True, 160, 0), (False, 0, 100)])
def test_what_stays_resident_by_kind(mmap, mapped, weights):
    (cell,) = read_answers([ENGINE, context(0)], [LlamaSetting(mmap=mmap)])

    found = resident(cell, file_bytes=160)

    assert (found.mapped, found.weights, found.repacked, found.cache) == (mapped, weights, 50, 20)
    assert (found.compute, found.output, found.work, found.metadata) == (3, 7, 5, 11)
    assert found.total == found.mapped + found.anonymous


def test_settings_that_load_alike_share_a_load():
    settings = [LlamaSetting(), LlamaSetting(context=1), LlamaSetting(format="F16"), LlamaSetting(repack=False)]

    assert batches(settings) == [(0, 1), (2,), (3,)]
    assert batches([LlamaSetting(overrides=(Override("exps"),))]) == [(0,)]


def test_the_job_names_every_size():
    setting = LlamaSetting(context=4096, cache_k="Q8_0", ubatch=0, batch=256, parallel=4, unified=False, full_swa=True)

    assert context_parameters(setting) == {
        "n_ctx": 4096, "n_batch": 256, "n_ubatch": 256, "n_seq_max": 4, "n_rs_seq": 0, "n_outputs_max": 4,
        "type_k": "q8_0", "type_v": "f16", "flash_attn_type": "auto", "kv_unified": False, "swa_full": True,
        "offload_kqv": True, "embeddings": False,
    }  # fmt: skip
    assert job("x", [setting])["work"] is False
    assert job("x", [setting], threads=3)["contexts"][0]["n_threads"] == 3


def test_a_run_cut_short_says_where():
    step = {"part": "step", "step": "loaded", "seconds": 1, "anonymous": 1, "mapped": 0, "resident": 2, "peak": 3}

    with pytest.raises(SizeupError, match="loaded"):
        read_run([ENGINE, step], LlamaSetting(), prefill=1, decode=1)


def test_an_unknown_family_is_refused_before_anything_starts(small_llama):
    import msgspec

    strange = msgspec.structs.replace(small_llama, family="no-such-family")
    with pytest.raises(NotFound, match="no-such-family"):
        simulate(strange, [LlamaSetting()])


def test_a_named_python_that_is_not_there(small_llama, monkeypatch):
    monkeypatch.setenv(simulation.VARIABLE, "/no/such/python")

    with pytest.raises(MissingPart, match="/no/such/python"):
        simulate(small_llama, [LlamaSetting()])


def test_a_python_without_llama_cpp(small_llama, monkeypatch, tmp_path):
    """The worker itself says that it lacks the package."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setenv(simulation.VARIABLE, str(bare))

    with pytest.raises(MissingPart, match="llama_cpp"):
        simulate(small_llama, [LlamaSetting()])


# ── with llama.cpp ────────────────────────────────────────────────────────────────────────────────────────────


@needs_llama
@pytest.mark.usefixtures("llama_python")
class TestEngine:
    """What only the engine itself can tell."""

    def test_cache_and_weights_are_the_plain_arithmetic(self, small_llama):
        settings = [LlamaSetting(format="F16", context=c, flash_attention="on") for c in (512, 4096)]

        small, large = simulate(small_llama, settings)

        assert large.cache == 4096 * 2 * 2 * (2 * 64) * 2
        assert large.cache == 8 * small.cache
        assert small.weights == large.weights
        vectors = 5 * 256
        assert small.weights == 2 * (small_llama.parameters - vectors) + 4 * vectors

    def test_what_it_refuses_is_told_and_the_others_go_on(self, small_llama):
        good, refused, after = simulate(
            small_llama,
            [
                LlamaSetting(context=512),
                LlamaSetting(context=512, cache_v="q8_0", flash_attention="off"),
                LlamaSetting(context=512),
            ],
        )

        assert "flash_attn" in refused.refused
        assert refused.buffers == ()
        assert good.total == after.total > 0

    def test_a_setting_that_makes_it_abort_does_not_take_the_others_along(self, truth_dir):
        """T5 with several caches fails an assertion in ggml.c."""
        config = json.loads(Path(truth_dir, "configs", "google--flan-t5-small.json").read_text())
        model = model_from_config(config, "t5")
        many = LlamaSetting(context=1024, parallel=4, unified=False)

        first, aborted, last = simulate(model, [LlamaSetting(context=512), many, LlamaSetting(context=512)])

        assert aborted.refused.startswith("llama.cpp aborts: ggml.c")
        assert first.total == last.total > 0

    def test_formats_and_loads_may_differ(self, small_llama):
        q4, f16, plain = simulate(
            small_llama,
            [LlamaSetting(format="Q4_0"), LlamaSetting(format="F16"), LlamaSetting(format="Q4_0", repack=False)],
        )

        assert q4.weights == plain.weights < f16.weights
        assert plain.repacked == 0

    @pytest.mark.parametrize(
        ("damage", "told"),
        [
            (lambda raw: b"GGML" + raw[4:], "magic"),
            (lambda raw: raw[:4] + (99).to_bytes(4, "little") + raw[8:], "version"),
            (lambda raw: raw[:200], "gguf|read|load"),
            (lambda raw: raw[:8] + (1 << 62).to_bytes(8, "little") + raw[16:], "gguf|tensor|load"),
        ],
    )
    def test_a_damaged_file_is_named_in_its_own_words(self, small_llama, tmp_path, damage, told):
        from sizeup.engines.llamacpp.simulate import file_content
        from sizeup.engines.llamacpp.weightless import header

        path = tmp_path / "broken.gguf"
        path.write_bytes(damage(header(*file_content(small_llama, LlamaSetting()))))

        with pytest.raises(BadFile, match=f"(?i){told}"):
            simulate_file(path, [LlamaSetting()])

    def test_a_truncated_file_is_refused(self, small_llama, tmp_path):
        from sizeup.engines.llamacpp.simulate import file_content
        from sizeup.engines.llamacpp.weightless import write_weightless

        path = tmp_path / "short.gguf"
        size = write_weightless(path, *file_content(small_llama, LlamaSetting()))
        os.truncate(path, size - 1000)

        with pytest.raises(BadFile, match="not within the file bounds"):
            simulate_file(path, [LlamaSetting()])

    def test_an_architecture_it_does_not_know(self, tmp_path):
        writer = gguf.GGUFWriter(tmp_path / "it.gguf", "imaginary")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()

        with pytest.raises(BadFile, match="imaginary"):
            simulate_file(tmp_path / "it.gguf", [LlamaSetting()])

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(BadFile, match=r"gone\.gguf"):
            simulate_file(tmp_path / "gone.gguf", [LlamaSetting()])

    def test_too_little_time_is_an_error_and_leaves_nothing(self, small_llama, tmp_path, monkeypatch):
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", None)

        with pytest.raises(SizeupError, match="ended"):
            simulate(small_llama, [LlamaSetting()], timeout=0.001)
        assert list(tmp_path.glob("*.gguf")) == []

    def test_a_killed_caller_leaves_no_worker(self, truth_dir, tmp_path):
        """The worker ends with its caller's pipe, not minutes later."""
        code = (
            "import json, sys; from sizeup.models.from_config import model_from_config;"
            "from sizeup.measure.simulation import simulate; from sizeup.engines.llamacpp.setting import LlamaSetting;"
            "m = model_from_config(json.load(open(sys.argv[1])), 'm'); print('go', flush=True);"
            "simulate(m, [LlamaSetting(context=512 * n) for n in range(1, 500)])"
        )
        config = Path(truth_dir, "configs", "Qwen--Qwen2.5-0.5B.json")
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        caller = subprocess.Popen([sys.executable, "-c", code, config], stdout=subprocess.PIPE, env=environment)
        caller.stdout.readline()
        time.sleep(1.0)
        os.kill(caller.pid, signal.SIGINT)

        assert caller.wait(20) != 0
        assert list(tmp_path.glob("sizeup-*")) == []

    def test_the_simulation_is_what_a_real_load_takes(self, small_llama):
        """Buffers to the byte; on three million parameters the process itself is most of the rest."""
        setting = LlamaSetting(format="Q4_0", context=4096, mmap=False)

        run, _ = measure(small_llama, setting, prefill=600, decode=3)
        (cell,) = simulate(small_llama, [setting])

        assert {b.name: b for b in run.buffers} == {b.name: b for b in cell.buffers}
        assert [step.step for step in run.steps] == ["start", "loaded", "ready", "prefilled", "decoded"]
        assert run.mapped == 0
        assert run.grown == pytest.approx(cell.total, rel=0.1)
        assert run.resident > run.grown

    def test_more_tokens_than_context_is_a_clear_error(self, small_llama, tmp_path):
        from sizeup.engines.llamacpp.randomweights import write_random
        from sizeup.engines.llamacpp.simulate import file_content

        setting = LlamaSetting(format="F16", context=256)
        path = tmp_path / "it.gguf"
        write_random(path, *file_content(small_llama, setting))

        with pytest.raises(SizeupError, match="600 \\+ 1 tokens don't fit in a context of 256"):
            measure_file(path, setting, prefill=600, decode=1)


@pytest.mark.slow
@needs_llama
@pytest.mark.usefixtures("llama_python")
def test_the_whole_grid(truth_dir):
    """Every model of the shipped ledger × contexts × caches × flash attention × ubatch × parallel, against the bars."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
    import build_ledger

    from sizeup.measure.accuracy import judge, summarize
    from sizeup.measure.llamacpp_rows import simulated_row

    grid = build_ledger.cells(("Q4_K_M",))
    before = limits.getrusage(limits.RUSAGE_CHILDREN)
    rows, models = [], {}
    for name in build_ledger.GRID_MODELS:
        try:
            model, record = build_ledger.load(name)
            found = simulate(model, grid)
        except SizeupError:
            continue
        models[record.key] = record
        rows += [simulated_row(model, cell, date="") for cell in found if not cell.refused]
    after = limits.getrusage(limits.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime <= 600, "processor seconds"
    assert len(models) >= 40

    by = {a.group["component"]: a for a in summarize(judge(rows, models).comparisons, ("component",))}
    assert by["weights"].worst == 0
    assert by["cache"].p95 == 0
    assert by["compute"].close >= 0.95
    assert by["total"].median <= 0.01
    assert by["total"].p95 <= 0.03
