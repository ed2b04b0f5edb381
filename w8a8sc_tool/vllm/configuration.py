"""What vLLM was asked for, checked before anything is allocated: options with which loading or serving cannot work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from vllm.platforms import current_platform

from ..errors import MissingError, UsageError
from ..io.folders import is_sharded_state
from . import NAME, releases
from .installed import other_versions


def check_configuration(vllm_config: Any, model_config: Any) -> None:
    """Raises a W8A8SCError, in one line with the remedy, for the first option that cannot work."""
    if others := other_versions():
        remedy = "pip uninstall w8a8sc until none is left, then install one"
        raise MissingError(f"several versions of w8a8sc are installed: {', '.join(others)}", remedy=remedy)
    method = NAME if current_platform.is_cpu() else "ascend"
    if model_config.quantization != method:
        given = f"--quantization {model_config.quantization}" if model_config.quantization else "no --quantization"
        raise UsageError(
            f"{given}: vLLM would read the weights as another type", remedy=f"give --quantization {method}"
        )
    if model_config.dtype != torch.float16:
        raise UsageError(
            f"{model_config.dtype}: the files are float16, and the 310P computes in nothing else",
            remedy="give --dtype float16",
        )
    if vllm_config.parallel_config.pipeline_parallel_size != 1:
        raise UsageError(
            "the layers of a directory are not divided over pipeline stages",
            remedy="leave out --pipeline-parallel-size; w8a8sc reshard makes larger tensor-parallel sizes",
        )
    if releases.offloads_weights(vllm_config):
        raise UsageError("compressed weights cannot be offloaded", remedy="leave out the options for offloading")
    if vllm_config.lora_config is not None:
        releases.check_lora(vllm_config.lora_config)
    draft = releases.draft_model(vllm_config)
    if draft is not None and not is_sharded_state(Path(draft)):
        own = "draft_load_config in --speculative-config, " if releases.heeds_draft_load_config() else ""
        raise UsageError(
            f"the draft model {draft} is no sharded_state directory, but would be loaded as one",
            remedy=f"give a directory, {own}or no --speculative-config",
        )
