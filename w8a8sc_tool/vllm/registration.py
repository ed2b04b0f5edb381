"""What `register` does, with vLLM imported."""

from __future__ import annotations

from . import NAME


def register_load_format() -> None:
    """The load format, on every platform. Raises RuntimeError if another package has taken its name."""
    from vllm.model_executor import model_loader

    known = model_loader._LOAD_FORMAT_TO_MODEL_LOADER.get(NAME)
    if known is None:
        from .loader import W8A8SCModelLoader

        model_loader.register_model_loader(NAME)(W8A8SCModelLoader)
    elif not known.__module__.startswith(f"{__package__}."):
        raise RuntimeError(f"the load format {NAME} is {known.__module__}'s: uninstall that package or this one")
