"""Which llama.cpp is asked: a setting, the package, one on the path; and that a library says what the package says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.errors import MissingPart, SizeupError
from sizeup.measure import llamacpp_road
from sizeup.measure.llamacpp_road import LIBRARY_VARIABLE, PYTHON_VARIABLE, find_road
from sizeup.measure.simulation import simulate
from sizeup.progress import listening


@pytest.fixture
def nothing(monkeypatch, tmp_path):
    """A machine without any llama.cpp; the folder is the only one on its path."""
    for variable in (PYTHON_VARIABLE, LIBRARY_VARIABLE, "SIZEUP_WORKER_PYTHON"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("SIZEUP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr("sizeup.workers.host.find_spec", lambda _name: None)
    (tmp_path / "bin").mkdir()
    return tmp_path


def program(folder, name="llama-server", version="9.8.7 (build 1)"):
    path = folder / name
    path.write_text(f"#!/bin/sh\necho 'version: {version}'\n")
    path.chmod(0o755)
    return path


def test_without_any_every_step_is_in_the_error(nothing):
    with pytest.raises(MissingPart) as failure:
        find_road()

    assert "llama-cpp-python" in failure.value.message
    assert "llama-server" in failure.value.message
    assert "engine install" in failure.value.hint


def test_a_library_beside_a_program_on_the_path(nothing):
    (nothing / "real" / "bin").mkdir(parents=True)
    (nothing / "real" / "lib").mkdir()
    library = nothing / "real" / "lib" / "libllama.so"
    library.touch()
    (nothing / "bin" / "llama-server").symlink_to(program(nothing / "real" / "bin"))
    told = []

    with listening(lambda what, _done, _all: told.append(what)):
        road = find_road()

    assert (road.library, road.version, road.python) == (str(library.resolve()), "9.8.7 (build 1)", sys.executable)
    assert [("llama-cpp-python" in step, "on the path" in step) for step in road.steps] == [
        (True, False),
        (False, True),
    ]
    assert told == [f"looking for llama.cpp: {step}" for step in road.steps]


def test_a_program_built_as_one_file_is_no_road(nothing):
    program(nothing / "bin")

    with pytest.raises(MissingPart, match="one file"):
        find_road()


def test_settings_come_first(nothing, monkeypatch):
    (nothing / "bin" / "libllama.so").touch()
    program(nothing / "bin")
    monkeypatch.setenv(LIBRARY_VARIABLE, str(nothing / "bin"))
    assert find_road().library.endswith("libllama.so")

    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    assert find_road() == llamacpp_road.Road(sys.executable, steps=(f"{PYTHON_VARIABLE} names {sys.executable}",))


@pytest.mark.parametrize("variable", [PYTHON_VARIABLE, LIBRARY_VARIABLE])
def test_a_setting_that_names_nothing(nothing, monkeypatch, variable):
    monkeypatch.setenv(variable, "/no/such/place")

    with pytest.raises(MissingPart, match="/no/such/place"):
        find_road()


def test_a_library_of_something_else_is_refused(nothing, monkeypatch, small_llama):
    (nothing / "bin" / "libllama.so").write_bytes(b"\x7fELF no")
    monkeypatch.setenv(LIBRARY_VARIABLE, str(nothing / "bin"))

    with pytest.raises(SizeupError, match=r"libllama\.so is no llama\.cpp"):
        simulate(small_llama, [LlamaSetting()])


@pytest.fixture
def package_library(llama_python):
    """The libllama that the package brings."""
    code = "import llama_cpp, pathlib; print(pathlib.Path(llama_cpp.__file__).parent / 'lib' / 'libllama.so')"
    done = subprocess.run([llama_python, "-c", code], capture_output=True, text=True, check=True)
    path = Path(done.stdout.strip())
    if not path.is_file():
        pytest.skip(f"no {path.name} in the package")
    return path


@pytest.mark.llamacpp
def test_a_library_says_to_the_byte_what_the_package_says(package_library, monkeypatch, small_llama):
    settings = [
        LlamaSetting(format="Q4_0"),
        LlamaSetting(format="Q4_0", context=4096, parallel=4, unified=False, cache_k="q8_0", cache_v="q8_0"),
        LlamaSetting(format="Q4_0", cache_v="q8_0", flash_attention="off"),
    ]
    from_package = simulate(small_llama, settings, threads=2)
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    monkeypatch.setenv(LIBRARY_VARIABLE, str(package_library))

    for ours, theirs in zip(simulate(small_llama, settings, threads=2), from_package, strict=True):
        assert (ours.buffers, ours.output, ours.work, ours.graph) == (
            theirs.buffers,
            theirs.output,
            theirs.work,
            theirs.graph,
        )
        assert ours.refused == theirs.refused


@pytest.mark.llamacpp
def test_a_library_with_other_structs_is_refused(package_library):
    """A field that isn't where it is looked for has another value than its default."""
    source = Path(llamacpp_road.__file__).parents[2]
    code = (
        f"import sys; sys.path.insert(0, {json.dumps(str(source))})\n"
        "from sizeup.workers import llamacpp_library as it\n"
        "fields = [f for f in it.ModelParams._fields_ if f[0] != 'lazy_mode']\n"
        "it.ModelParams = type('ModelParams', (it.ctypes.Structure,), {'_fields_': fields})\n"
        "it._FUNCTIONS['llama_model_default_params'] = (it.ModelParams, ())\n"
        f"it.Library({json.dumps(str(package_library))})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "has other model parameters than llama.cpp 0.5.0: main_gpu is 1" in done.stderr
