"""The operators on a 310P: the torch_npu calls that vLLM Ascend makes, and refusals of what they are not made for.

Read from vLLM Ascend 0.23's 310P code and the operators' documentation (docs/runtime.md); none of it has been run on a
device. Tests hold every call against a stand-in for torch_npu that checks its arguments.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any, Final

import torch
from torch import Tensor

from ..errors import InputError

FRACTAL_NZ: Final = 29  # the storage format of matrices on the cube unit
BLOCK: Final = 128  # positions per block of a KV cache; the kernels take 128 or 64

# Documented limits of the compressed product (aclnn documentation, MatmulCompressDequant).
_MULTIPLE: Final = 64
_SMALLEST_N: Final = 128
_EXCLUDED_K: Final = 256

# With compressed masks one mask of this size serves every length (vLLM Ascend, _310p/attention/attention_mask.py).
_MASK_SIZE: Final = 2048
_MASK_TYPE_PROMPT: Final = 3
_MASK_TYPE_PAGED: Final = 5
_MASKED_PAGED: Final = -10000.0


def _npu() -> Any:
    """torch_npu, imported when the first operator runs: importing it needs CANN's libraries."""
    return importlib.import_module("torch_npu")


def quantize(x: Tensor, reciprocal: Tensor, offset: Tensor) -> Tensor:
    if x.dtype == torch.int8:
        return x
    out: Tensor = _npu().npu_quantize(x, reciprocal, offset, torch.qint8, -1, False)
    return out


def matmul_compress_dequant(x: Tensor, weight: Tensor, index: Tensor, bias: Tensor, deq_scale: Tensor) -> Tensor:
    n, k = deq_scale.numel(), x.shape[-1]
    if n % _MULTIPLE or n < _SMALLEST_N or k % _MULTIPLE or k <= _EXCLUDED_K:
        raise InputError(
            f"the compressed product does not take n = {n}, k = {k}: multiples of {_MULTIPLE}, n from {_SMALLEST_N}, "
            f"k above {_EXCLUDED_K}"
        )
    scale = deq_scale.reshape(1, n).view(torch.uint64)
    out: Tensor = _npu().npu_matmul_compress_dequant(x, weight, index, bias.reshape(1, n), scale)
    return out


def quant_matmul(x: Tensor, weight: Tensor, bias: Tensor | None, deq_scale: Tensor) -> Tensor:
    out: Tensor = _npu().npu_quant_matmul(x, weight.transpose(0, 1), deq_scale, bias=bias, output_dtype=torch.float16)
    return out


def dynamic_matmul(x: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    quantized, scale = _npu().npu_dynamic_quant(x)
    out: Tensor = _npu().npu_quant_matmul(
        quantized, weight.transpose(0, 1), weight_scale, pertoken_scale=scale, bias=None, output_dtype=torch.float16
    )
    return out


def linear_compressed(x: Tensor, weight: Tensor, index: Tensor, n: int) -> Tensor:
    raise InputError("W16A16SC cannot run on the NPU", remedy="vLLM Ascend calls no operator for it; decompress it")


def linear(x: Tensor, weight: Tensor) -> Tensor:
    return torch.nn.functional.linear(x, weight)


def rms_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    out: Tensor = _npu().npu_rms_norm(x, weight, eps)[0]
    return out if bias is None else out + bias


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    out, _, total = _npu().npu_add_rms_norm(x, residual, weight, eps)
    return out if bias is None else out + bias, total


def rotary(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    m, size = cos.shape
    if size != 128:  # the operator takes no other; all Qwen3 models have 128
        return _turned(query, cos, sin), _turned(key, cos, sin)
    angles = cos.view(1, m, 1, size), sin.view(1, m, 1, size)
    q, k = _npu().npu_apply_rotary_pos_emb(
        query.contiguous().unsqueeze(0), key.contiguous().unsqueeze(0), *angles, rotary_mode="half"
    )
    return q.squeeze(0), k.squeeze(0)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos.unsqueeze(1) + torch.cat((-second, first), dim=-1) * sin.unsqueeze(1)


def swiglu(x: Tensor) -> Tensor:
    if x.shape[-1] % 32 == 0:
        out: Tensor = _npu().npu_swiglu(x)
        return out
    gate, up = x.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate) * up


def new_cache(room: int, kv_heads: int, size: int, device: torch.device) -> Tensor:
    """An empty KV cache for `room` positions: float16 [2, blocks, kv_heads * size / 16, BLOCK, 16]."""
    return torch.zeros((2, -(-room // BLOCK), kv_heads * size // 16, BLOCK, 16), dtype=torch.float16, device=device)


def attention(query: Tensor, key: Tensor, value: Tensor, cache: Tensor, start: int, scale: float) -> Tensor:
    m, heads, size = query.shape
    slots = torch.arange(start, start + m, dtype=torch.int32, device=query.device)
    _npu()._npu_reshape_and_cache(key=key, value=value, key_cache=cache[0], value_cache=cache[1], slot_indices=slots)
    out = torch.empty((m, heads, size), dtype=query.dtype, device=query.device)
    shape = {"num_heads": heads, "num_kv_heads": key.shape[1], "scale_value": scale}
    if start == 0:
        _prompt(query, key, value, cache.shape[1] * BLOCK, shape, out)
    else:
        _paged(query, cache, start, shape, out)
    return out.reshape(m, heads * size)


def _prompt(query: Tensor, key: Tensor, value: Tensor, room: int, shape: dict[str, Any], out: Tensor) -> None:
    """A whole prompt: attention among the new positions alone."""
    lengths = torch.tensor([len(query)], dtype=torch.int32)
    inputs = {"query": query, "key": key, "value": value, "seq_len": lengths, "out": out, **shape}
    if _compressed_masks():
        mask = _causal_mask(_MASK_SIZE, query.device)
        _npu()._npu_flash_attention_v3(mask=mask, mask_type=_MASK_TYPE_PROMPT, **inputs)
    else:
        _npu()._npu_flash_attention(mask=_causal_mask(room, query.device), **inputs)


def _paged(query: Tensor, cache: Tensor, start: int, shape: dict[str, Any], out: Tensor) -> None:
    """New positions behind `start` others in the cache: one (decoding) or several (a prompt in pieces)."""
    m, device = len(query), query.device
    inputs = {
        "query": query,
        "key_cache": cache[0],
        "value_cache": cache[1],
        "block_table": torch.arange(cache.shape[1], dtype=torch.int32, device=device).unsqueeze(0),
        "context_lens": torch.tensor([start + m], dtype=torch.int32, device=device),
        "out": out,
        **shape,
    }
    lengths = torch.tensor([m], dtype=torch.int32)
    if m == 1:
        _npu()._npu_paged_attention(**inputs)
    elif _compressed_masks():
        mask = torch.ones((_MASK_SIZE, _MASK_SIZE), dtype=torch.float16, device=device).triu(1) * _MASKED_PAGED
        _npu()._npu_paged_attention_splitfuse_v2(mask=mask, mask_type=_MASK_TYPE_PAGED, seq_len=lengths, **inputs)
    else:
        rows = _causal(cache.shape[1] * BLOCK, device)[start : start + m]
        mask = _npu().npu_format_cast(nz(rows), FRACTAL_NZ)
        _npu()._npu_paged_attention_splitfuse(mask=mask, seq_len=lengths, **inputs)


def _compressed_masks() -> bool:
    return hasattr(_npu(), "_npu_flash_attention_v3") and hasattr(_npu(), "_npu_paged_attention_splitfuse_v2")


def _causal(size: int, device: torch.device) -> Tensor:
    """float16 [size, size]: 0, and minus infinity above the diagonal."""
    return torch.full((size, size), float("-inf"), dtype=torch.float16, device=device).triu(1)


@functools.lru_cache(maxsize=1)
def _causal_mask(size: int, device: torch.device) -> Tensor:
    mask: Tensor = _npu().npu_format_cast(nz(_causal(size, device)), FRACTAL_NZ)
    return mask


def nz(matrix: Tensor) -> Tensor:
    """A float16 matrix [r, c] in the order of FRACTAL_NZ: padded to 16, column blocks first: [1, c / 16, r, 16]."""
    rows, columns = (-(-size // 16) * 16 for size in matrix.shape)
    padded = torch.zeros(rows, columns, dtype=matrix.dtype, device=matrix.device)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    return padded.reshape(1, rows, columns // 16, 16).permute(0, 2, 1, 3).contiguous()


def to_nz(weight: Tensor) -> Tensor:
    """A weight in FRACTAL_NZ, as vLLM Ascend casts it after loading."""
    out: Tensor = _npu().npu_format_cast(weight, FRACTAL_NZ)
    return out
