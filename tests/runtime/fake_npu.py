"""A stand-in for torch_npu that holds every argument against the operators' documentation, then computes on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from w8a8sc_tool.runtime import cpu
from w8a8sc_tool.vllm.index import payload_end

MASK = 2048  # the one size of compressed masks


def plain(nz: Tensor, rows: int, columns: int) -> Tensor:
    """A matrix out of its FRACTAL_NZ order."""
    assert nz.dtype == torch.float16 and nz.shape == (1, -(-columns // 16), -(-rows // 16) * 16, 16)
    return nz[0].permute(1, 0, 2).reshape(nz.shape[2], -1)[:rows, :columns]


class FakeNpu:
    """Without compressed masks, as torch_npu before they came. Records the calls; docs/runtime.md has the rules."""

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
        # As the kernel: what the index says is read, whatever lies behind it.
        x2 = x2[: payload_end(compressIndex.numpy())]
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
            assert bias is None and pertoken_scale.dtype == scale.dtype == torch.float32
            assert pertoken_scale.shape == (len(x1),) and scale.shape == (x2.shape[1],)
            product = cpu.integer_product(x1, x2.t().contiguous()).float()
            return (product * pertoken_scale.unsqueeze(1) * scale).half()
        assert scale.dtype == torch.int64 and scale.shape == (x2.shape[1],)
        assert bias is None or (bias.dtype == torch.int32 and bias.shape == (x2.shape[1],))
        return cpu.quant_matmul(x1, x2.t().contiguous(), bias, scale)

    def npu_dynamic_quant(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.calls.append("npu_dynamic_quant")
        assert x.dtype == torch.float16
        scale = x.float().abs().amax(dim=1) / 127
        return (x.float() / scale.unsqueeze(1)).round().clamp(-128, 127).to(torch.int8), scale

    def npu_rms_norm(self, x: Tensor, gamma: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        self.calls.append("npu_rms_norm")
        assert x.dtype == gamma.dtype == torch.float16
        assert gamma.shape == (x.shape[-1],)
        return cpu.rms_norm(x, gamma, None, epsilon), x

    def npu_add_rms_norm(self, x1: Tensor, x2: Tensor, gamma: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
        self.calls.append("npu_add_rms_norm")
        assert x1.dtype == x2.dtype == gamma.dtype == torch.float16
        assert x1.shape == x2.shape and gamma.shape == (x1.shape[-1],)
        out, total = cpu.add_rms_norm(x1, x2, gamma, None, epsilon)
        return out, x1, total

    def npu_apply_rotary_pos_emb(
        self, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *, rotary_mode: str
    ) -> tuple[Tensor, Tensor]:
        self.calls.append("npu_apply_rotary_pos_emb")
        assert query.is_contiguous() and key.is_contiguous()
        assert query.dim() == key.dim() == 4 and query.shape[-1] == key.shape[-1] == 128
        assert cos.shape == sin.shape == (1, query.shape[1], 1, 128)
        assert rotary_mode == "half"
        q, k = cpu.rotary(query[0], key[0], cos[0, :, 0], sin[0, :, 0])
        return q.unsqueeze(0), k.unsqueeze(0)

    def npu_swiglu(self, x: Tensor) -> Tensor:
        self.calls.append("npu_swiglu")
        assert x.shape[-1] % 32 == 0
        return cpu.swiglu(x)

    def npu_format_cast(self, x: Tensor, format: int) -> Tensor:
        self.calls.append("npu_format_cast")
        assert format == 29
        return x

    def _npu_reshape_and_cache(
        self, *, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slot_indices: Tensor
    ) -> None:
        self.calls.append("_npu_reshape_and_cache")
        m, heads, size = key.shape
        assert value.shape == key.shape and slot_indices.dtype == torch.int32 and slot_indices.shape == (m,)
        for cache, new in ((key_cache, key), (value_cache, value)):
            assert cache.shape[1:] == (heads * size // 16, 128, 16)
            for slot, row in zip(slot_indices.tolist(), new):
                cache[slot // 128, :, slot % 128] = row.reshape(-1, 16)

    def _npu_flash_attention(self, *, mask: Tensor, seq_len: Tensor, **others: Any) -> None:
        self.calls.append("_npu_flash_attention")
        room = mask.shape[2]
        assert room >= len(others["query"])
        self._check_causal(plain(mask, room, room))
        self._prompt(seq_len=seq_len, **others)

    def _check_causal(self, mask: Tensor) -> None:
        assert torch.equal(mask == 0, torch.ones(mask.shape).tril().bool())
        assert torch.isinf(mask).sum() == (mask != 0).sum()

    def _prompt(
        self,
        *,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        seq_len: Tensor,
        scale_value: float,
        num_heads: int,
        num_kv_heads: int,
        out: Tensor,
    ) -> None:
        m, heads, size = query.shape
        assert heads == num_heads and key.shape == value.shape == (m, num_kv_heads, size)
        assert seq_len.tolist() == [m] and seq_len.dtype == torch.int32
        cache = cpu.new_cache(m, num_kv_heads, size, query.device)
        out.copy_(cpu.attention(query, key, value, cache, 0, scale_value).reshape(out.shape))

    def _npu_paged_attention(self, **arguments: Any) -> None:
        self.calls.append("_npu_paged_attention")
        assert len(arguments["query"]) == 1
        self._paged(**arguments)

    def _npu_paged_attention_splitfuse(self, *, mask: Tensor, seq_len: Tensor, **others: Any) -> None:
        self.calls.append("_npu_paged_attention_splitfuse")
        m, end = len(others["query"]), int(others["context_lens"][0])
        rows = plain(mask, m, others["key_cache"].shape[0] * 128)
        assert torch.equal(rows[:, :end] == 0, torch.ones(m, end).tril(end - m).bool())
        assert seq_len.tolist() == [m] and seq_len.dtype == torch.int32
        self._paged(**others)

    def _paged(
        self,
        *,
        query: Tensor,
        key_cache: Tensor,
        value_cache: Tensor,
        num_kv_heads: int,
        num_heads: int,
        scale_value: float,
        block_table: Tensor,
        context_lens: Tensor,
        out: Tensor,
    ) -> None:
        m, heads, size = query.shape
        (end,) = context_lens.tolist()
        assert heads == num_heads and out.shape == query.shape
        assert block_table.dtype == context_lens.dtype == torch.int32 and block_table.dim() == 2
        assert key_cache.shape[1:] == value_cache.shape[1:] == (num_kv_heads * size // 16, 128, 16)
        cache = cpu.new_cache(end, num_kv_heads, size, query.device)
        for side, blocks in enumerate((key_cache, value_cache)):
            rows = blocks[block_table[0]].permute(0, 2, 1, 3).reshape(-1, num_kv_heads, size)
            cache[side] = rows[:end]
        new = cache[0, end - m :].clone(), cache[1, end - m :].clone()
        out.copy_(cpu.attention(query, *new, cache, end - m, scale_value).reshape(out.shape))


class FakeNpuWithCompressedMasks(FakeNpu):
    """As torch_npu since masks of one size serve every length."""

    def _npu_flash_attention_v3(self, *, mask: Tensor, mask_type: int, **others: Any) -> None:
        self.calls.append("_npu_flash_attention_v3")
        assert mask_type == 3
        self._check_causal(plain(mask, MASK, MASK))
        self._prompt(**others)

    def _npu_paged_attention_splitfuse_v2(
        self, *, mask: Tensor, mask_type: int, seq_len: Tensor, **others: Any
    ) -> None:
        self.calls.append("_npu_paged_attention_splitfuse_v2")
        assert mask_type == 5 and mask.shape == (MASK, MASK) and mask.dtype == torch.float16
        assert torch.equal(mask, torch.ones(MASK, MASK).triu(1).half() * -10000)
        assert seq_len.tolist() == [len(others["query"])]
        self._paged(**others)
