"""The operators: exact on the CPU, and the documented calls on an NPU."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from tests.codec.weights import sparse
from w8a8sc_tool.codec import encode_matrix
from w8a8sc_tool.errors import InputError
from w8a8sc_tool.runtime import cpu, npu
from w8a8sc_tool.runtime.decoded import DecodedWeights
from w8a8sc_tool.runtime.ops import SCHEMAS, ops

from .fake_npu import FakeNpu, FakeNpuWithCompressedMasks


def scales(n: int, seed: int = 0) -> torch.Tensor:
    values = np.random.default_rng(seed).uniform(1e-5, 1e-3, n).astype(np.float32)
    return torch.from_numpy(values.view(np.int32).astype(np.int64))


def quantized(m: int, k: int, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(-128, 128, (m, k)).astype(np.int8))


@pytest.mark.parametrize("shape", [(128, 320), (192, 512), (448, 4096), (100, 90), (17, 33), (1, 1), (256, 12288)])
@pytest.mark.parametrize("m", [1, 3, 17])
def test_compressed_product_equals_the_plain_one(shape: tuple[int, int], m: int) -> None:
    """Against numpy's 64-bit integers, bit for bit."""
    n, k = shape
    weight = sparse(shape, 3, 0.3, 3.0, 0.01)
    encoded = encode_matrix(weight)
    x = quantized(m, k)
    bias = torch.from_numpy(np.random.default_rng(2).integers(-(2**20), 2**20, n).astype(np.int32))
    parts = (torch.from_numpy(encoded.weight), torch.from_numpy(encoded.index))
    result = ops.matmul_compress_dequant(x, *parts, bias, scales(n))
    exact = x.numpy().astype(np.int64) @ weight.astype(np.int64).T + bias.numpy()
    expected = (exact.astype(np.float32) * scales(n).numpy().astype(np.int32).view(np.float32)).astype(np.float16)
    assert result.numpy().tobytes() == expected.tobytes()
    plain = ops.quant_matmul(x, torch.from_numpy(weight), bias, scales(n))
    assert torch.equal(result, plain)


def test_products_at_the_ends_of_int8_are_exact() -> None:
    x = torch.full((2, 25600), -128, dtype=torch.int8)
    weight = torch.full((16, 25600), -128, dtype=torch.int8)
    assert (cpu.integer_product(x, weight) == 128 * 128 * 25600).all()
    assert (cpu.integer_product(x[:1], -weight - 1) == -128 * 127 * 25600).all()


@pytest.mark.parametrize(("n", "k"), [(96, 4096), (33, 1000)])
def test_a_row_does_not_depend_on_the_rows_beside_it(n: int, k: int) -> None:
    """Bit for bit, at every number of rows and at every place in the batch, and right."""
    torch.manual_seed(0)
    x, weight = torch.randn(21, k).half(), (torch.randn(n, k) / k**0.5).half()
    alone = torch.cat([ops.linear(row.unsqueeze(0), weight) for row in x])
    for m in range(1, len(x) + 1):
        assert torch.equal(ops.linear(x[:m], weight), alone[:m])
    assert torch.equal(ops.linear(x.flip(0), weight).flip(0), alone)
    exact = x.double() @ weight.double().t()
    torch.testing.assert_close(alone.double(), exact, rtol=2**-11, atol=1e-5)


def test_attention_of_a_prompt_equals_that_of_its_pieces() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(40, 4, 32).half(), torch.randn(40, 2, 32).half(), torch.randn(40, 2, 32).half()
    caches = [cpu.new_cache(40, 2, 32, torch.device("cpu")) for _ in range(2)]
    whole = ops.attention(query, key, value, caches[0], 0, 0.2)
    edges = [(0, 1), (1, 30), (30, 31), (31, 40)]
    parts = [ops.attention(query[a:b], key[a:b], value[a:b], caches[1], a, 0.2) for a, b in edges]
    assert torch.equal(torch.cat(parts), whole)


def test_quantization_rounds_half_to_even_and_saturates() -> None:
    x = torch.tensor([[0.5, 1.5, 2.5, -0.5, -1.5, 500.0, -500.0, 3.0]]).half()
    one, zero = torch.ones(8).half(), torch.zeros(8).half()
    assert ops.quantize(x, one, zero).tolist() == [[0, 2, 2, 0, -2, 127, -128, 3]]
    assert ops.quantize(x, one, one * 3).tolist() == [[4, 4, 6, 2, 2, 127, -128, 6]]
    q = quantized(2, 8)
    assert ops.quantize(q, one, zero) is not None and torch.equal(cpu.quantize(q, one, zero), q)


def test_a_weight_is_decoded_once_and_the_budget_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = DecodedWeights(budget=2 * 128 * 320)
    monkeypatch.setattr(cpu, "decoded", kept)
    encoded = [encode_matrix(sparse((128, 320), seed, 0.3, 3.0, 0.01)) for seed in range(3)]
    parts = [(torch.from_numpy(e.weight), torch.from_numpy(e.index)) for e in encoded]
    bias, x = torch.zeros(128, dtype=torch.int32), quantized(1, 320)
    for _ in range(3):
        ops.matmul_compress_dequant(x, *parts[0], bias, scales(128))
    assert kept.decodings == 1
    for part in parts:
        ops.matmul_compress_dequant(x, *part, bias, scales(128))
    assert kept.decodings == 3 and kept.bytes <= kept.budget
    ops.matmul_compress_dequant(x, *parts[0], bias, scales(128))  # it had to go
    assert kept.decodings == 4


def test_a_damaged_weight_is_refused() -> None:
    encoded = encode_matrix(sparse((128, 320), 3, 0.3, 3.0, 0.01))
    weight = encoded.weight.copy()
    weight[200] ^= 16
    with pytest.raises(InputError, match="cannot be decoded"):
        ops.matmul_compress_dequant(
            quantized(1, 320),
            torch.from_numpy(weight),
            torch.from_numpy(encoded.index),
            torch.zeros(128).int(),
            scales(128),
        )


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeNpu:
    made = FakeNpu()
    monkeypatch.setitem(sys.modules, "torch_npu", made)
    return made


def test_npu_calls_are_the_documented_ones_and_mean_the_same(fake: FakeNpu) -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 512).half()
    weight = sparse((192, 512), 3, 0.3, 3.0, 0.01)
    encoded = encode_matrix(weight)
    parts = (torch.from_numpy(encoded.weight), torch.from_numpy(encoded.index))
    bias = torch.arange(192, dtype=torch.int32)
    one = torch.full((512,), 20.0).half()
    q = npu.quantize(x, one, one)
    assert torch.equal(q, cpu.quantize(x, one, one))
    result = npu.matmul_compress_dequant(q, *parts, bias, scales(192))
    assert torch.equal(result, cpu.matmul_compress_dequant(q, *parts, bias, scales(192)))
    for b in (bias, None):
        plain = npu.quant_matmul(q, torch.from_numpy(weight), b, scales(192))
        assert torch.equal(plain, cpu.quant_matmul(q, torch.from_numpy(weight), b, scales(192)))
    row = torch.rand(192)
    dynamic = npu.dynamic_matmul(x, torch.from_numpy(weight), row)
    torch.testing.assert_close(dynamic, cpu.dynamic_matmul(x, torch.from_numpy(weight), row))
    assert torch.equal(npu.rms_norm(x, x[0], x[1], 1e-6), cpu.rms_norm(x, x[0], x[1], 1e-6))
    for mine, theirs in zip(
        npu.add_rms_norm(x, q.half(), x[0], None, 1e-6), cpu.add_rms_norm(x, q.half(), x[0], None, 1e-6)
    ):
        assert torch.equal(mine, theirs)
    torch.testing.assert_close(npu.swiglu(x), cpu.swiglu(x))
    torch.testing.assert_close(npu.swiglu(x[:, :24]), cpu.swiglu(x[:, :24]), rtol=2e-3, atol=2e-3)
    assert set(fake.calls) == {
        *("npu_quantize", "npu_matmul_compress_dequant", "npu_quant_matmul", "npu_dynamic_quant", "npu_rms_norm"),
        *("npu_add_rms_norm", "npu_swiglu"),
    }


@pytest.mark.parametrize(("size", "call"), [(128, "npu_apply_rotary_pos_emb"), (32, None)])
def test_npu_rotary(fake: FakeNpu, size: int, call: str | None) -> None:
    """The operator takes heads of 128 only; others are spelled out, in float16."""
    torch.manual_seed(0)
    arguments = torch.randn(20, 4, size), torch.randn(20, 2, size), torch.randn(20, size), torch.randn(20, size)
    halves = [argument.half() for argument in arguments]
    for mine, theirs in zip(npu.rotary(*halves), cpu.rotary(*halves)):
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-2)
    assert fake.calls == ([call] if call else [])


@pytest.mark.parametrize("kind", [FakeNpu, FakeNpuWithCompressedMasks])
def test_npu_attention_is_causal_over_a_paged_cache(kind: type[FakeNpu], monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt beyond one block, a single token, a second prompt behind them."""
    fake = kind()
    monkeypatch.setitem(sys.modules, "torch_npu", fake)
    npu._causal_mask.cache_clear()
    torch.manual_seed(0)
    query, key, value = torch.randn(150, 4, 32).half(), torch.randn(150, 2, 32).half(), torch.randn(150, 2, 32).half()
    device = torch.device("cpu")
    mine, theirs = npu.new_cache(150, 2, 32, device), cpu.new_cache(150, 2, 32, device)
    for begin, end in ((0, 130), (130, 131), (131, 150)):
        new = query[begin:end], key[begin:end], value[begin:end]
        assert torch.equal(npu.attention(*new, mine, begin, 0.2), cpu.attention(*new, theirs, begin, 0.2))
    compressed = kind is FakeNpuWithCompressedMasks
    assert [call for call in fake.calls if "attention" in call] == [
        "_npu_flash_attention_v3" if compressed else "_npu_flash_attention",
        "_npu_paged_attention",
        "_npu_paged_attention_splitfuse_v2" if compressed else "_npu_paged_attention_splitfuse",
    ]


@pytest.mark.parametrize(("n", "k"), [(64, 512), (192, 256), (160, 512), (192, 300)])
def test_shapes_that_the_device_does_not_take(fake: FakeNpu, n: int, k: int) -> None:
    with pytest.raises(InputError, match=f"does not take n = {n}, k = {k}"):
        npu.matmul_compress_dequant(
            quantized(1, k), torch.zeros(128).char(), torch.zeros(8).char(), torch.zeros(n).int(), scales(n)
        )
    assert fake.calls == []


def test_every_operator_has_both_implementations() -> None:
    for name in SCHEMAS:
        operator = getattr(ops, name).default
        assert operator.has_kernel_for_dispatch_key(torch._C.DispatchKey.CPU)
        assert operator.has_kernel_for_dispatch_key(torch._C.DispatchKey.PrivateUse1)
