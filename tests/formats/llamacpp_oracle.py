"""What llama.cpp's own quantizer decides for the small families, asked in its own environment.

`SIZEUP_LLAMACPP_PYTHON` names the Python of an environment with llama-cpp-python. Run as a script, this module records
the answers for the default tests:

    SIZEUP_LLAMACPP_PYTHON=… python tests/formats/llamacpp_oracle.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf

sys.path.insert(0, str(Path(__file__).parent))

from gguf_families import FAMILIES, Family

from sizeup.formats.mix_rules import DEFAULTS

RECORDED = Path(__file__).parent / "data" / "mix_types.json"
SCRIPT = Path(__file__).parent / "llamacpp_quantize.py"
FTYPES = {kind.name.partition("_")[2]: int(kind) for kind in gguf.LlamaFileType} | {"Q1_0": 40, "Q2_0": 41}
QUANTIZED = [mix for mix in DEFAULTS if mix not in {"F32", "F16", "BF16", "NVFP4"}]
CASES = [(mix, imatrix) for mix in QUANTIZED for imatrix in (False, True)]


def python() -> str | None:
    return os.environ.get("SIZEUP_LLAMACPP_PYTHON")


def imatrix_sizes(family: Family) -> dict[str, int]:
    return {
        tensor.name: tensor.row * (tensor.shape[-3] if len(tensor.shape) > 2 else 1)
        for tensor in family.tensors
        if len(tensor.shape) > 1
    }


def ask(family: Family, path: Path, cases: list[tuple[str, bool]], output: Path | None = None) -> list[dict | str]:
    """For each (mix, imatrix): the type of each tensor, or the error text. Without an output file it's a dry run."""
    family.write(path)
    jobs = [
        {
            "input": str(path),
            "mix": FTYPES[mix],
            "imatrix": imatrix_sizes(family) if imatrix else None,
            "output": str(output) if output else None,
        }
        for mix, imatrix in cases
    ]
    done = subprocess.run([python(), str(SCRIPT)], input=json.dumps(jobs), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def record() -> None:
    """Writes what the quantizer decided: for each family and mix one letter a tensor, in the family's order."""
    letters: dict[str, str] = {}
    families = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, family in FAMILIES.items():
            answers = {}
            for (mix, imatrix), types in zip(CASES, ask(family, Path(folder) / "model.gguf", CASES), strict=True):
                if isinstance(types, dict):
                    codes = [letters.setdefault(types[t.name], chr(65 + len(letters))) for t in family.tensors]
                    answers[f"{mix}{' imatrix' * imatrix}"] = "".join(codes)
            families[name] = {
                case: codes
                for case, codes in answers.items()
                if not case.endswith(" imatrix") or codes != answers[case.removesuffix(" imatrix")]
            }
    version = subprocess.run(
        [python(), "-c", "import llama_cpp; print(llama_cpp.__version__)"], capture_output=True, text=True, check=True
    )
    data = {
        "recorded_with": f"llama_model_quantize (dry run) of llama-cpp-python {version.stdout.strip()}",
        "letters": {letter: kind for kind, letter in letters.items()},
        "families": families,
    }
    RECORDED.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    record()
