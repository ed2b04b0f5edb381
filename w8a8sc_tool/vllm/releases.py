"""What may differ between releases of vLLM and vLLM Ascend, in one file: 0.18.0, 0.23.0 and main of August 2026.

Whatever a release has elsewhere or otherwise is refused with its number: nothing is guessed.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from torch import nn

from ..errors import MissingError, W8A8SCError

_TRIED: Final = "0.18.0 and 0.23.0"


def ascend_scheme() -> type[Any]:
    """vLLM Ascend's class of compressed layers. Raises MissingError, naming the release, if it is not where it was."""
    try:
        from vllm_ascend._310p.quantization.methods.w8a8sc import AscendW8A8SCLinearMethod310 as Scheme
    except ImportError as error:
        raise _unknown(f"has no W8A8SC layers where they are expected ({error})") from error
    return Scheme  # type: ignore[no-any-return]


def _unknown(problem: str) -> W8A8SCError:
    remedy = f"serve with --load-format sharded_state; --load-format w8a8sc is known to work with {_TRIED}"
    return MissingError(f"vLLM Ascend {_version()} {problem}", remedy=remedy)


def _version() -> str:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("vllm-ascend")
    return "of an unknown release"


@contextlib.contextmanager
def empty_compressed_weights(scheme: type[Any]) -> Iterator[None]:
    """Meanwhile vLLM Ascend makes compressed weights without bytes, and all else as ever.

    A scheme does not know its layer's name, so it cannot know the length; the loader makes the weights.
    """
    original: Callable[..., dict[str, Any]] = scheme.get_weight
    parameters = list(inspect.signature(original).parameters)
    if parameters != ["self", "input_size", "output_size", "params_dtype"]:
        raise _unknown(f"makes compressed weights from {', '.join(parameters)}")

    def get_weight(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        with torch.device("meta"):
            tensors = original(self, *args, **kwargs)
        forms = {name: (tensor.dtype, tensor.dim()) for name, tensor in tensors.items()}
        if forms != {"weight": (torch.int8, 1), "index": (torch.int8, 1), "info": (torch.int64, 1)}:
            raise _unknown(f"makes other tensors of a compressed weight: {', '.join(forms)}")
        empty = torch.empty(0, dtype=torch.int8)
        others = {n: torch.empty(t.shape, dtype=t.dtype) for n, t in tensors.items() if n != "weight"}
        return {"weight": empty, **others}

    scheme.get_weight = get_weight
    try:
        yield
    finally:
        scheme.get_weight = original


def ascend_matrix(module: nn.Module, scheme: type[Any]) -> tuple[int, int] | None:
    """(k, n) of the matrix that a module's compressed weight stands for, None for all other modules."""
    method = getattr(getattr(module, "quant_method", None), "quant_method", None)
    if not isinstance(method, scheme):
        return None
    try:
        return int(method.input_size), module.deq_scale.numel()
    except AttributeError as error:
        raise _unknown(f"keeps a compressed layer's sizes elsewhere ({error})") from error


def stored_tensors(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those of a state dictionary that sharded_state files hold: one key for tensors that share memory."""
    from vllm.model_executor.model_loader import ShardedStateLoader

    return ShardedStateLoader._filter_subtensors(state)  # type: ignore[no-any-return]


def offloads_weights(vllm_config: Any) -> bool:
    """Whether weights are to be kept in the host's memory."""
    config = vllm_config.offload_config
    return bool(config.uva.cpu_offload_gb or config.prefetch.offload_group_size)


def draft_model(vllm_config: Any) -> str | None:
    """The path of a draft model for speculative decoding that will be loaded in the same format as the model."""
    speculative = vllm_config.speculative_config
    if speculative is None or (speculative.draft_load_config is not None and heeds_draft_load_config()):
        return None
    draft = speculative.draft_model_config
    return None if draft is None or draft.model == vllm_config.model_config.model else str(draft.model)


def heeds_draft_load_config() -> bool:
    """Whether drafts can have a load format of their own: vLLM Ascend 0.18 ignores it (spec_decode/)."""
    return not _version().startswith("0.18.")


def check_lora(lora_config: Any) -> None:
    """Raises MissingError if LoRA has no wrapper for the class that embeddings have on this platform.

    vLLM wraps them with every adapter, whatever it adapts, and ends in an assertion where it cannot: vLLM Ascend 0.18.0
    has a wrapper for the embeddings of other chips only (lora/utils.py).
    """
    from vllm.lora.layers import VocabParallelEmbeddingWithLoRA
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    with contextlib.suppress(ImportError):
        importlib.import_module("vllm_ascend.lora.utils")  # its wrappers are subclasses
    wrappers = [VocabParallelEmbeddingWithLoRA, *VocabParallelEmbeddingWithLoRA.__subclasses__()]
    embedding = VocabParallelEmbedding.__new__(VocabParallelEmbedding)  # of the platform's class, not initialised
    if not any(wrapper.can_replace_layer(embedding, lora_config, [], None) for wrapper in wrappers):
        raise MissingError(
            f"vLLM Ascend {_version()} has no LoRA for the 310P's embeddings",
            remedy="leave out --enable-lora, or use vLLM Ascend 0.23.0",
        )


def drop_embedding_copies(model: nn.Module) -> int:
    """Free the layout of embeddings and lm_head that is not used; returns the bytes.

    vLLM Ascend looks tokens up in `weight` and multiplies by `weight_nz` (_310p/ops/vocab_parallel_embedding.py), so
    embeddings need the one and lm_head the other; tied ones need both.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

    tables = [m for m in model.modules() if isinstance(m, VocabParallelEmbedding)]
    copied = [m for m in tables if isinstance(getattr(m, "weight_nz", None), torch.Tensor)]
    storages = [m.weight.data_ptr() for m in tables]
    freed = 0
    for module in copied:
        apart = module.weight_nz.data_ptr() != module.weight.data_ptr()
        if not apart or len(tables) < 2 or storages.count(module.weight.data_ptr()) > 1:
            continue
        freed += module.weight.untyped_storage().nbytes()
        if isinstance(module, ParallelLMHead):
            module.weight.data = module.weight_nz.data
        else:
            del module.weight_nz
    return freed
