"""Which type each layer has, from quant_model_description.json, as vLLM asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from vllm.model_executor.layers.linear import LinearBase
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig, QuantizeMethodBase
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

from ...errors import InputError
from ...io.folders import RANK_FILE
from ...io.reading import is_folder, matching
from ...io.safetensors import TensorFile
from .. import NAME
from .linear import EmbeddingMethod, FloatMethod, QuantizedMethod

_DESCRIPTION = "quant_model_description.json"
_FLOAT = ("FLOAT", "W16A16S")  # stored as plain float16


class W8A8SCConfig(QuantizationConfig):
    """A directory's or a checkpoint's description; pickled to every worker."""

    def __init__(self, description: dict[str, Any]) -> None:
        super().__init__()
        self.description = description
        self.norm_bias = any("norm.bias" in name for name in description)
        self.tensors: frozenset[str] = frozenset()  # of rank 0's files; none for a checkpoint

    def get_name(self) -> str:
        return NAME

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        return [torch.float16]  # the 310P's, whose arithmetic this is

    @classmethod
    def get_min_capability(cls) -> int:
        return -1

    @staticmethod
    def get_config_filenames() -> list[str]:
        return [_DESCRIPTION]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> W8A8SCConfig:
        return cls(config)

    def maybe_update_config(self, model_name: str, hf_config: Any = None, revision: str | None = None) -> None:
        """vLLM tells the model's folder: rank 0's files say which optional tensors there are."""
        folder = Path(model_name)
        files = matching(folder, "model-rank-0-part-*.safetensors") if is_folder(folder) else []
        for path in files:
            if RANK_FILE.fullmatch(path.name):
                with TensorFile(path) as file:
                    self.tensors |= set(file.tensors)

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> QuantizeMethodBase | None:
        """None for attention, which then keeps the scale buffers that the files hold."""
        if isinstance(layer, LinearBase):
            quantization = self._type_of(prefix)
            if quantization in _FLOAT:
                return FloatMethod()
            return QuantizedMethod(prefix, quantization, has_input_scale=f"{prefix}.input_scale" in self.tensors)
        return EmbeddingMethod() if isinstance(layer, VocabParallelEmbedding) else None

    def _type_of(self, prefix: str) -> str:
        """The type of a layer, which the description names by the parts that vLLM fuses."""
        module, _, leaf = prefix.rpartition(".")
        parts = self.packed_modules_mapping.get(leaf, [leaf])
        types = {part: self.description.get(f"{module}.{part}.weight") for part in parts}
        if None in types.values():
            absent = next(part for part, quantization in types.items() if quantization is None)
            raise InputError(f"{module}.{absent}.weight has no type", _DESCRIPTION, "restore the file")
        if len(set(types.values())) != 1:
            listed = ", ".join(f"{part} {quantization}" for part, quantization in types.items())
            raise InputError(f"the parts of {prefix} have different types ({listed})", _DESCRIPTION, "restore the file")
        return str(types[parts[0]])
