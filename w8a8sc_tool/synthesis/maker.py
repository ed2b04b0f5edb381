"""Values for every tensor that a layout asks a checkpoint for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..layouts import CheckpointModule, Source
from ..layouts.expand import STATIC
from ..layouts.words import Dealt, Embedding, Linear, Norm, Whole
from .values import BLOCK_ELEMENTS, Random, encode, normal_table, weight_table

# What outlier suppression m4 leaves: the mean of a norm's output moved into a bias, in steps that sums are exact with.
_SHIFT_SIGMA: Final = 0.05
_SHIFT_STEP: Final = 2.0**-10

# Activations behind a norm are about standard normal; +-4 of them fill int8.
_INPUT_SCALE: Final = 4 / 127
_INPUT_OFFSET: Final = 3
_ZEROS_W16: Final = 0.75  # of the values of W16A16S weights; no recipe is published
_NORM_SIGMA: Final = 0.05
_BIAS_SIGMA: Final = 0.2


@dataclass(frozen=True)
class Tensor:
    """A tensor to be written: `make` yields its values in pieces."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    quantization: str
    make: Callable[[], Iterator[npt.NDArray[Any]]]


class Maker:
    """Makes the tensors of a model one after the other.

    modules: in the order of their tensors in the files. layers: how many decoder layers there are. dtype: of floating
    tensors, F16 or BF16. m4: whether outlier suppression of that name moved shifts from norms into biases. sigma:
    standard deviation of the int8 weights. A layer's biases need its weight's sums: make its tensors in their order.
    """

    def __init__(
        self, modules: Sequence[CheckpointModule], layers: int, *, dtype: str, m4: bool, sigma: float, seed: int
    ) -> None:
        self._modules = modules
        self._float = dtype
        self._m4 = m4
        self._weights = weight_table(sigma)
        # What a layer adds to the residual stream shrinks with depth, so that its size stays the same.
        self._damping = (2 * layers) ** -0.5
        self._random = Random(seed)
        self._shifting = {module.norm for module in modules} if m4 else set()
        self._row_sums: dict[str, npt.NDArray[np.int64]] = {}
        self._shifted: dict[str, npt.NDArray[np.float64]] = {}  # weights times the shift in front of them

    def tensors(self) -> Iterator[Tensor]:
        for module in self._modules:
            if isinstance(module.row, Norm):
                center = 0.0 if module.row.gemma else 1.0
                yield from (self._norm(module.name, source, center) for source in module.sources)
            elif isinstance(module.row, Embedding):
                (source,) = module.sources
                # Logits of about one.
                sigma = 1.0 if module.row.tied_to is None else source.shape[1] ** -0.5
                yield self._floats(source, sigma)
            elif isinstance(module.row, (Whole, Dealt)):
                yield from (self._whole(source) for source in module.sources)
            elif isinstance(module.row, Linear):
                yield from self._linear(module, 1.0 if module.row.cut == "rows" else self._damping)

    def _norm(self, name: str, source: Source, center: float) -> Tensor:
        if source.name.endswith(".weight"):
            return self._floats(source, _NORM_SIGMA, center=center)
        shift = self._shift(name, *source.shape)
        return _values(source.name, "F32", "FLOAT", (shift * _SHIFT_STEP).astype(np.float32))

    def _whole(self, source: Source) -> Tensor:
        """Norms as those of the decoder; tables and convolutions so that their results are of about their size."""
        if len(source.shape) == 1 and source.name.endswith(".weight"):
            return self._floats(source, _NORM_SIGMA, center=1.0)
        return self._floats(source, _BIAS_SIGMA if len(source.shape) < 3 else math.prod(source.shape[1:]) ** -0.5)

    def _shift(self, norm: str, size: int) -> npt.NDArray[np.float64]:
        """The bias of a norm in steps, float64 [size] of integers; only norms in front of linear layers have one."""
        if norm not in self._shifting:
            return np.zeros(size)
        values = normal_table()[self._random.all(f"{norm}.bias", size)].astype(np.float64)
        return np.asarray(np.rint(values * (_SHIFT_SIGMA / _SHIFT_STEP)))

    def _linear(self, module: CheckpointModule, gain: float) -> Iterator[Tensor]:
        """The tensors that the layout names, the bias behind the weight; m4 leaves one that it may not name."""
        sources = {source.name.rpartition(".")[2]: source for source in module.sources}
        n, k = sources["weight"].shape
        shift = self._shift(module.norm, k) if module.norm in self._shifting and module.norm else None
        own_bias = sources.pop("bias", None)
        bias = own_bias or (Source(f"{module.name}.bias", (), (n,)) if shift is not None else None)
        weight = sources.pop("weight")
        if module.quantization in ("FLOAT", "W16A16S"):
            sparse = module.quantization == "W16A16S"
            yield self._sparse_floats(weight, gain) if sparse else self._floats(weight, gain * k**-0.5)
            if bias is not None:
                yield self._floats(bias, _BIAS_SIGMA)
            return
        spread = gain * k**-0.5 / float(self._weights.astype(np.float32).std())
        around = normal_table()[self._random.all(f"{module.name}.deq_scale", n)]
        layer = _Quantized(module, (spread * (1 + 0.1 * around)).astype(np.float32), shift, own_bias is not None)
        yield Tensor(weight.name, "I8", (n, k), module.quantization, lambda: self._int8(layer, n, k))
        if bias is not None:
            yield Tensor(bias.name, self._float, (n,), "FLOAT", lambda: iter([self._bias(layer)]))
        for leaf, source in sources.items():
            yield self._beside(layer, leaf, source)

    def _beside(self, layer: _Quantized, leaf: str, source: Source) -> Tensor:
        """A tensor beside an int8 weight, of the leaves that layouts name."""
        type_, shape, scales = layer.module.quantization, source.shape, layer.scales
        if leaf == "quant_bias":
            return Tensor(source.name, "I32", shape, type_, lambda: iter([self._quant_bias(layer)]))
        if leaf == "deq_scale":
            deq = scales * np.float32(_INPUT_SCALE)
            if self._float == "F16":
                return _values(source.name, "I64", type_, deq.view(np.int32).astype(np.int64))
            return _values(source.name, "F32", type_, deq)
        value = {
            "input_scale": _INPUT_SCALE,
            "input_offset": _INPUT_OFFSET,
            "weight_scale": scales.reshape(-1, 1),
            "weight_offset": 0,
        }[leaf]
        dtype = "F32" if self._m4 and leaf.startswith("input_") else self._float
        return _values(source.name, dtype, type_, np.broadcast_to(np.asarray(value, np.float32), shape))

    def _int8(self, layer: _Quantized, n: int, k: int) -> Iterator[npt.NDArray[Any]]:
        name, shift = layer.module.name, layer.shift
        rows = max(1, BLOCK_ELEMENTS // k)
        sums, shifted = [], []
        for block in self._random.blocks(f"{name}.weight", n * k, rows * k):
            values = np.take(self._weights, block)
            matrix = values.reshape(-1, k)
            sums.append(matrix.sum(axis=1, dtype=np.int64))
            if shift is not None:  # integers below 2**53: exact in whatever order they are added
                shifted.append(matrix.astype(np.float64) @ shift)
            yield values
        if layer.module.quantization in STATIC or layer.has_bias or shift is not None:  # experts are thousands
            self._row_sums[name] = np.concatenate(sums)  # for the biases
            self._shifted[name] = np.concatenate(shifted) if shifted else np.zeros(n)

    def _own_bias(self, layer: _Quantized) -> npt.NDArray[np.float32]:
        """What the model class has a parameter for; zeros where it has none."""
        if not layer.has_bias:
            return np.zeros(len(layer.scales), np.float32)
        values = normal_table()[self._random.all(f"{layer.module.name}.bias", len(layer.scales))]
        return np.asarray(values * np.float32(_BIAS_SIGMA))

    def _bias(self, layer: _Quantized) -> npt.NDArray[Any]:
        """The layer's own, less what the shift of the norm in front adds."""
        shifted = (self._shifted[layer.module.name] * _SHIFT_STEP).astype(np.float32)
        return encode(self._own_bias(layer) - layer.scales * shifted, self._float)

    def _quant_bias(self, layer: _Quantized) -> npt.NDArray[Any]:
        """What takes back the input offset, and the bias in units of deq_scale, as msmodelslim folds both in."""
        name = layer.module.name
        own = self._own_bias(layer) / (layer.scales * np.float32(_INPUT_SCALE))
        bias = np.rint(self._shifted.pop(name) * (-_SHIFT_STEP / _INPUT_SCALE)) + np.rint(own)
        return np.asarray(bias.astype(np.int64) - _INPUT_OFFSET * self._row_sums.pop(name), np.int32)

    def _sparse_floats(self, source: Source, gain: float) -> Tensor:
        """Floating weights most of which are zero."""
        sigma = gain * (source.shape[1] * (1 - _ZEROS_W16)) ** -0.5
        values = normal_table() * np.float32(sigma)
        values[np.random.default_rng(0).random(len(values)) < _ZEROS_W16] = 0
        return self._drawn(source, "W16A16S", values)

    def _floats(self, source: Source, sigma: float, *, center: float = 0.0) -> Tensor:
        return self._drawn(source, "FLOAT", normal_table() * np.float32(sigma) + np.float32(center))

    def _drawn(self, source: Source, quantization: str, values: npt.NDArray[np.float32]) -> Tensor:
        """A tensor of values out of a table of 65536."""
        table = encode(values, self._float)
        count = math.prod(source.shape)

        def make() -> Iterator[npt.NDArray[Any]]:
            for block in self._random.blocks(source.name, count, BLOCK_ELEMENTS):
                yield np.take(table, block)

        return Tensor(source.name, self._float, source.shape, quantization, make)


@dataclass(frozen=True)
class _Quantized:
    """A linear layer with int8 weights: float32 scales [n], the shift in front of it if there is one (in steps,
    float64 [k]), and whether its class has a bias.
    """

    module: CheckpointModule
    scales: npt.NDArray[np.float32]
    shift: npt.NDArray[np.float64] | None
    has_bias: bool


def _values(name: str, dtype: str, quantization: str, values: npt.NDArray[Any]) -> Tensor:
    encoded = encode(values, dtype)
    return Tensor(name, dtype, values.shape, quantization, lambda: iter([encoded]))
