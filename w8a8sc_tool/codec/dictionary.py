"""A tile's dictionary: its most frequent bytes, equal frequencies in the order of the vendor's unstable sort."""

# The order is that of libstdc++'s std::sort over 256 (value, count) pairs comparing counts alone: an introsort, which
# docs/format.md describes. Only the first 36 places are ever needed, and a partition never exchanges elements with its
# neighbours again, so parts that start behind those places are left unsorted.

from __future__ import annotations

import numpy as np
from numba import types

from .intrinsics import bits_set, load8, load64, lowest_bit, stack_array
from .jit import part
from .vectors import U8x64, equal, load, splat

# Parts still to be split: at most one per level of recursion, and the depth is limited to 16.
_MOST_PARTS = 20
_DEPTH = 16
_stack_pairs, _stack_parts = stack_array(types.int64, 256), stack_array(types.int64, _MOST_PARTS, 3)

_OTHERS_ALLOWANCE = 256  # bytes: others may crowd at the beginning of a share


@part
def count_bytes(address, length, counts):
    """Add the byte values of `length` bytes (a multiple of 8) at `address` to counts (int32 [8, 256]).

    A table per byte of a word, because counting the same value again soon would wait for the store before.
    """
    for position in range(0, length, 8):
        word = load64(address + position)
        counts[0, word & np.uint64(255)] += 1
        counts[1, word >> np.uint64(8) & np.uint64(255)] += 1
        counts[2, word >> np.uint64(16) & np.uint64(255)] += 1
        counts[3, word >> np.uint64(24) & np.uint64(255)] += 1
        counts[4, word >> np.uint64(32) & np.uint64(255)] += 1
        counts[5, word >> np.uint64(40) & np.uint64(255)] += 1
        counts[6, word >> np.uint64(48) & np.uint64(255)] += 1
        counts[7, word >> np.uint64(56)] += 1


@part
def is_sparse(totals, common, length):
    """Whether at most a quarter of a tile's bytes are others than `common`; totals as of `sum_counts`."""
    return totals[common] > 3 * length  # in each of four shares


@part
def count_others(share, length, common, totals):
    """Add the byte values of `length` bytes (a multiple of 64) at `share`, in which most are `common`, to totals (int64
    [256]); returns whether at most a quarter, and some more, are others.

    Only the others are counted one by one, which takes two thirds of `count_bytes`'s time if a tenth of the bytes are.
    """
    commons = splat(U8x64, common)
    counted = np.int64(0)
    for position in range(0, length, 64):
        others = ~equal(load(U8x64, share + position), commons)
        counted += bits_set(others)
        if counted > _OTHERS_ALLOWANCE + (position + 64) // 4:
            return False
        while others:
            totals[load8(share + position + lowest_bit(others))] += 1
            others &= others - np.uint64(1)
    totals[common] += length - counted
    return True


@part
def _before(a, b):
    """Pairs are count * 256 + value; the higher count comes first, values do not matter."""
    return (a >> 8) > (b >> 8)


@part
def _partition(pairs, first, last):
    """Move the median of three to the front and split [first, last) around it; returns where the right part begins."""
    a = pairs[first + 1]
    b = pairs[first + (last - first) // 2]
    c = pairs[last - 1]
    if _before(a, b):
        median = first + (last - first) // 2 if _before(b, c) else last - 1 if _before(a, c) else first + 1
    else:
        median = first + 1 if _before(a, c) else last - 1 if _before(b, c) else first + (last - first) // 2
    pairs[first], pairs[median] = pairs[median], pairs[first]
    pivot = pairs[first]
    i = first + 1
    j = last
    while True:
        while _before(pairs[i], pivot):
            i += 1
        j -= 1
        while _before(pivot, pairs[j]):
            j -= 1
        if i >= j:
            return i
        pairs[i], pairs[j] = pairs[j], pairs[i]
        i += 1


@part
def _sift(pairs, first, size, hole, value):
    """Sink a hole to the bottom of the heap, then push `value` up from there."""
    top = hole
    child = hole
    while child < (size - 1) // 2:
        child = 2 * (child + 1)
        if _before(pairs[first + child], pairs[first + child - 1]):
            child -= 1
        pairs[first + hole] = pairs[first + child]
        hole = child
    if size % 2 == 0 and child == (size - 2) // 2:
        child = 2 * (child + 1)
        pairs[first + hole] = pairs[first + child - 1]
        hole = child - 1
    parent = (hole - 1) // 2
    while hole > top and _before(pairs[first + parent], value):
        pairs[first + hole] = pairs[first + parent]
        hole = parent
        parent = (hole - 1) // 2
    pairs[first + hole] = value


@part
def _heap_sort(pairs, first, last):
    size = last - first
    for parent in range((size - 2) // 2, -1, -1):
        _sift(pairs, first, size, parent, pairs[first + parent])
    while size > 1:
        size -= 1
        value = pairs[first + size]
        pairs[first + size] = pairs[first]
        _sift(pairs, first, size, 0, value)


@part
def sum_counts(counts, totals):
    """How often each byte was counted by `count_bytes`: totals (int64 [256]) from counts (int32 [8, 256])."""
    totals[:] = 0
    for table in range(8):
        for value in range(256):
            totals[value] += counts[table, value]


@part
def rank_bytes(totals, size, dictionary):
    """Fill dictionary (uint8 [36]) with the `size` most frequent bytes; totals: int64 [256], how often each occurs."""
    pairs = _stack_pairs()
    for value in range(256):
        pairs[value] = totals[value] * 256 + value
    waiting = _stack_parts()  # first, last, depth left
    waiting[0, 0], waiting[0, 1], waiting[0, 2] = 0, 256, _DEPTH
    parts = 1
    needed = 256
    while parts:
        parts -= 1
        first, last, limit = waiting[parts, 0], waiting[parts, 1], waiting[parts, 2]
        while last - first > 16:
            if limit == 0:
                _heap_sort(pairs, first, last)
                break
            limit -= 1
            middle = _partition(pairs, first, last)
            if middle < size:
                waiting[parts, 0], waiting[parts, 1], waiting[parts, 2] = middle, last, limit
                parts += 1
            elif middle < needed:
                needed = middle
            last = middle
    for i in range(1, needed):
        pair = pairs[i]
        j = i
        while j > 0 and _before(pair, pairs[j - 1]):
            pairs[j] = pairs[j - 1]
            j -= 1
        pairs[j] = pair
    for rank in range(size):
        dictionary[rank] = pairs[rank] & 255
