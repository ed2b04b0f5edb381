"""The order of a dictionary: by frequency, and among equals as the vendor's unstable sort leaves them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w8a8sc_tool.codec.dictionary import count_others
from w8a8sc_tool.codec.kernels import address_of, load

from . import reference


def ranked(counts: np.ndarray, size: int) -> list[int]:
    split = np.zeros((8, 256), np.int32)
    split[1], split[6] = counts // 2, counts - counts // 2  # kernels count in eight tables
    dictionary = np.zeros(36, np.uint8)
    load().rank_counts(address_of(split), size, address_of(dictionary))
    return [int(value) for value in dictionary[:size]]


def expected(counts: np.ndarray, size: int) -> list[int]:
    return [v for v, _ in reference.unstable_sort([(v, int(c)) for v, c in enumerate(counts)])[:size]]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 2, 3, 10, 100, 32768]), st.floats(0, 1), st.sampled_from([34, 36]))
def test_any_histogram(seed: int, largest: int, zero: float, size: int) -> None:
    random = np.random.default_rng(seed)
    counts = np.where(random.random(256) < zero, 0, random.integers(0, largest + 1, 256)).astype(np.int32)
    assert ranked(counts, size) == expected(counts, size)


def test_of_the_all_zero_tile() -> None:
    counts = np.zeros(256, np.int32)
    counts[0] = 32768
    order = bytes(ranked(counts, 36))
    known = "00AFA1AEADACABAAA9A8A7A6A5A4A3A2BFB0B1B2B3B4B5B6B7B8B9BABBBCBDBEC0908182"
    assert order.hex().upper() == known


def median_of_three_killer() -> np.ndarray:
    """Counts that drive every partition to the edge until the sort gives up and falls back to a heap.

    Made as McIlroy describes in "A Killer Adversary for Quicksort": values are decided only when they are compared.
    """
    gas = 10**6
    value = [gas] * 256
    solid = 0
    candidate = 0

    class Item:
        def __init__(self, index: int) -> None:
            self.index = index

    def before(x: Item, y: Item) -> bool:
        nonlocal solid, candidate
        if value[x.index] == gas and value[y.index] == gas:
            frozen = x.index if x.index == candidate else y.index
            value[frozen] = solid
            solid += 1
        if value[x.index] == gas:
            candidate = x.index
        elif value[y.index] == gas:
            candidate = y.index
        return value[x.index] < value[y.index]

    # reference.unstable_sort compares pair[1] > pair[1]; give it objects whose comparison is the adversary's.
    class Count:
        def __init__(self, index: int) -> None:
            self.item = Item(index)

        def __gt__(self, other: Count) -> bool:
            return before(self.item, other.item)

    pairs: list[tuple[int, Any]] = [(v, Count(v)) for v in range(256)]
    reference.unstable_sort(pairs)
    return np.array([1000 - min(v, 999) for v in value], np.int32)


@pytest.mark.parametrize("size", [34, 36])
def test_the_heap_branch(size: int) -> None:
    counts = median_of_three_killer()
    heaps: list[int] = []
    reference.unstable_sort([(v, int(c)) for v, c in enumerate(counts)], heaps)
    assert heaps and max(heaps) > 36
    assert ranked(counts, size) == expected(counts, size)


CPP = """
#include <algorithm>
#include <cstdio>
#include <utility>
#include <vector>
int main() {
    int count;
    for (;;) {
        std::vector<std::pair<int, int>> pairs;
        for (int value = 0; value < 256; value++) {
            if (std::scanf("%d", &count) != 1) return 0;
            pairs.emplace_back(value, count);
        }
        std::sort(pairs.begin(), pairs.end(), [](auto& a, auto& b) { return a.second > b.second; });
        for (auto& pair : pairs) std::printf("%d ", pair.first);
        std::printf("\\n");
    }
}
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, which has libstdc++")
def test_the_order_is_that_of_the_c_plus_plus_library(tmp_path: Path) -> None:
    (tmp_path / "order.cpp").write_text(CPP)
    subprocess.run(["g++", "-O2", "-o", tmp_path / "order", tmp_path / "order.cpp"], check=True, timeout=120)
    random = np.random.default_rng(0)
    histograms = [median_of_three_killer(), np.zeros(256, np.int32)]
    for largest in (1, 2, 3, 10, 100, 32768):
        for zero in (0.0, 0.5, 0.9):
            for _ in range(20):
                histograms.append(np.where(random.random(256) < zero, 0, random.integers(0, largest + 1, 256)))
    text = "\n".join(" ".join(map(str, histogram.tolist())) for histogram in histograms)
    result = subprocess.run([tmp_path / "order"], input=text, capture_output=True, text=True, check=True, timeout=60)
    orders = [[int(value) for value in line.split()] for line in result.stdout.splitlines()]
    assert len(orders) == len(histograms)
    for histogram, order in zip(histograms, orders):
        assert order == [v for v, _ in reference.unstable_sort([(v, int(c)) for v, c in enumerate(histogram)])]


@numba.njit
def _count_others(share, length, common, totals):  # type: ignore[no-untyped-def]
    return count_others(share, length, common, totals)


@pytest.mark.parametrize("common", [0, 7, 200])
@pytest.mark.parametrize("others", [0.0, 0.1, 0.24, 0.26, 0.5])
def test_counting_what_is_not_common(common: int, others: float) -> None:
    random = np.random.default_rng(0)
    share = np.where(random.random(8192) < others, random.integers(0, 256, 8192), common).astype(np.uint8)
    memory = np.concatenate([share, np.full(64, 99, np.uint8)])
    totals = np.ones(256, np.int64)
    counted = _count_others(address_of(memory), share.size, common, totals)
    crowds = np.cumsum((share != common).reshape(-1, 64).sum(axis=1)) > 256 + 16 * np.arange(1, 129)
    assert counted == (not crowds.any())
    if counted:
        assert totals.tolist() == (1 + np.bincount(share, minlength=256)).tolist()
