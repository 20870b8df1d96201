"""Published measurements become rows with their citation."""

import pytest

from sizeup.errors import BadFile
from sizeup.measure.import_published import COLUMNS, read_published

HEAD = ",".join(COLUMNS)


def line(
    measured="640.0",
    unit="MiB",
    metric="KV buffer",
    hardware="V100 CUDA",
    gpus="1",
    setting="n_ctx 2048; ubatch 512; FA off",
):
    return f"inference,m,llama.cpp,{setting},{hardware},{gpus},{measured},{unit},{metric},a paper"


def test_lines_of_one_run_become_one_row():
    (row,) = read_published([
        HEAD,
        line(),
        line("162", metric="CUDA0 compute buffer"),
        line("9.01", metric="host compute buffer", hardware="CUDA_Host"),
        line("1", "GiB", metric="model buffers CUDA0+CUDA1"),
    ])  # fmt: skip

    assert row.components == {
        "cache": 640 * 2**20,
        "compute.GPU0": 162 * 2**20,
        "compute.host": round(9.01 * 2**20),
        "weights": 2**30,
    }
    assert row.setting == {"context": 2048, "ubatch": 512, "flash_attention": "off"}
    assert (row.source, row.kind, row.machine_class, row.gpus) == ("a paper", "measure", "gpu", ("cuda",))
    assert row.workload == {"as published": "n_ctx 2048; ubatch 512; FA off"}


def test_decimal_units_stay_decimal():
    (row,) = read_published([HEAD, line("1.5", "GB(ambiguous)", metric="GPU memory")])

    assert row.components == {"total": 1_500_000_000}


def test_several_gpus_are_told():
    (row,) = read_published([HEAD, line(gpus="2", hardware="2x CUDA")])

    assert (row.machine_class, row.gpus) == ("several gpus", ("cuda", "cuda"))


def test_only_the_methods_asked_for_are_read():
    assert read_published([HEAD, line()], frozenset({"vllm"})) == []


@pytest.mark.parametrize(("measured", "unit"), [("x", "MiB"), ("-1", "MiB"), ("1", "parsecs"), ("", "GB")])
def test_what_is_no_amount_is_named_with_its_line(measured, unit):
    with pytest.raises(BadFile, match="line 2"):
        read_published([HEAD, line(measured, unit)])


def test_a_missing_column_is_named():
    with pytest.raises(BadFile, match="'source'"):
        read_published([HEAD.removesuffix(",source"), line()])


def test_every_llamacpp_row_of_the_truth_is_read(truth_dir):
    with (truth_dir / "memory_published.csv").open(newline="") as lines:
        rows = read_published(lines, frozenset({"llama.cpp"}))

    assert sum(len(row.components) for row in rows) >= 12
    assert all(row.source for row in rows)


def test_every_published_load_is_reproduced_or_explained():
    """A buffer within a hundredth of its estimate speaks for itself; every other has its reason beside it."""
    from sizeup.measure.ledger import shipped
    from sizeup.measure.published_loads import published_loads

    loads = published_loads(*shipped())

    assert {load.run for load in loads} >= {"EleutherAI/pythia-2.8b", "Qwen3-30B-A3B"}
    for load in loads:
        assert load.known > 0
        assert load.source
        same = load.error is not None and abs(load.error) < 0.01
        assert same or " B" in load.note, f"{load.run} {load.component}"


def test_a_load_without_its_setting_is_named_and_not_estimated():
    from sizeup.measure.published_loads import published_loads
    from sizeup.measure.rows import Row

    row = Row(
        "measure", "m", "llama.cpp", {"cache": 5, "weights.GPU0": 3, "weights.host": 4}, "a page", method="published"
    )

    found = {load.component: load for load in published_loads([row], {})}
    assert (found["weights"].known, found["weights"].estimated, found["cache"].error) == (7, None, None)
