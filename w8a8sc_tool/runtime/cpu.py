"""The operators on a CPU: an exact statement of what the 310P's operators are documented to compute.

Sources: the operators' documentation as docs/runtime.md cites it. Integer products are exact. Where the documentation
leaves rounding open (the multiplication by deq_scale), float32 is used, rounded once to float16.

A row's result does not depend on the rows beside it: a prompt at once and token by token give the same bits. Integer
products are exact; float16 products and attention, whose sums are rounded, see to it by their shapes.
"""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ..codec import Sparsity, decode_matrix
from ..errors import InputError
from .decoded import DecodedWeights

_TILE: Final = 8  # rows of x in every float16 product: about as fast as one row, since reading the weight bounds it
_ROWS_AT_ONCE: Final = 4096  # of a weight that is widened to float64

decoded = DecodedWeights()


def quantize(x: Tensor, reciprocal: Tensor, offset: Tensor) -> Tensor:
    """clamp(round(x * reciprocal + offset), -128, 127), half to even (npu_quantize)."""
    if x.dtype == torch.int8:
        return x
    values = x.float() * reciprocal.float() + offset.float()
    return values.round().clamp(-128, 127).to(torch.int8)


def matmul_compress_dequant(x: Tensor, weight: Tensor, index: Tensor, bias: Tensor, deq_scale: Tensor) -> Tensor:
    """((x Wt) + bias) * scale, W decoded once and kept while there is room."""
    n, k = deq_scale.numel(), x.shape[1]
    return quant_matmul(x, decoded.get(weight, index, lambda: _decode(weight, index, n, k, "low")), bias, deq_scale)


def linear_compressed(x: Tensor, weight: Tensor, index: Tensor, n: int) -> Tensor:
    """x Wt for a compressed float16 W (W16A16SC), decoded once and kept while there is room."""
    row_bytes = 2 * x.shape[1]
    plain = decoded.get(weight, index, lambda: _decode(weight, index, n, row_bytes, "high"))
    return linear(x, plain.view(torch.float16))


def _decode(weight: Tensor, index: Tensor, n: int, k: int, sparsity: Sparsity) -> Tensor:
    # The operator's front end says [8, 8, k, n, 1] whatever a stored info tensor says.
    info = np.array([8, 8, k, n, 1], np.int64)
    try:
        return torch.from_numpy(decode_matrix(weight.numpy(), index.numpy(), info, sparsity=sparsity))
    except ValueError as error:
        raise InputError(f"a compressed weight cannot be decoded ({error})") from None


def quant_matmul(x: Tensor, weight: Tensor, bias: Tensor | None, deq_scale: Tensor) -> Tensor:
    """((x Wt) + bias) * scale, the sum in exact integers."""
    total = integer_product(x, weight)
    if bias is not None:
        total = total + bias
    return (total.float() * scale_of(deq_scale)).half()


def dynamic_matmul(x: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    """Per-row quantization of x to -127 .. 127, an exact product, both scales."""
    largest = x.float().abs().amax(dim=1, keepdim=True)
    scale = largest / 127
    q = (x.float() / scale.clamp(min=torch.finfo(torch.float32).tiny)).round().clamp(-128, 127).to(torch.int8)
    return (integer_product(q, weight).float() * scale * weight_scale).half()


def integer_product(x: Tensor, weight: Tensor) -> Tensor:
    """x Wt for int8 x [m, k] and W [n, k]: int32 [m, n], exact (it wraps beyond 2^31, which k < 2^17 rules out)."""
    if _int8_is_exact():
        return torch._int_mm(x, weight.t())
    wide = x.double()
    rows = range(0, len(weight), _ROWS_AT_ONCE)
    return torch.cat([(wide @ weight[row : row + _ROWS_AT_ONCE].double().t()).int() for row in rows], dim=1)


@functools.cache
def _int8_is_exact() -> bool:
    """Whether int8 products are exact here: without VNNI, x86 libraries may saturate sums of two products at 2^15."""
    ends = torch.tensor([-128, 127], dtype=torch.int8)
    x, weight = ends.repeat_interleave(64).reshape(2, 64), ends.repeat_interleave(64).repeat(16).reshape(32, 64)
    return bool(torch.equal(torch._int_mm(x, weight.t()).double(), x.double() @ weight.double().t()))


def scale_of(deq_scale: Tensor) -> Tensor:
    """float32 [n] out of the low halves of int64 [n]."""
    return deq_scale.to(torch.int32).view(torch.float32)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Summed in float32, rounded once. Always _TILE rows at a time, with zeros added to the last ones.

    A library sums in another order for another number of rows; so that number is always the same.
    """
    m = len(x)
    tiles = torch.nn.functional.pad(x, (0, 0, 0, -m % _TILE)).split(_TILE)
    return torch.cat([torch.nn.functional.linear(tile, weight) for tile in tiles])[:m]


def rms_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """x / rms(x) * weight in float32, rounded to float16; then the bias in float16."""
    wide = x.float()
    out = (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps) * weight.float()).to(x.dtype)
    return out if bias is None else out + bias


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """The norm of x + residual (added in float16), and that sum."""
    total = x + residual
    return rms_norm(total, weight, bias, eps), total


def rotary(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """x * cos + rotate_half(x) * sin for both, halves as in NeoX."""
    return _turned(query, cos, sin), _turned(key, cos, sin)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (x.float() * cos.float().unsqueeze(1) + turned * sin.float().unsqueeze(1)).to(x.dtype)


def swiglu(x: Tensor) -> Tensor:
    """silu(gate) * up."""
    gate, up = x.float().chunk(2, dim=-1)
    return (gate * torch.sigmoid(gate) * up).to(x.dtype)


def new_cache(room: int, kv_heads: int, size: int, device: torch.device) -> Tensor:
    """An empty KV cache for `room` positions: float16 [2, room, kv_heads, size]."""
    return torch.zeros((2, room, kv_heads, size), dtype=torch.float16, device=device)


def attention(query: Tensor, key: Tensor, value: Tensor, cache: Tensor, start: int, scale: float) -> Tensor:
    """Store keys and values at `start`, then causal attention of the m queries over all positions up to theirs.

    Each kv head is shared by a group of heads. Each query is computed by itself, over its own positions alone.
    """
    m, heads, size = query.shape
    end, kv_heads = start + m, key.shape[1]
    cache[0, start:end] = key
    cache[1, start:end] = value
    keys, values = cache[0, :end].float(), cache[1, :end].float()
    queries = query.float().reshape(m, kv_heads, heads // kv_heads, size)
    out = torch.empty_like(queries)
    for row, q in enumerate(queries):
        seen = start + row + 1
        scores = torch.einsum("grd,tgd->grt", q, keys[:seen]) * scale
        out[row] = torch.einsum("grt,tgd->grd", scores.softmax(-1), values[:seen])
    return out.reshape(m, heads * size).to(query.dtype)
