"""Mutated tiles and directories: `python -m torturing.mutation_target KIND ROUNDS SECONDS SEED DIR`, on its own.

Prints one JSON object: what was tried, what was found, seconds of the slowest, and the largest memory.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.codec import damage
from w8a8sc_tool import verify
from w8a8sc_tool.codec import EncodedMatrix, decode_matrix, encode_matrix
from w8a8sc_tool.codec.format import Sparsity
from w8a8sc_tool.errors import InputError, W8A8SCError
from w8a8sc_tool.jobs.reshard import to_checkpoint
from w8a8sc_tool.sharded_state import manifest as manifest_file

_PROT_NONE = 0


class Tally:
    """What came of it."""

    def __init__(self) -> None:
        self.tried = 0
        self.counts: dict[str, int] = {}
        self.findings: list[str] = []
        self.slowest = 0.0

    def one(self, case: str, act: Callable[[], str]) -> None:
        """Do one thing; it may take a second."""
        started = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, 10)  # ends the process: a hang is a finding of the caller
        try:
            outcome = act()
        except Exception as error:
            outcome = "other exceptions"
            self.findings.append(f"{case}: {type(error).__name__}: {error}")
        signal.setitimer(signal.ITIMER_REAL, 0)
        seconds = time.perf_counter() - started
        self.slowest = max(self.slowest, seconds)
        self.tried += 1
        self.counts[outcome] = self.counts.get(outcome, 0) + 1

    def document(self) -> dict[str, Any]:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        return {**vars(self), "MiB": memory}


class Guarded:
    """Memory whose end is followed by a page that nobody may touch."""

    def __init__(self, size: int) -> None:
        page = mmap.PAGESIZE
        self._room = -(-size // page) * page
        self._map = mmap.mmap(-1, self._room + page)
        self._array = np.frombuffer(self._map, np.int8)
        end = self._array.ctypes.data + self._room
        if ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(end), page, _PROT_NONE) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")

    def put(self, data: np.ndarray) -> np.ndarray:
        """A copy that ends where the forbidden page begins."""
        region = self._array[self._room - data.size : self._room]
        region[:] = data
        return region


def mutated(data: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Bits flipped, bytes replaced, pieces moved, cut off or repeated."""
    out: np.ndarray = data.copy()
    for _ in range(int(chance.integers(1, 5))):
        at = int(chance.integers(0, max(1, out.size)))
        kind = int(chance.integers(0, 6))
        if out.size == 0 or kind == 0:
            out = out[:at].copy()
        elif kind == 1:
            out[at] ^= np.int8(1 << int(chance.integers(0, 7)))
        elif kind == 2:
            out[at] = chance.integers(-128, 128)
        elif kind == 3:
            length = int(chance.integers(1, 64))
            out[at : at + length] = chance.integers(-128, 128, out[at : at + length].size)
        elif kind == 4:
            out = np.concatenate((out[:at], out[at // 2 : at], out[at:]))
        else:
            out[at : at + 64] = 0
    return out


def tiles(tally: Tally, going: Iterator[None], seed: int, folder: Path) -> None:
    """Compressed tiles of several kinds, in turns: anything of their tensors mutated; and payloads that only the finer
    rules, or none, tell from sound ones, decoded both ways. A decoder reads not one byte too far."""
    chance = np.random.default_rng(seed)
    sparsities: tuple[Sparsity, ...] = ("low", "high")
    seeds = [
        (encode_matrix(weight, sparsity=sparsity), weight.shape, sparsity)
        for sparsity in sparsities
        for weight in _weights(chance)
    ]
    coded = damage.coded_tiles(seed)
    guard = Guarded(1 << 20)
    for number, _ in enumerate(going):
        if number % 2:
            act = _decode_both_ways(coded[number // 2 % len(coded)], guard, chance)
        else:
            act = _decode_mutated(*seeds[number // 2 % len(seeds)], guard, chance)
        tally.one(f"tile {number}", act)


def _decode_mutated(
    encoded: EncodedMatrix, shape: tuple[int, int], sparsity: Sparsity, guard: Guarded, chance: np.random.Generator
) -> Callable[[], str]:
    which = int(chance.integers(0, 8))
    index = mutated(encoded.index, chance) if which == 0 else encoded.index
    info = encoded.info.copy()
    if which == 1:
        info[int(chance.integers(0, 5))] = int(chance.choice((0, 1, -1, 8, 2**31, 2**62, -(2**63))))
    weight = guard.put(mutated(encoded.weight, chance) if which > 1 else encoded.weight)
    out = np.zeros(shape, np.int8)

    def act() -> str:
        try:
            decode_matrix(weight, index, info, sparsity=sparsity, out=out)
        except ValueError:  # CodecError is one
            return "refused"
        return "decoded"

    return act


def _decode_both_ways(tile: EncodedMatrix, guard: Guarded, chance: np.random.Generator) -> Callable[[], str]:
    """A damaged tile: the fast decoder accepts what decoding one code at a time does, and names the same cause."""
    payload = damage.damaged(tile.weight, chance)
    if chance.random() < 0.7:
        damage.repair_checksums(tile, payload)
    payload = guard.put(payload)

    def act() -> str:
        (error, out), (plain_error, plain_out) = (damage.decoded(tile, payload, plain=plain) for plain in (False, True))
        if error != plain_error or (not error and not np.array_equal(out, plain_out)):
            raise AssertionError(f"{error or 'accepted'}; one code at a time: {plain_error or 'accepted'}")
        return "damage refused" if error else "damage decoded"

    return act


def _weights(chance: np.random.Generator) -> list[np.ndarray]:
    """Matrices of a tile or two: dense, sparse, empty, incompressible, with remainders."""
    values = [chance.integers(-8, 8, (128, 256)), np.where(chance.random((128, 512)) < 0.9, 0, 3)]
    values += [np.zeros((16, 32)), chance.integers(-128, 128, (128, 256)), chance.normal(0, 0.7, (208, 416))]
    return [np.ascontiguousarray(np.clip(np.rint(value), -128, 127), np.int8) for value in values]


def mutants(tally: Tally, going: Iterator[None], seed: int, folder: Path) -> None:
    """Directories with mutated files: verify reports or refuses, decompress refuses or decodes."""
    chance = random.Random(seed)
    bits = np.random.default_rng(seed)
    for number, _ in enumerate(going):
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            copy = Path(shutil.copytree(folder, Path(scratch) / "directory"))
            if chance.random() < 0.6:
                (copy / manifest_file.NAME).unlink()
            names = sorted(path.name for path in copy.iterdir())
            for name in chance.sample(names, chance.randint(1, 2)):
                _mutate(copy / name, chance, bits)
            quick = chance.random() < 0.5
            tally.one(f"directory {number}, verify", partial(_verify, copy, folder, quick))
            tally.one(f"directory {number}, decompress", partial(_decompress, copy, scratch))


def _verify(copy: Path, folder: Path, quick: bool) -> str:
    """folder: what it was copied from."""
    try:
        report = verify(copy, processes=1, quick=quick)
    except InputError:
        return "refused"
    changed = any(path.read_bytes() != (folder / path.name).read_bytes() for path in copy.iterdir())
    if changed and not report.findings and not quick and (copy / manifest_file.NAME).exists():
        raise AssertionError("damage that hashes show was not found")
    return "found" if report.findings else "nothing found"


def _decompress(copy: Path, output: str) -> str:
    try:
        to_checkpoint(copy, output)
    except W8A8SCError:
        return "not decompressed"
    return "decompressed"


def _mutate(path: Path, chance: random.Random, bits: np.random.Generator) -> None:
    """Headers more often than the bytes behind them."""
    data = np.frombuffer(path.read_bytes(), np.int8)
    begin = int.from_bytes(data[:8].tobytes(), "little") + 8 if path.suffix == ".safetensors" else data.size
    if chance.random() < 0.5:
        changed = np.concatenate((mutated(data[:begin], bits), data[begin:]))
    else:
        changed = mutated(data, bits)
    path.write_bytes(changed.tobytes())


def _going(rounds: int, seconds: float) -> Iterator[None]:
    started = time.monotonic()
    done = 0
    while time.monotonic() - started < seconds if seconds else done < rounds:
        yield None
        done += 1


def main() -> None:
    kind, rounds, seconds, seed, folder = sys.argv[1:]
    tally = Tally()
    act = {"tiles": tiles, "mutants": mutants}[kind]
    act(tally, _going(int(rounds), float(seconds)), int(seed), Path(folder))
    print(json.dumps(tally.document()))


if __name__ == "__main__":
    main()
