"""A stand-in for torch_npu that holds every argument against the operators' documentation, then computes on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from w8a8sc_tool.runtime import cpu


class FakeNpu:
    """Records the calls. What it checks is in docs/runtime.md."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def npu_quantize(
        self, input: Tensor, scales: Tensor, zero_points: Tensor, dtype: Any, axis: int, div_mode: bool
    ) -> Tensor:
        self.calls.append("npu_quantize")
        assert input.dtype == torch.float16 and scales.dtype == torch.float16 and zero_points.dtype == torch.float16
        assert scales.shape == zero_points.shape == (input.shape[-1],)
        assert (dtype, axis, div_mode) == (torch.qint8, -1, False)
        return cpu.quantize(input, scales, zero_points)

    def npu_matmul_compress_dequant(
        self, x1: Tensor, x2: Tensor, compressIndex: Tensor, bias: Tensor, deqScale: Tensor
    ) -> Tensor:
        self.calls.append("npu_matmul_compress_dequant")
        assert (x1.dtype, x1.dim()) == (torch.int8, 2)
        assert (x2.dtype, x2.dim()) == (torch.int8, 1)
        assert (compressIndex.dtype, compressIndex.dim()) == (torch.int8, 1)
        n, k = deqScale.shape[-1], x1.shape[-1]
        assert (bias.dtype, bias.shape) == (torch.int32, (1, n))
        assert (deqScale.dtype, deqScale.shape) == (torch.uint64, (1, n))
        assert n % 64 == 0 and n >= 128 and k % 64 == 0 and k > 256
        scale = deqScale.view(torch.int64).reshape(-1)
        return cpu.matmul_compress_dequant(x1, x2, compressIndex, bias.reshape(-1), scale)

    def npu_quant_matmul(
        self,
        x1: Tensor,
        x2: Tensor,
        scale: Tensor,
        *,
        bias: Tensor | None = None,
        pertoken_scale: Tensor | None = None,
        output_dtype: torch.dtype,
    ) -> Tensor:
        self.calls.append("npu_quant_matmul")
        assert x1.dtype == x2.dtype == torch.int8
        assert x2.shape[0] == x1.shape[-1]  # k x n: the caller transposes
        assert output_dtype == torch.float16
        if pertoken_scale is not None:
            product = cpu.integer_product(x1, x2.t().contiguous()).float()
            return (product * pertoken_scale.unsqueeze(1) * scale).half()
        assert scale.dtype == torch.int64
        assert bias is None or (bias.dtype == torch.int32 and bias.shape == (x2.shape[1],))
        return cpu.quant_matmul(x1, x2.t().contiguous(), bias, scale)

    def npu_dynamic_quant(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.calls.append("npu_dynamic_quant")
        scale = x.float().abs().amax(dim=1) / 127
        return (x.float() / scale.unsqueeze(1)).round().clamp(-128, 127).to(torch.int8), scale

    def npu_rms_norm(self, x: Tensor, gamma: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        self.calls.append("npu_rms_norm")
        assert x.dtype == gamma.dtype == torch.float16
        assert gamma.shape == (x.shape[-1],)
        return cpu.rms_norm(x, gamma, None, epsilon), x

    def npu_swiglu(self, x: Tensor) -> Tensor:
        self.calls.append("npu_swiglu")
        assert x.shape[-1] % 32 == 0
        return cpu.swiglu(x)

    def npu_format_cast(self, x: Tensor, format: int) -> Tensor:
        self.calls.append("npu_format_cast")
        assert format == 29
        return x

    def _npu_flash_attention(
        self,
        *,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor,
        seq_len: Tensor,
        scale_value: float,
        num_heads: int,
        num_kv_heads: int,
        out: Tensor,
    ) -> None:
        self.calls.append("_npu_flash_attention")
        t = query.shape[0]
        assert query.shape[1] == num_heads and key.shape[1] == value.shape[1] == num_kv_heads
        assert seq_len.tolist() == [t] and seq_len.dtype == torch.int32
        blocks = -(-t // 16)
        assert mask.dtype == torch.float16 and mask.shape == (1, blocks, 16 * blocks, 16)
        plain = mask.permute(0, 2, 1, 3).reshape(16 * blocks, 16 * blocks)[:t, :t]
        assert torch.equal(plain == 0, torch.ones(t, t).tril().bool())
        out.copy_(cpu.attention(query, key, value, scale_value))
