"""What `register` does, with vLLM imported."""

from __future__ import annotations

from typing import Any

from . import NAME


def register_load_format() -> None:
    """The load format, on every platform. Raises RuntimeError if another package has taken its name."""
    from vllm.model_executor import model_loader

    known = model_loader._LOAD_FORMAT_TO_MODEL_LOADER.get(NAME)
    if known is None:
        from .loader import W8A8SCModelLoader

        model_loader.register_model_loader(NAME)(W8A8SCModelLoader)
    else:
        _refuse_other("load format", known)


def register_quantization() -> None:
    """The quantization method, on vLLM's CPU platform alone: on an NPU the method is vLLM Ascend's.

    Raises RuntimeError if another package has taken its name.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.model_executor.layers import quantization

    if NAME in quantization.QUANTIZATION_METHODS:
        _refuse_other("quantization method", quantization.get_quantization_config(NAME))
        return
    from .cpu.config import W8A8SCConfig
    from .cpu.norm import replace_norms

    replace_norms()
    quantization.register_quantization_config(NAME)(W8A8SCConfig)


def _refuse_other(role: str, known: type[Any]) -> None:
    if not known.__module__.startswith(f"{__package__}."):
        raise RuntimeError(f"the {role} {NAME} is {known.__module__}'s: uninstall that package or this one")
