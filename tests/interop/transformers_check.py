"""Run in an environment with transformers: a W8A8S checkpoint's logits by transformers' own Qwen3, none of our code.

    python transformers_check.py < request.json > answer.json

Request: {"model": checkpoint, "sequences": lists of tokens}. Answer: per sequence, per position, the logits.
Everything is float32 but for quantized layers, whose arithmetic is written out below in float64.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM


class Quantized(torch.nn.Module):
    """y = ((q(x) Wt) + bias) * scale with static scales, q(x) = round(x / scale + offset) within int8."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.weight = tensors["weight"].double()
        self.bias = tensors["quant_bias"].double()
        self.scale, self.offset = tensors["input_scale"].double(), tensors["input_offset"].double()
        scale = tensors["deq_scale"]
        self.out = (scale if scale.dtype == torch.float32 else scale.to(torch.int32).view(torch.float32)).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = (x.double() / self.scale + self.offset).round().clamp(-128, 127)
        return ((q @ self.weight.t() + self.bias) * self.out).to(x.dtype)


def model_of(folder: Path) -> Any:
    tensors: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        tensors |= load_file(path)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and f"{name}.deq_scale" in tensors:
            leaves = ("weight", "quant_bias", "deq_scale", "input_scale", "input_offset")
            layer = Quantized({leaf: tensors.pop(f"{name}.{leaf}") for leaf in leaves})
            model.set_submodule(name, layer)
    state = model.state_dict()
    plain = {name: tensors[name].float() for name in state if name in tensors}
    absent = set(state) - set(plain)
    assert not absent, absent
    model.load_state_dict(plain)
    return model.eval()


def main(out: Any) -> None:
    request = json.load(sys.stdin)
    model = model_of(Path(request["model"]))
    with torch.inference_mode():
        json.dump([model(torch.tensor([sequence])).logits[0].tolist() for sequence in request["sequences"]], out)


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stdout:
        os.dup2(2, 1)
        main(stdout)
