"""Small W8A8S checkpoints as the real msmodelslim writes them: on a CPU, without CANN, with its published recipes.

A random model of a class of transformers, with a tokenizer, is quantized by `msmodelslim quant`. What a recipe calls
its calibration data is looked for in the working folder first, so a short file of that name there keeps a run short.

    python -m tests.real.quantize Qwen3-14B-mini-w8a8s --recipe qwen3-14b --dtype bfloat16

needs the extra `msmodelslim` and takes half a minute or more.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# torch_npu without CANN fails when torch loads it; and nothing is to be downloaded.
ENVIRONMENT = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True)
class Recipe:
    """A published recipe: the model type that selects it, the name of its calibration file, the model's class."""

    model_type: str
    calibration: str
    family: str = "qwen3"


RECIPES = {
    "qwen3-8b": Recipe("Qwen3-8B", "mix_calib.jsonl"),
    "qwen3-14b": Recipe("Qwen3-14B", "calib_prompt.jsonl"),
    "qwen3-32b": Recipe("Qwen3-32B", "cn_en.jsonl"),
    "qwen2-7b": Recipe("Qwen2-7B", "cn_en.jsonl", "qwen2"),
}
TEXTS = [
    "The river rose in the night and by morning the lower fields were under water.",
    "def mean(values):\n    return sum(values) / len(values)",
    "Explain in two sentences why the sky is blue.",
    "List three uses of a hash table, and one case where a tree is better.",
    "把下面的句子翻译成英文:今天天气很好。",
    "A train leaves at nine and arrives at eleven; how long does it take?",
]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # tokens 0, 1, 2


def quantize(output: Path, recipe: str, dtype: str = "float16", *, mix: dict[str, str] | None = None) -> Path:
    """Make a checkpoint; raises CalledProcessError, with what msmodelslim said, if it fails.

    mix: types of layers by pattern that go into the recipe beside its own, as {"model.layers.0.mlp.up_proj": "float"}.
    """
    chosen = RECIPES[recipe]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        _run(
            [sys.executable, "-m", __spec__.name, str(work / "float"), "--float", chosen.family, "--dtype", dtype], None
        )
        lines = [json.dumps({"inputs_pretokenized": text}, ensure_ascii=False) for text in TEXTS]
        (work / chosen.calibration).write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = [str(Path(sys.executable).parent / "msmodelslim"), "quant", "--model_type", chosen.model_type]
        command += ["--model_path", str(work / "float"), "--save_path", str(output.absolute()), "--device", "cpu"]
        command += ["--trust_remote_code", "False"]
        command += ["--quant_type", "w8a8s"] if mix is None else ["--config_path", _changed(chosen, mix, work)]
        _run(command, work)
    return output


def _run(command: list[str], folder: Path | None) -> None:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | ENVIRONMENT, input="n\n", text=True, capture_output=True, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stdout[-4000:] + done.stderr[-8000:])
        done.check_returncode()


def _changed(recipe: Recipe, mix: dict[str, str], work: Path) -> str:
    """A published recipe with more layer types, in a file."""
    import importlib.util

    import yaml

    package = importlib.util.find_spec("msmodelslim")
    assert package is not None and package.origin is not None
    name = f"{recipe.model_type.lower()}-w8a8s.yaml"
    path = next((Path(package.origin).parent / "lab_practice").rglob(name))
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["spec"]["calib_params"]["mix_cfg"] |= mix
    changed = work / name
    changed.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(changed)


# ------------------------------------------------------------------------------------------------- the float model


def write_float(folder: Path, family: str, dtype: str) -> None:
    """A random model and its tokenizer. Two layers, wide enough for the 310P kernel's limits at TP 1 and 2."""
    import torch
    import transformers

    torch.manual_seed(0)
    heads, head_dim = 8, 64
    sizes: dict[str, Any] = {
        "vocab_size": 1024,
        "hidden_size": heads * head_dim,  # the 8B recipe's outlier suppression (m6) fails otherwise
        "intermediate_size": 1536,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,  # msmodelslim cannot save shared tensors in parts
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    if family == "qwen3":
        config = transformers.Qwen3Config(head_dim=head_dim, **sizes)
    else:
        config = transformers.Qwen2Config(**sizes)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, 0, 0.3)
        elif "norm" in name:
            torch.nn.init.normal_(parameter, 1, 0.2)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    _tokenizer(sizes["vocab_size"]).save_pretrained(folder)


def _tokenizer(vocabulary: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL[2], pad_token=SPECIAL[0])
    fast.chat_template = TEMPLATE
    return fast


def main() -> int:
    parser = argparse.ArgumentParser(description="Make a small W8A8S checkpoint with the real msmodelslim, on a CPU.")
    parser.add_argument("output", type=Path, help="folder to make")
    parser.add_argument("--recipe", choices=RECIPES, default="qwen3-8b", help="default: %(default)s")
    parser.add_argument("--dtype", choices=("float16", "bfloat16"), default="float16", help="default: %(default)s")
    parser.add_argument("--float", choices=("qwen3", "qwen2"), help="write the float model of this family alone")
    args = parser.parse_args()
    if args.output.exists():
        parser.error(f"{args.output} exists already")
    if args.float:
        write_float(args.output, args.float, args.dtype)
    else:
        quantize(args.output, args.recipe, args.dtype)
    return 0


if __name__ == "__main__":
    sys.exit(main())
