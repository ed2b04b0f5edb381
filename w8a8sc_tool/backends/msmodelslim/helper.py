"""The inside of a process made for msmodelslim: the only place where it, and with it torch, is imported."""

# Importing it takes seconds and 750 MB, replaces pydantic's BaseModel, configures logging and changes the umask now and
# then. All of that stays in this process, which compresses one tensor at a time through msmodelslim's public classes.

from __future__ import annotations

import os
import subprocess
import types
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...errors import WorkError
from ...io import files

_NAME: Final = "layer.weight"  # what the tensor is called towards msmodelslim


class Helper:
    """Compresses weights that lie in files."""

    def __init__(self, folder: str, executor: str) -> None:
        """folder: for msmodelslim's temporary files; executor: "vendor", or the program to start in its place."""
        from msmodelslim.pytorch import weight_compression
        from msmodelslim.pytorch.weight_compression import compress_utils

        self._package: Any = weight_compression
        self._folder = folder
        if executor != "vendor":
            compress_utils.subprocess = _Redirected(executor)

    def compress(self, source: str, n: int, k: int, sparse: str, target: str) -> list[int]:
        """Compress the int8 matrix [n, k] in a file; writes TARGET.weight and TARGET.index, returns the info tensor.

        sparse: W8A8S or W16A16S (then k counts bytes).
        """
        import torch

        weight = torch.from_numpy(np.fromfile(source, np.int8).reshape(n, k))
        if sparse == "W16A16S":
            weight = weight.view(torch.float16)
        config = self._package.CompressConfig(record_detail_root=self._folder, multiprocess_num=1)
        description = {"model_quant_type": sparse, _NAME: sparse}
        compressor = self._package.Compressor(config, weight={_NAME: weight}, quant_model_description=description)
        try:
            compressor.run()
        except Exception as error:
            raise WorkError(f"msmodelslim reports: {_told(error)}") from None
        parts = compressor.compress_result_weight.get(_NAME), compressor.compress_result_index.get(_NAME)
        info = compressor.compress_result_info.get(_NAME)
        if not all(isinstance(part, np.ndarray) for part in (*parts, info)):
            raise WorkError("msmodelslim returned no result")
        for leaf, part in zip(("weight", "index"), parts):
            files.write_plain(Path(f"{target}.{leaf}"), np.ascontiguousarray(part).astype(np.int8).tobytes())
        return [int(value) for value in np.asarray(info).ravel()]


def _told(error: BaseException) -> str:
    """An exception and what it was raised for: msmodelslim wraps the executor's output."""
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None and len(parts) < 4:
        text = " ".join(str(part) for part in current.args) or type(current).__name__
        if not any(text in part for part in parts):
            parts.append(text)
        current = current.__cause__
    return " / ".join(" ".join(part.split()) for part in parts)[:2000]


class _Redirected(types.ModuleType):
    """The subprocess module as msmodelslim sees it, with another executor in place of its own."""

    def __init__(self, executor: str) -> None:
        super().__init__("subprocess")
        self._executor = executor

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    def Popen(self, command: list[str], **options: Any) -> Any:
        if os.path.basename(command[0]) == "compress_excutor":  # noqa: PTH119
            command = [self._executor, *command[1:]]
        return subprocess.Popen(command, **options)
