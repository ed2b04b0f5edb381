"""The operators, as torch knows them: torch.ops.w8a8sc.NAME, whose device decides which implementation runs.

cpu.py states what each computes; npu.py calls what vLLM Ascend calls on 310P. docs/runtime.md has the table.
"""

from __future__ import annotations

import torch

from . import cpu, npu

SCHEMAS = {
    # x [m, k] float16, scale and offset [k] in x's dtype (the scale's reciprocal) -> int8 [m, k]
    "quantize": "(Tensor x, Tensor reciprocal, Tensor offset) -> Tensor",
    # x int8 [m, k], weight int8 [c], index int8 [8 t], bias int32 [n], deq_scale int64 [n] -> float16 [m, n]
    "matmul_compress_dequant": "(Tensor x, Tensor weight, Tensor index, Tensor bias, Tensor deq_scale) -> Tensor",
    # x int8 [m, k], weight int8 [n, k], bias int32 [n] or none, deq_scale int64 [n] -> float16 [m, n]
    "quant_matmul": "(Tensor x, Tensor weight, Tensor? bias, Tensor deq_scale) -> Tensor",
    # x float16 [m, k], weight int8 [n, k], weight_scale float32 [n] -> float16 [m, n]
    "dynamic_matmul": "(Tensor x, Tensor weight, Tensor weight_scale) -> Tensor",
    # x float16 [m, k], weight int8 [c], index int8 [8 t], n: rows of the weight -> float16 [m, n]
    "linear_compressed": "(Tensor x, Tensor weight, Tensor index, int n) -> Tensor",
    # x float16 [m, k], weight float16 [n, k] -> float16 [m, n]
    "linear": "(Tensor x, Tensor weight) -> Tensor",
    # x float16 [..., h], weight and bias float16 [h]
    "rms_norm": "(Tensor x, Tensor weight, Tensor? bias, float eps) -> Tensor",
    # the same of x + residual, and that sum
    "add_rms_norm": "(Tensor x, Tensor residual, Tensor weight, Tensor? bias, float eps) -> (Tensor, Tensor)",
    # query float16 [m, heads, d], key float16 [m, kv heads, d], cos and sin float16 [m, d], halves repeated
    "rotary": "(Tensor query, Tensor key, Tensor cos, Tensor sin) -> (Tensor, Tensor)",
    # x float16 [m, 2 h]: gate, then up -> float16 [m, h]
    "swiglu": "(Tensor x) -> Tensor",
    # query float16 [m, heads, d], key and value float16 [m, kv heads, d] of positions start, start + 1, ..., which are
    # stored in the cache (as new_cache of the device made it) -> float16 [m, heads * d]
    "attention": "(Tensor query, Tensor key, Tensor value, Tensor(a!) cache, int start, float scale) -> Tensor",
}

_LIBRARY = torch.library.Library("w8a8sc", "DEF")
for _name, _schema in SCHEMAS.items():
    _LIBRARY.define(_name + _schema)
    _LIBRARY.impl(_name, getattr(cpu, _name), "CPU")
    _LIBRARY.impl(_name, getattr(npu, _name), "PrivateUse1")  # torch_npu's dispatch key

ops = torch.ops.w8a8sc


def new_cache(room: int, kv_heads: int, size: int, device: torch.device) -> torch.Tensor:
    """An empty KV cache for `room` positions in the layout of the device."""
    return (cpu if device.type == "cpu" else npu).new_cache(room, kv_heads, size, device)


def placed(weight: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A weight matrix on a device, in the layout that its products read."""
    return weight if device.type == "cpu" else npu.to_nz(weight.to(device))
