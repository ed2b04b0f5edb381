"""The model loader behind `--load-format w8a8sc`.

It is made for vLLM Ascend on 310P, and loads for vLLM's CPU platform too. Its errors are one line: the log of an engine
that does not start ends in the exception of a worker, and shows nothing else.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from vllm.config import ModelConfig, VllmConfig
from vllm.config.load import LoadConfig
from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size
from vllm.logger import init_logger
from vllm.model_executor.model_loader.base_loader import BaseModelLoader
from vllm.platforms import current_platform

from ..errors import W8A8SCError
from . import releases
from .configuration import check_configuration
from .options import Options
from .shard import Shard, Wanted, one_line

logger = init_logger("vllm.w8a8sc")

_NAMES: Final = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}


@dataclass(frozen=True)
class Compressed:
    """A layer with a compressed weight: its matrix is [n, k]."""

    module: nn.Module
    k: int
    n: int


class W8A8SCModelLoader(BaseModelLoader):
    """Checks a directory, gives every compressed weight memory of its own length, and streams the tensors into it."""

    def __init__(self, load_config: LoadConfig) -> None:
        super().__init__(load_config)
        self._options = Options.parse(load_config.model_loader_extra_config)
        self._shard: Shard | None = None

    def download_model(self, model_config: ModelConfig) -> None:
        """Nothing to do: a directory has to be on this machine."""

    def load_model(self, vllm_config: VllmConfig, model_config: ModelConfig, prefix: str = "") -> nn.Module:
        """The model, loaded and in the form its kernels want. Raises a W8A8SCError of one line."""
        try:
            check_configuration(vllm_config, model_config)
            with contextlib.ExitStack() as stack:
                self._shard = stack.enter_context(_open(model_config))
                stack.callback(self._forget)
                if self._options.allocate == "exact" and not current_platform.is_cpu():
                    stack.enter_context(releases.empty_compressed_weights(releases.ascend_scheme()))
                model = super().load_model(vllm_config=vllm_config, model_config=model_config, prefix=prefix)
        except W8A8SCError as error:
            raise one_line(error) from error
        if self._options.embedding_copies == "drop":
            freed = releases.drop_embedding_copies(model)
            logger.info("w8a8sc: second copies of embeddings dropped, %.3f GiB", freed / 2**30)
        return model

    def _forget(self) -> None:
        self._shard = None

    def load_weights(self, model: nn.Module, model_config: ModelConfig) -> None:
        """Fill a model that has been built; `load_model` calls this, and vLLM may do so alone."""
        if self._shard is not None:
            self._fill(model, self._shard)
            return
        with _open(model_config) as shard:
            self._fill(model, shard)

    def _fill(self, model: nn.Module, shard: Shard) -> None:
        start = time.perf_counter()
        layers = compressed_layers(model)
        weights = {f"{name}.weight": layer for name, layer in layers.items()}
        state = model.state_dict()
        targets = releases.stored_tensors({name: tensor for name, tensor in state.items() if name not in weights})
        shard.check(
            {name: Wanted(_NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in targets.items()}
            | {name: Wanted("I8", (), (layer.k, layer.n)) for name, layer in weights.items()}
        )
        targets |= self._make_weights(weights, shard)
        for name, offset, piece in shard.pieces(self._options.verify):
            flat = targets[name].data.view(-1)
            values = torch.from_numpy(piece).view(flat.dtype)
            first = offset // flat.element_size()
            flat[first : first + values.numel()].copy_(values)
        full = sum(layer.k * layer.n for layer in weights.values())
        taken = full if self._options.allocate == "full" else sum(targets[name].numel() for name in weights)
        logger.info(
            "w8a8sc: loaded in %.2f s; %d compressed weights take %.3f GiB, their matrices %.3f GiB",
            *(time.perf_counter() - start, len(weights), taken / 2**30, full / 2**30),
        )

    def _make_weights(self, weights: dict[str, Compressed], shard: Shard) -> dict[str, torch.Tensor]:
        """The memory that each compressed weight's bytes go to."""
        targets = {}
        for name, layer in weights.items():
            length = shard.tensors[name][1].nbytes
            parameter: Any = layer.module.weight
            # The parameter stays the object it is: it carries attributes. Its own tensor, not a view of a larger one:
            # an operator may take its offset for 0.
            if self._options.allocate == "exact" and parameter.numel() != length:
                parameter.data = torch.empty(length, dtype=torch.int8, device=parameter.device)
            targets[name] = parameter.data[:length]
        return targets


def compressed_layers(model: nn.Module) -> dict[str, Compressed]:
    """The layers with compressed weights, by the name that sorts first of those a module has (as in the files)."""
    scheme = None if current_platform.is_cpu() else releases.ascend_scheme()
    names: dict[int, str] = {}
    layers: dict[str, Compressed] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        matrix = _matrix(module) if scheme is None else releases.ascend_matrix(module, scheme)
        if matrix is not None:
            names[id(module)] = min(names.get(id(module), name), name)
            layers[name] = Compressed(module, *matrix)
    return {name: layers[name] for name in names.values()}


def _matrix(module: nn.Module) -> tuple[int, int] | None:
    """(k, n) of a compressed layer of our own quantization method."""
    matrix: tuple[int, int] | None = getattr(getattr(module, "quant_method", None), "compressed_matrix", None)
    return matrix


def _open(model_config: ModelConfig) -> Shard:
    path = model_config.model_weights or model_config.model
    return Shard.open(path, get_tensor_model_parallel_rank(), get_tensor_model_parallel_world_size())
