"""Write down what transformers builds: the checkpoint tensors of every model type, without allocating any of them.

    python scripts/dump_transformers.py OUT                      # every mapping, default configurations
    python scripts/dump_transformers.py OUT --mapping causal-lm --only llama,gemma3
    python scripts/dump_transformers.py OUT --configs DIR        # real config.json files, by their `architectures`

Runs in an environment that has torch and transformers. Each class is built on the meta device in a forked child with
a time limit. OUT/<mapping>/<model_type>.json.gz (or OUT/truth/<file>.json.gz) then holds

    model_type, mapping, class, config      what was built, with every default filled in
    given                                   the configuration as it was in the file (with --configs)
    settings                                what was set because the class's defaults are incomplete
    tensors   {name: shape}                 what `save_pretrained` writes: original checkpoint names (the conversion
                                            mapping run in reverse), tied copies left out, persistent buffers in
    buffers   [name]                        those of them that are not parameters
    ties      {name: name}                  tied tensor → the tensor that holds its values
    parameters                              elements of all parameters, ties counted once
    error                                   instead of all these, when the class could not be built

`scripts/compare_anatomy.py` reads the files and needs neither torch nor transformers.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import signal
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from sizeup.workers.transformers_meta import describe, find_class, part_for

MAPPINGS = {
    "causal-lm": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "image-text-to-text": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "speech-seq2seq": "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    "masked-lm": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "multimodal-lm": "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES",
    "base": "MODEL_MAPPING_NAMES",
}


#: What must be set before a class can be built whose own defaults are incomplete, by model type.
SETTINGS: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "deepseek_v2": {"num_experts_per_tok": 6},
    "dots1": {"n_routed_experts": 128, "n_shared_experts": 2, "num_experts_per_tok": 6},
    "dbrx": {"attn_config": {"kv_n_heads": 8, "clip_qkv": 8, "rope_theta": 500000.0}},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention", "conv"] * 8},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8},
    "qwen4_exp_text": {
        "indexer_n_heads": 16,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 256,
        "indexer_budget": 2048,
        "indexer_compress_ratio": 4,
        "ple_layer_ids": [1, 2],
        "eos_token_id": 1,
    },
    "reformer": {"is_decoder": True},
    "esm": {"vocab_size": 33, "pad_token_id": 1},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mapping", choices=MAPPINGS, action="append", help="only these mappings")
    parser.add_argument("--only", default="", help="only these model types, comma-separated")
    parser.add_argument("--configs", type=Path, help="a folder of config.json files instead of the defaults")
    parser.add_argument("--timeout", type=int, default=120, help="seconds for one class")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    warnings.simplefilter("ignore")
    tasks = _config_tasks(options) if options.configs else _default_tasks(options)
    failed = _run(tasks, options.timeout, options.jobs)
    print(f"{len(tasks)} classes, {failed} of them could not be built", file=sys.stderr)
    return 0


def _default_tasks(options: argparse.Namespace) -> list[tuple[Path, dict[str, Any]]]:
    from transformers.models.auto import modeling_auto

    only = {item for item in options.only.split(",") if item}
    tasks = []
    for mapping in options.mapping or MAPPINGS:
        for model_type, names in getattr(modeling_auto, MAPPINGS[mapping]).items():
            if not only or model_type in only:
                name = names if isinstance(names, str) else names[0]
                target = options.out / mapping / f"{model_type}.json.gz"
                tasks.append((target, {"model_type": model_type, "mapping": mapping, "class": name}))
    return tasks


def _config_tasks(options: argparse.Namespace) -> list[tuple[Path, dict[str, Any]]]:
    tasks = []
    for file in sorted(options.configs.glob("*.json")):
        config = json.loads(file.read_text())
        name = (config.get("architectures") or [""])[0]
        request = {"model_type": config.get("model_type", ""), "mapping": "truth", "class": name, "config": config}
        tasks.append((options.out / "truth" / f"{file.stem}.json.gz", request))
    return tasks


def _run(tasks: list[tuple[Path, dict[str, Any]]], timeout: int, jobs: int) -> int:
    """Fork a child for each task, `jobs` at a time; the number of classes that could not be built."""
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    running: dict[int, tuple[Path, dict[str, Any]]] = {}
    failed = 0
    for task in [*tasks, None]:
        while running and (task is None or len(running) >= jobs):
            pid, status = os.wait()
            target, request = running.pop(pid)
            if status:
                failed += 1
                if not target.exists():
                    _write(target, request | {"error": f"the child ended with status {status}: time or memory"})
        if task is not None:
            pid = os.fork()
            if pid == 0:
                os._exit(_child(*task, timeout))
            running[pid] = task
    return failed


def _child(target: Path, request: dict[str, Any], timeout: int) -> int:
    target.unlink(missing_ok=True)
    signal.alarm(timeout)
    try:
        _write(target, build(request))
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error}"[:300]
        _write(target, request | {"error": f"{text} ({Path(where.filename).name}:{where.lineno})"})
        return 1
    return 0


def _write(target: Path, record: dict[str, Any]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(target, "wt", compresslevel=4) as file:
        json.dump(record, file, default=str)


def build(request: dict[str, Any]) -> dict[str, Any]:
    """Build the class on the meta device and describe its checkpoint, as the transformers worker does."""
    import torch
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config_class = CONFIG_MAPPING[request["model_type"]]
    settings = SETTINGS.get(request["model_type"], {})
    model_class = find_class(request["model_type"], request["class"])
    config = config_class.from_dict(request["config"]) if "config" in request else config_class(**settings)
    config = part_for(model_class, config)
    with torch.device("meta"), contextlib.redirect_stderr(None):
        model = model_class(config)
    built = {
        "class": model_class.__name__,
        "config": config.to_dict(),
        "given": request.get("config"),
        "settings": settings,
    }
    return request | built | describe(model)


if __name__ == "__main__":
    sys.exit(main())
