"""Write small random checkpoints with the official writers, and convert them with llama.cpp's converter.

    python make_checkpoints.py OUT [--only llama,gemma2] [--llamacpp FOLDER]

Runs in an environment with torch and transformers. OUT/<type>/ then holds config.json and model.safetensors, and
OUT/<type>.gguf what `convert_hf_to_gguf.py` of the llama.cpp sources in FOLDER makes of it. The tokenizer is made up.
Prints a JSON line for each family: name, and what failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from families import FAMILIES


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--llamacpp", type=Path)
    options = parser.parse_args()
    only = [name for name in options.only.split(",") if name]
    for name in only or FAMILIES:
        failed = {}
        try:
            write(name, options.out / name)
        except Exception as error:
            failed["write"] = f"{type(error).__name__}: {error}"[:300]
        if options.llamacpp and not failed:
            try:
                convert(options.llamacpp, options.out / name, options.out / f"{name}.gguf")
                if FAMILIES[name].get("mmproj"):
                    convert(options.llamacpp, options.out / name, options.out / f"{name}-mmproj.gguf", mmproj=True)
            except BaseException as error:
                failed["convert"] = f"{type(error).__name__}: {error}"[:300]
        print(json.dumps({"family": name, "failed": failed}), flush=True)


def write(name: str, folder: Path) -> None:
    """A random model of the family, saved by transformers."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    settings = dict(FAMILIES[name])
    class_name, also = settings.pop("class", None), settings.pop("also", {})
    settings.pop("mmproj", None)
    config = transformers.models.auto.configuration_auto.CONFIG_MAPPING[name](**settings)
    maker: Any = getattr(transformers, class_name) if class_name else None
    model = maker(config) if maker else transformers.AutoModelForCausalLM.from_config(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    saved = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(saved | also))
    vocabulary = {f"token {number}": number for number in range(vocabulary_of(saved))}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": []}))


def vocabulary_of(config: dict[str, Any]) -> int:
    """Tokens of a model, also of one whose text is a part."""
    return config.get("vocab_size") or config.get("text_config", {}).get("vocab_size", 0)


def convert(sources: Path, folder: Path, target: Path, *, mmproj: bool = False) -> None:
    """What llama.cpp's converter makes of a checkpoint, with a made-up tokenizer; mmproj: its towers."""
    if str(sources) not in sys.path:
        sys.path[:0] = [str(sources), str(sources / "gguf-py")]
    import gguf
    import torch
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    hparams = ModelBase.load_hparams(folder, False) | FAMILIES[folder.name].get("also", {})
    kind = ModelType.MMPROJ if mmproj else ModelType.TEXT
    made = get_model_class(get_model_architecture(hparams, kind), mmproj=mmproj)

    class WithoutTokenizer(made):  # type: ignore[misc, valid-type]
        model_arch = made.model_arch
        no_mtp = True

        def set_vocab(self) -> None:
            self.gguf_writer.add_tokenizer_model("gpt2")
            self.gguf_writer.add_token_list([f"token {number}" for number in range(vocabulary_of(self.hparams))])

    with torch.inference_mode():
        WithoutTokenizer(folder, gguf.LlamaFileType.MOSTLY_BF16, target, hparams=hparams).write()


if __name__ == "__main__":
    main()
