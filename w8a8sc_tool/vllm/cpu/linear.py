"""Linear layers and embeddings: parameters as vLLM Ascend's 310P schemes have them, the runtime's exact operators.

Importing this loads neither numba nor the runtime: workers of vLLM 0.32 scan all modules before a model is loaded, and
die of numba's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter
from vllm.model_executor.layers.linear import LinearMethodBase, RowParallelLinear, UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod
from vllm.model_executor.utils import set_weight_attrs

from ...errors import InputError
from ..index import payload_end

_STATIC: Final = ("W8A8SC", "W8A8S", "W8A8")
# Bytes of an element in a compressed matrix, and the coding it has.
_COMPRESSED: Final = {"W8A8SC": (1, "low"), "W16A16SC": (2, "high")}
_TYPES: Final = (*_STATIC, "W16A16SC", "W8A8_DYNAMIC")
_REMEDY: Final = "copy the directory again; w8a8sc verify tells more"


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    from .operators import ops

    out: Tensor = ops.linear(x, weight)
    return out if bias is None else out + bias


class FloatMethod(UnquantizedLinearMethod):
    """FLOAT layers: summed in float32, rounded once."""

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        """Nothing: the weight stays as it is."""

    def apply(self, layer: torch.nn.Module, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return _linear(x, layer.weight, bias)


class EmbeddingMethod(UnquantizedEmbeddingMethod):
    """Embeddings, and lm_head as a FLOAT layer."""

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        """Nothing: the weight stays as it is."""

    def apply(self, layer: torch.nn.Module, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return _linear(x, layer.weight, bias)


class QuantizedMethod(LinearMethodBase):
    """A layer of any quantized type, compressed or not."""

    def __init__(self, name: str, quantization: str, *, has_input_scale: bool) -> None:
        """has_input_scale: whether a W8A8_DYNAMIC layer is stored with the two scalars that it does not use."""
        if quantization not in _TYPES:
            remedy = f"types: FLOAT, W16A16S, {', '.join(_TYPES)}"
            raise InputError(f"{name} has type {quantization}, which is not supported", remedy=remedy)
        self._name, self._type, self._has_input_scale = name, quantization, has_input_scale
        self.compressed_matrix: tuple[int, int] | None = None  # (bytes of a row, rows)

    def create_weights(
        self,
        layer: torch.nn.Module,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **extra: Any,
    ) -> None:
        """The tensors that a directory or a checkpoint has for the layer (vLLM's interface)."""
        n, k = sum(output_partition_sizes), input_size_per_partition
        loader = extra["weight_loader"]

        def add(name: str, shape: tuple[int, ...], dtype: torch.dtype, **attributes: Any) -> None:
            # The parts of a fused layer have one scalar each, of which the last one read wins, as on the 310P.
            settings = attributes if "output_dim" in attributes else {"ignore_warning": True, **attributes}
            parameter = Parameter(torch.empty(shape, dtype=dtype), requires_grad=False)
            set_weight_attrs(parameter, {"weight_loader": loader, **settings})
            layer.register_parameter(name, parameter)

        if self._type in _COMPRESSED:
            width = k * _COMPRESSED[self._type][0]
            self.compressed_matrix = (width, n)
            # At full size, as vLLM Ascend: sharded_state fills the front. Memory that is never touched is never taken.
            add("weight", (n * width,), torch.int8)
            add("index", (8 * -(-width // 256) * -(-n // 128),), torch.int8)
            add("info", (5,), torch.int64)
        else:
            add("weight", (n, k), torch.int8, input_dim=1, output_dim=0)
        if self._type in _STATIC:
            add("quant_bias", (n,), torch.int32, output_dim=0)
            add("deq_scale", (n,), torch.int64, output_dim=0, weight_loader=_bits_of_float32(loader))
        if self._type in _STATIC or (self._type == "W8A8_DYNAMIC" and self._has_input_scale):
            add("input_scale", (1,), torch.float16)
            add("input_offset", (1,), torch.int8)
        if self._type in ("W8A8", "W8A8_DYNAMIC"):
            dtype = torch.float16 if self._type == "W8A8" else torch.float32
            add("weight_scale", (n, 1), dtype, output_dim=0)
            add("weight_offset", (n, 1), dtype, output_dim=0)

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        """Decode a compressed weight, once, and make the runtime's layer of the tensors."""
        from ...runtime.linear import Linear

        tensors: dict[str, Tensor] = {
            name: parameter.data for name, parameter in layer.named_parameters(recurse=False) if name != "bias"
        }
        tensors.pop("weight_offset", None)
        if self._type == "W8A8_DYNAMIC":
            tensors = {name: tensors[name] for name in ("weight", "weight_scale")}
        if self.compressed_matrix is not None:
            weight = self._decoded(tensors["weight"], tensors.pop("index"), tensors.pop("info"))
            tensors["weight"] = weight
            layer.weight = Parameter(weight, requires_grad=False)
            del layer.index, layer.info
        rank: int = layer.tp_rank
        summed = isinstance(layer, RowParallelLinear)
        device = torch.device("cpu")
        layer.w8a8sc = Linear(self._name, tensors, sum_over_ranks=summed, rank=rank, device=device)

    def _decoded(self, weight: Tensor, index: Tensor, info: Tensor) -> Tensor:
        """int8 [n, k], or float16 [n, k] for W16A16SC. Raises InputError, naming the layer, if it is damaged."""
        from ...codec import decode_matrix

        assert self.compressed_matrix is not None
        width, n = self.compressed_matrix
        if info.tolist() != [8, 8, width, n, 1]:
            message = f"{self._name}: info is {info.tolist()}, this rank's is [8, 8, {width}, {n}, 1]"
            raise InputError(message, remedy="serve the directory at the size it was made for")
        sparsity: Any = _COMPRESSED[self._type][1]
        used = payload_end(index.numpy())
        try:
            plain = decode_matrix(weight.numpy()[:used], index.numpy(), info.numpy(), sparsity=sparsity)
        except ValueError as error:
            raise InputError(f"{self._name}: the compressed weight is damaged ({error})", remedy=_REMEDY) from None
        decoded = torch.from_numpy(np.ascontiguousarray(plain))
        return decoded.view(torch.float16) if self._type == "W16A16SC" else decoded

    def apply(self, layer: torch.nn.Module, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x float16 [m, k] -> float16 [m, n], this rank's share."""
        out: Tensor = layer.w8a8sc(x)
        # As on the 310P: quant_bias contains the bias of a statically quantized layer.
        return out if bias is None or self._type in _STATIC else out + bias


def _bits_of_float32(loader: Callable[..., Any]) -> Callable[..., Any]:
    """A weight loader that takes a float32 deq_scale (of a bfloat16 model) as its bits, the form the kernels read."""

    def load(parameter: Parameter, loaded: Tensor, *args: Any) -> Any:
        bits = loaded.view(torch.int32).to(torch.int64) if loaded.dtype == torch.float32 else loaded
        return loader(parameter, bits, *args)

    return load
