"""The files of a checkpoint, with the names and modes that msmodelslim leaves."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from ..checkpoint import config as config_file
from ..checkpoint import description as description_file
from ..errors import WorkError
from ..io import files, reading
from ..io.safetensors import DTYPES, TensorInfo, header_for
from .maker import Tensor
from .models import Model

_STEM: Final = "quant_model_weight_w8a8s"

Advance = Callable[[int, int], None]


def write(
    target: Path,
    model: Model,
    config: dict[str, Any],
    tokens: dict[str, int],
    tokenizer: dict[str, Any],
    tensors: Sequence[Tensor],
    advance: Advance,
) -> None:
    """Write a whole checkpoint to a new folder.

    config: of config.json. tokens: ids of special tokens. tokenizer: contents by file name. advance: called with (bytes
    written, bytes in all) after each piece. Raises WorkError where the file system refuses.
    """
    files.make_parents(target)
    try:
        _write_weights(target, tensors, model.part_bytes, advance)
        description: dict[str, Any] = {"version": "1.0.0", "model_quant_type": "W8A8S"}
        description |= {tensor.name: tensor.quantization for tensor in tensors}
        documents = {
            description_file.NAME: description,
            config_file.NAME: config,
            "generation_config.json": _generation(tokens),
            **tokenizer,
        }
        for name, content in documents.items():
            _write_json(target / name, content)
        if model.recipe is not None:
            _write_recipe(target / f"{model.recipe}_best_practice.yaml", model)
        _set_modes(target)
    except OSError as error:
        raise WorkError(f"writing failed ({error.strerror})", str(target)) from None


def _nbytes(tensor: Tensor) -> int:
    return math.prod(tensor.shape) * DTYPES[tensor.dtype].itemsize


def _write_weights(target: Path, tensors: Sequence[Tensor], part_bytes: int | None, advance: Advance) -> None:
    total = sum(map(_nbytes, tensors))
    parts: list[list[Tensor]] = [[]]
    for tensor in tensors:
        if part_bytes and parts[-1] and sum(map(_nbytes, parts[-1])) + _nbytes(tensor) > part_bytes:
            parts.append([])
        parts[-1].append(tensor)
    names = [f"{_STEM}.safetensors"]
    if part_bytes:
        names = [f"{_STEM}-{number:05d}-of-{len(parts):05d}.safetensors" for number in range(1, len(parts) + 1)]
    for name, part in zip(names, parts):
        infos, end = [], 0
        for tensor in part:
            infos.append(TensorInfo(tensor.name, tensor.dtype, tensor.shape, end, end + _nbytes(tensor)))
            end = infos[-1].end
        with files.new_file(target / name) as file:
            file.write(header_for(infos))
            for tensor in part:
                for piece in tensor.make():
                    file.write(np.ascontiguousarray(piece).data)
                    advance(piece.nbytes, total)
    if part_bytes:
        index = {
            "metadata": {"total_size": total},
            "weight_map": {tensor.name: name for name, part in zip(names, parts) for tensor in part},
        }
        _write_json(target / f"{_STEM}.safetensors.index.json", index)


def _generation(tokens: dict[str, int]) -> dict[str, Any]:
    return {
        "bos_token_id": tokens["end_of_text"],
        "do_sample": True,
        "eos_token_id": [tokens["end_of_turn"], tokens["end_of_text"]],
        "pad_token_id": tokens["end_of_text"],
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
    }


def _write_recipe(path: Path, model: Model) -> None:
    """The keys of the recipe that tell what was done; msmodelslim copies its recipe whole."""
    spec: dict[str, Any] = {"anti_cfg": {"anti_method": "m4"}} if model.m4 else {}
    spec["calib_params"] = {"mix_cfg": dict.fromkeys(model.float_layers, "float")}
    content = {"apiversion": "modelslim_v0", "spec": spec, "metadata": {"verified_model_types": [model.recipe]}}
    files.write_plain(path, yaml.safe_dump(content, sort_keys=False).encode())


def _set_modes(target: Path) -> None:
    """The modes that msmodelslim leaves: nobody may change weights, and all may read the recipe alone."""
    modes = {".safetensors": 0o400, ".json": 0o600, ".yaml": 0o644}
    for path in reading.entries(target):
        files.set_mode(path, modes[path.suffix])


def _write_json(path: Path, content: Any) -> None:
    files.write_plain(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
