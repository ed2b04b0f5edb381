"""The device self-test: run against the stand-in it passes, and a device that errs is found out."""

from __future__ import annotations

import sys

import pytest
import torch

from w8a8sc_tool.jobs.device import check_device
from w8a8sc_tool.runtime.selftest import SelfTest

from .fake_npu import FakeNpu

SMALL = ((128, 320), (192, 512))


def test_a_right_device_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_npu", FakeNpu())
    outcomes = SelfTest("cpu").run(SMALL, (1, 16))
    assert all(outcome.ok for outcome in outcomes), [outcome for outcome in outcomes if not outcome.ok]
    assert {outcome.operator for outcome in outcomes} == {
        *(
            "matmul_compress_dequant",
            "exact and padded weight",
            "quant_matmul",
            "dynamic_matmul",
            "quantize",
            "linear",
            "rms_norm",
            "add_rms_norm",
        ),
        *("swiglu", "rotary", "attention"),
    }


def test_a_device_that_errs_or_fails_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(FakeNpu):
        def npu_quant_matmul(self, *arguments: object, **named: object) -> torch.Tensor:
            return super().npu_quant_matmul(*arguments, **named) * 1.01

        def npu_swiglu(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("aclnn error 507018")

    monkeypatch.setitem(sys.modules, "torch_npu", Wrong())
    outcomes = SelfTest("cpu").run(SMALL, (1,))
    assert {outcome.operator for outcome in outcomes if not outcome.ok} == {"quant_matmul", "dynamic_matmul", "swiglu"}
    assert any("507018" in outcome.error for outcome in outcomes)


def test_a_device_that_reads_past_a_weight_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the plugin for vLLM relies on: the operator needs the compressed bytes alone."""

    class Greedy(FakeNpu):
        def npu_matmul_compress_dequant(
            self, x1: torch.Tensor, x2: torch.Tensor, *others: torch.Tensor
        ) -> torch.Tensor:
            out = super().npu_matmul_compress_dequant(x1, x2, *others)
            return out if x2.numel() < x1.shape[-1] * out.shape[-1] else out + 1

    monkeypatch.setitem(sys.modules, "torch_npu", Greedy())
    outcomes = SelfTest("cpu").run(SMALL, (1, 16))
    assert {outcome.operator for outcome in outcomes if not outcome.ok} == {"exact and padded weight"}


def test_without_a_device_what_is_missing_is_told() -> None:
    report = check_device()
    assert not report.ok
    assert any("davinci" in missing for missing in report.missing)
