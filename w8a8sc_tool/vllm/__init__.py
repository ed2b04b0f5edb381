"""The plugin for vLLM: the load format `w8a8sc`, and on vLLM's CPU platform the quantization method `w8a8sc`.

vLLM calls `register` in each of its processes (entry point group vllm.general_plugins), whatever model it will serve.
"""

from __future__ import annotations

import importlib
import logging
from typing import Final

NAME: Final = "w8a8sc"  # of the entry point, the load format and the quantization method


def register() -> None:
    """Make load format and quantization method known to vLLM, once.

    Never raises: vLLM would end with it, for every model. Loads neither numba nor, before vLLM does, torch.
    """
    for function in ("register_load_format", "register_quantization"):
        try:
            getattr(importlib.import_module(f"{__name__}.registration"), function)()
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            logging.getLogger("vllm").warning("w8a8sc: %s failed, vLLM goes on without (%s)", function, problem)
