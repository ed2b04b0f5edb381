"""What a verification's worker does: hash tensors, decode tiles, compare with the source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backends.produce import blocks, columns_of, joined_rows, rank_groups
from ..checkpoint.reader import SourceReader
from ..codec import CodecError, DecodedBlock, MatrixDecoder, Sparsity
from ..errors import InputError
from ..io import hashing
from ..io.files import as_bytes
from ..io.reading import PIECE_BYTES
from ..io.safetensors import StoredTensor, TensorFile
from ..layouts import COMPRESSED, Output
from ..planning import PlannedModule
from .findings import Finding


class Verifier:
    """Checks tensors of a directory; everything it finds is a finding, not an exception."""

    def __init__(self) -> None:
        self._files: dict[str, TensorFile] = {}
        self._reader = SourceReader()

    def check(self, tensors: Sequence[StoredTensor], decode: bool, canonical: bool) -> list[Finding]:
        """Hash the tensors of one module on one rank, and decode its compressed weight if `decode`."""
        by_leaf = {tensor.info.name.rpartition(".")[2]: tensor for tensor in tensors}
        findings: list[Finding] = []
        if decode and {"weight", "index", "info"} <= set(by_leaf):
            # A layer that has no scales is a float one.
            sparsity: Sparsity = "low" if "deq_scale" in by_leaf else "high"
            findings += self._decode(by_leaf["weight"], by_leaf["index"], by_leaf["info"], sparsity, canonical)
            tensors = [tensor for tensor in tensors if tensor is not by_leaf["weight"]]
        for tensor in tensors:
            if tensor.hash is None:
                continue
            state = hashing.new()
            for piece in self._pieces(tensor):
                state.update(as_bytes(piece))
            findings += _hash_finding(tensor, state)
        return findings

    def _decode(
        self, weight: StoredTensor, index: StoredTensor, info: StoredTensor, sparsity: Sparsity, canonical: bool
    ) -> list[Finding]:
        """Decode every tile of a compressed weight, hashing its bytes on the way."""
        where = f"{weight.path} ({weight.info.name})"
        findings: list[Finding] = []
        state = hashing.new()
        decoder, error = self._decoder(weight, index, info, sparsity)
        if decoder is None:
            for piece in self._pieces(weight):
                state.update(as_bytes(piece))
            return [Finding(error, where), *_hash_finding(weight, state)]
        for block in decoder.blocks():
            payload = self._payload(weight, block)
            state.update(as_bytes(payload))
            try:
                decoder.check(block, payload, canonical=canonical)
            except CodecError as problem:
                findings.append(Finding(str(problem), where))
        return findings + _hash_finding(weight, state)

    def compare(self, planned: PlannedModule, ranks: list[dict[str, StoredTensor]], compressed: bool) -> list[Finding]:
        """Compare a module's tensors on all ranks with what the plan makes of the source.

        ranks: the tensors by name; compressed: whether the directory holds the weight compressed.
        """
        module = planned.module
        findings: list[Finding] = []
        for output in module.outputs:
            if compressed and output.name == module.weight.name:
                findings += self._compare_compressed(planned, ranks)
            else:
                findings += self._compare_output(output, planned, ranks)
        return findings

    def _compare_output(
        self, output: Output, planned: PlannedModule, ranks: list[dict[str, StoredTensor]]
    ) -> Iterator[Finding]:
        different: set[int] = set()
        for _, rank, position, values in blocks([output], planned.sources, self._reader):
            stored = ranks[rank].get(output.name)
            if stored is None or rank in different:
                continue  # a missing tensor is reported by the structure check
            actual = np.empty(values.nbytes, np.uint8)
            if position + values.nbytes > stored.info.nbytes:
                different.add(rank)
                continue
            self._file(stored).read_into(stored.info.begin + position, actual)
            if as_bytes(actual) != as_bytes(values):
                different.add(rank)
        for rank in sorted(different):
            yield _differs(ranks[rank][output.name])

    def _compare_compressed(self, planned: PlannedModule, ranks: list[dict[str, StoredTensor]]) -> Iterator[Finding]:
        module = planned.module
        names = [f"{module.name}.{leaf}" for leaf in ("weight", "index", "info")]
        if module.quantization not in COMPRESSED:
            yield from (_differs(rank[names[0]]) for rank in ranks if names[0] in rank)
            return
        for group, slices in rank_groups(module.weight):
            checked = []
            for rank in group:
                three = [ranks[rank].get(name) for name in names]
                if None in three:
                    continue
                weight, index, info = (tensor for tensor in three if tensor)
                decoder, error = self._decoder(weight, index, info, module.sparsity)
                if decoder is None:
                    yield Finding(error, f"{weight.path} ({weight.info.name})")
                elif (decoder.tiling.n, decoder.tiling.k) != (module.n, module.row_bytes):
                    yield Finding(
                        f"info does not say k = {module.row_bytes}, n = {module.n}", f"{info.path} ({info.info.name})"
                    )
                else:
                    checked.append((columns_of(module.weight, rank), weight, decoder))
            if not checked:
                continue
            wrong: set[int] = set()
            for block in checked[0][2].blocks():
                edges = block.first_row, block.last_row
                rows = joined_rows(module.weight, slices, *edges, planned.sources, self._reader)
                for number, (columns, weight, decoder) in enumerate(checked):
                    if number in wrong:
                        continue
                    finding = self._compare_block(decoder, block, weight, rows[:, columns])
                    if finding:
                        wrong.add(number)
                        yield finding

    def _compare_block(
        self, decoder: MatrixDecoder, block: DecodedBlock, weight: StoredTensor, expected: npt.NDArray[np.int8]
    ) -> Finding | None:
        block = decoder.block(block.first_tile, block.last_tile)  # the same rows, at this rank's own bytes
        out = np.empty(expected.shape, np.int8)
        try:
            decoder.decode(block, self._payload(weight, block), out)
        except CodecError as problem:
            return Finding(str(problem), f"{weight.path} ({weight.info.name})")
        return None if np.array_equal(out, expected) else _differs(weight)

    def _decoder(
        self, weight: StoredTensor, index: StoredTensor, info: StoredTensor, sparsity: Sparsity
    ) -> tuple[MatrixDecoder | None, str]:
        """A decoder for three tensors, or why there can be none."""
        try:
            entries = self._file(index).read(index.info.name)
            sizes = self._file(info).read(info.info.name)
            return MatrixDecoder(entries, sizes, weight_bytes=weight.info.nbytes, sparsity=sparsity), ""
        except CodecError as problem:
            return None, str(problem)

    def _payload(self, weight: StoredTensor, block: DecodedBlock) -> npt.NDArray[np.int8]:
        payload = np.empty(block.last_byte - block.first_byte, np.int8)
        self._file(weight).read_into(weight.info.begin + block.first_byte, payload)
        return payload

    def _pieces(self, tensor: StoredTensor) -> Iterator[npt.NDArray[Any]]:
        file = self._file(tensor)
        for begin in range(tensor.info.begin, tensor.info.end, PIECE_BYTES):
            piece = np.empty(min(PIECE_BYTES, tensor.info.end - begin), np.uint8)
            file.read_into(begin, piece)
            yield piece

    def _file(self, tensor: StoredTensor) -> TensorFile:
        if tensor.path not in self._files:
            self._files[tensor.path] = TensorFile(tensor.path)
        file = self._files[tensor.path]
        if tensor.info.name not in file.tensors:
            raise InputError(f"{tensor.info.name} is gone", tensor.path, "the directory was changed meanwhile")
        return file


def _hash_finding(tensor: StoredTensor, state: Any) -> list[Finding]:
    if tensor.hash is None or hashing.text(state) == tensor.hash:
        return []
    return [
        Finding("its bytes are not those that the manifest lists (hash differs)", f"{tensor.path} ({tensor.info.name})")
    ]


def _differs(tensor: StoredTensor) -> Finding:
    return Finding("it is not what the source checkpoint makes it", f"{tensor.path} ({tensor.info.name})")
