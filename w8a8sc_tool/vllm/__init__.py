"""The plugin for vLLM: the load format `w8a8sc`, and on vLLM's CPU platform the quantization method `w8a8sc`.

vLLM calls `register` in each of its processes (entry point group vllm.general_plugins), whatever model it will serve.
"""

from __future__ import annotations

import logging
from typing import Final

NAME: Final = "w8a8sc"  # of the entry point, the load format and the quantization method


def register() -> None:
    """Make load format and quantization method known to vLLM, once.

    Never raises: vLLM would end with it, for every model. Loads neither numba nor, before vLLM does, torch.
    """
    try:
        from .registration import register_load_format

        register_load_format()
    except Exception as error:
        logging.getLogger("vllm").warning("w8a8sc: not available in this vLLM (%s: %s)", type(error).__name__, error)
