"""What a comparison's worker does: compare one module of two directories on one rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..codec import CodecError, Sparsity, decode_matrix
from ..codec.provenance import coding_of
from ..errors import InputError
from ..io.safetensors import StoredTensor, TensorFile

_COMPRESSED = ("weight", "index", "info")


class Comparer:
    """Compares tensors; what differs is an answer, not an exception."""

    def __init__(self) -> None:
        self._files: dict[str, TensorFile] = {}

    def compare(
        self, first: dict[str, StoredTensor], second: dict[str, StoredTensor]
    ) -> tuple[list[str], bool, list[dict[str, str] | None]]:
        """What differs in the model, whether all bytes are equal, and how each weight is coded (None: it is not)."""
        differences: list[str] = []
        same_bytes = True
        codings: list[dict[str, str] | None] = []
        weights = []
        for tensors in (first, second):
            weight, coding = self._weight(tensors)
            weights.append(weight)
            codings.append(coding)
        compressed = any(coding is not None for coding in codings)
        skipped = set(_COMPRESSED) if compressed else set()
        for leaf in sorted({*first, *second} - skipped):
            left, right = first.get(leaf), second.get(leaf)
            if left is None or right is None:
                differences.append(f"{leaf} is missing in the {'first' if left is None else 'second'}")
            elif (left.info.dtype, left.info.shape) != (right.info.dtype, right.info.shape):
                differences.append(
                    f"{leaf} is {left.info.dtype} {list(left.info.shape)} against "
                    f"{right.info.dtype} {list(right.info.shape)}"
                )
            elif not self._equal(left, right):
                differences.append(f"{leaf} has other values")
        if compressed:
            differences += _compared(*weights)
            same_bytes = all(
                leaf in first and leaf in second and self._equal(first[leaf], second[leaf]) for leaf in _COMPRESSED
            )
        return differences, same_bytes and not differences, codings

    def _weight(self, tensors: dict[str, StoredTensor]) -> tuple[npt.NDArray[Any] | str | None, dict[str, str] | None]:
        """A module's weight, decoded if it is compressed (a sentence if it cannot be), and how it is coded."""
        if "weight" not in tensors:
            return None, None
        if not set(_COMPRESSED) <= set(tensors):
            return self._read(tensors["weight"]), None
        parts = [self._read(tensors[leaf]) for leaf in _COMPRESSED]
        # A layer that has no scales is a float one.
        sparsity: Sparsity = "low" if "deq_scale" in tensors else "high"
        try:
            decoded: npt.NDArray[Any] = decode_matrix(*parts, sparsity=sparsity)
            coding = coding_of(*parts, sparsity=sparsity)
        except CodecError as error:
            return f"cannot be decoded ({error})", {"scope": "damaged"}
        if sparsity == "high":
            decoded = decoded.view(np.float16)
        return decoded, {"scope": coding.scope, "ties": coding.ties, "filler": coding.filler}

    def _equal(self, left: StoredTensor, right: StoredTensor) -> bool:
        return left.info.nbytes == right.info.nbytes and self._read(left).tobytes() == self._read(right).tobytes()

    def _read(self, tensor: StoredTensor) -> npt.NDArray[Any]:
        if tensor.path not in self._files:
            self._files[tensor.path] = TensorFile(tensor.path)
        file = self._files[tensor.path]
        if tensor.info.name not in file.tensors:
            raise InputError(f"{tensor.info.name} is gone", tensor.path, "the directory was changed meanwhile")
        return file.read(tensor.info.name)


def _compared(left: npt.NDArray[Any] | str | None, right: npt.NDArray[Any] | str | None) -> list[str]:
    for number, weight in (("first", left), ("second", right)):
        if weight is None:
            return [f"weight is missing in the {number}"]
        if isinstance(weight, str):
            return [f"weight {weight} in the {number}"]
    assert isinstance(left, np.ndarray) and isinstance(right, np.ndarray)
    if left.shape != right.shape:
        return [f"weight is {list(left.shape)} against {list(right.shape)}"]
    different = int((left != right).sum())
    return [f"weight differs in {different} of {left.size} values"] if different else []
