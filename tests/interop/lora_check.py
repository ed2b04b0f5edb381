"""LoRA in the real vllm and vllm-ascend: a loaded model is wrapped, given an adapter, and its compressed layers run.

Used by loader_check.py; stubbed beyond npu_stubs: pinned memory, quantization, and the compressed product, which gives
zeros.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import real_vllm
import torch

RANK = 8
ROWS = 3

# Module of a checkpoint: columns and rows, by a configuration's numbers (q, kv: of all heads).
_MODULES = {
    "self_attn.q_proj": ("hidden", "q"),
    "self_attn.k_proj": ("hidden", "kv"),
    "self_attn.v_proj": ("hidden", "kv"),
    "self_attn.o_proj": ("q", "hidden"),
    "mlp.gate_proj": ("hidden", "inner"),
    "mlp.up_proj": ("hidden", "inner"),
    "mlp.down_proj": ("inner", "hidden"),
}


def write_adapter(directory: str, folder: Path) -> Path:
    """A random adapter of every linear layer of a directory's model, as peft writes it."""
    from safetensors.torch import save_file

    config = json.loads((Path(directory) / "config.json").read_text())
    width = config["head_dim"]
    numbers = {
        "hidden": config["hidden_size"],
        "inner": config["intermediate_size"],
        "q": width * config["num_attention_heads"],
        "kv": width * config["num_key_value_heads"],
    }
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for module, (columns, rows) in _MODULES.items():
            name = f"base_model.model.model.layers.{layer}.{module}"
            for half, shape in (("A", (RANK, numbers[columns])), ("B", (numbers[rows], RANK))):
                values = 0.1 * torch.randn(shape, generator=generator)
                tensors[f"{name}.lora_{half}.weight"] = values.half()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    modules = sorted({module.rpartition(".")[2] for module in _MODULES})
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK, "target_modules": modules, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


@contextlib.contextmanager
def _no_pinned_memory() -> Iterator[None]:
    original = torch.tensor

    def tensor(*args: Any, **options: Any) -> torch.Tensor:
        return original(*args, **{**options, "pin_memory": False})

    with (
        mock.patch.object(torch.Tensor, "pin_memory", lambda self, *args: self),
        mock.patch.object(torch, "tensor", tensor),
    ):
        yield


def run_wrapped(model: Any, config: Any, adapter: Path) -> dict[str, Any]:
    """What every compressed layer gives with the adapter, and what it gives the compressed product.

    Called after loading, as a model runner does.
    """
    import torch_npu
    from vllm.lora.layers import LoRAMapping
    from vllm.lora.request import LoRARequest
    from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager

    layers = real_vllm.sc_layers(model)
    loaded = {name: model.get_submodule(name).weight for name in layers}
    manager = LRUCacheWorkerLoRAManager(config, torch.device("cpu"), model.embedding_modules)
    given: list[torch.Tensor] = []

    def product(x: torch.Tensor, weight: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        given.append(weight)
        return torch.zeros(x.shape[0], others[-1].shape[-1], dtype=torch.float16)

    answer = {}
    with (
        _no_pinned_memory(),
        mock.patch.object(torch.ops.vllm, "quantize", lambda x, *others: x.to(torch.int8)),
        mock.patch.object(torch_npu, "npu_matmul_compress_dequant", product),
    ):
        wrapped = manager.create_lora_manager(model, config)
        request = LoRARequest("adapter", 1, str(adapter))
        manager.set_active_adapters({request}, LoRAMapping((1,) * ROWS, (1,), True))
        generator = torch.Generator().manual_seed(2)
        for name, (k, _) in layers.items():
            layer = wrapped.get_submodule(name)
            output = layer.apply(torch.randn(ROWS, k, generator=generator).half())
            answer[name] = {
                "wrapper": type(layer).__name__,
                "weight": given[-1] is loaded[name] or given[-1].data_ptr() == loaded[name].data_ptr(),
                "bytes": given[-1].numel(),
                "output": output.float().tolist(),
            }
    return answer
