"""The operators on a 310P: the torch_npu calls that vLLM Ascend makes, and refusals of what they are not made for.

Read from vLLM Ascend's 310P code and the operators' documentation (docs/runtime.md); none of it has been run on a
device. Tests hold every call against a stand-in for torch_npu that checks its arguments.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

import torch
from torch import Tensor

from ..errors import InputError

FRACTAL_NZ: Final = 29  # the storage format of matrices on the cube unit

# Documented limits of the compressed product (aclnn documentation, MatmulCompressDequant).
_MULTIPLE: Final = 64
_SMALLEST_N: Final = 128
_EXCLUDED_K: Final = 256


def _npu() -> Any:
    """torch_npu, imported when the first operator runs: importing it needs CANN's libraries."""
    return importlib.import_module("torch_npu")


def quantize(x: Tensor, reciprocal: Tensor, offset: Tensor) -> Tensor:
    if x.dtype == torch.int8:
        return x
    return _npu().npu_quantize(x, reciprocal, offset, torch.qint8, -1, False)  # type: ignore[no-any-return]


def matmul_compress_dequant(x: Tensor, weight: Tensor, index: Tensor, bias: Tensor, deq_scale: Tensor) -> Tensor:
    n, k = deq_scale.numel(), x.shape[-1]
    if n % _MULTIPLE or n < _SMALLEST_N or k % _MULTIPLE or k <= _EXCLUDED_K:
        raise InputError(
            f"the compressed product does not take n = {n}, k = {k}: multiples of {_MULTIPLE}, n from {_SMALLEST_N}, "
            f"k above {_EXCLUDED_K}"
        )
    return _npu().npu_matmul_compress_dequant(  # type: ignore[no-any-return]
        x, weight, index, bias.reshape(1, n), deq_scale.reshape(1, n).view(torch.uint64)
    )


def quant_matmul(x: Tensor, weight: Tensor, bias: Tensor | None, deq_scale: Tensor) -> Tensor:
    return _npu().npu_quant_matmul(  # type: ignore[no-any-return]
        x, weight.transpose(0, 1), deq_scale, bias=bias, output_dtype=torch.float16
    )


def dynamic_matmul(x: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    quantized, scale = _npu().npu_dynamic_quant(x)
    return _npu().npu_quant_matmul(  # type: ignore[no-any-return]
        quantized, weight.transpose(0, 1), weight_scale, pertoken_scale=scale, bias=None, output_dtype=torch.float16
    )


def linear(x: Tensor, weight: Tensor) -> Tensor:
    return torch.nn.functional.linear(x, weight)


def rms_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    out: Tensor = _npu().npu_rms_norm(x, weight, eps)[0]
    return out if bias is None else out + bias


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return x * cos.unsqueeze(1) + turned * sin.unsqueeze(1)


def swiglu(x: Tensor) -> Tensor:
    if x.shape[-1] % 32 == 0:
        return _npu().npu_swiglu(x)  # type: ignore[no-any-return]
    gate, up = x.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate) * up


def attention(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """Prefill through _npu_flash_attention. Decoding (m < t) runs as a prefill of m queries would not: it is spelled out.

    vLLM Ascend decodes with _npu_paged_attention over its block tables, which a cache of one sequence does not have.
    """
    m, heads, size = query.shape
    t, kv_heads, _ = keys.shape
    if m == t:
        mask = torch.full((t, t), float("-inf"), dtype=torch.float16, device=query.device).triu(1)
        out = torch.empty(m, heads * size, dtype=query.dtype, device=query.device)
        lengths = torch.tensor([t], dtype=torch.int32)
        _npu()._npu_flash_attention(
            query=query,
            key=keys,
            value=values,
            mask=_npu().npu_format_cast(_nz(mask), FRACTAL_NZ),
            seq_len=lengths,
            scale_value=scale,
            num_heads=heads,
            num_kv_heads=kv_heads,
            out=out,
        )
        return out
    q = query.reshape(m, kv_heads, heads // kv_heads, size)
    scores = torch.einsum("mgrd,tgd->grmt", q, keys) * scale
    if m > 1:
        hidden = torch.ones(m, t, dtype=torch.bool, device=query.device).triu(t - m + 1)
        scores = scores.masked_fill(hidden, float("-inf"))
    return torch.einsum("grmt,tgd->mgrd", scores.softmax(-1), values).reshape(m, heads * size)


def _nz(matrix: Tensor) -> Tensor:
    """A float16 matrix in the order of FRACTAL_NZ: padded to 16, column blocks of 16 first."""
    rows, columns = (-(-size // 16) * 16 for size in matrix.shape)
    padded = torch.zeros(rows, columns, dtype=matrix.dtype, device=matrix.device)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    return padded.reshape(1, rows, columns // 16, 16).permute(0, 2, 1, 3).contiguous()


def to_nz(weight: Tensor) -> Tensor:
    """A weight in FRACTAL_NZ, as vLLM Ascend casts it after loading."""
    return _npu().npu_format_cast(weight, FRACTAL_NZ)  # type: ignore[no-any-return]
