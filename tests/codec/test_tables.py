"""The code tables: complete, prefix free, and what the decoder makes of them."""

from __future__ import annotations

import itertools

import pytest

from w8a8sc_tool.codec import tables
from w8a8sc_tool.codec.format import HIGH, LOW, MODES, Mode

from . import reference


def all_codes(mode: Mode) -> list[str]:
    codes = [reference.bits(*code) for code in (*mode.codes, *mode.runs.values())]
    return [*codes, "1111", reference.bits(503, 9)]


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_codes_are_prefix_free(mode: Mode) -> None:
    for a, b in itertools.permutations(all_codes(mode), 2):
        assert not b.startswith(a)


def test_low_mode_has_one_unused_code() -> None:
    table = tables.decoding_table(LOW)
    assert [value for value in range(512) if table[value, 0] == tables.INVALID] == [247]
    assert not (tables.decoding_table(HIGH)[:, 0] == tables.INVALID).any()


def test_the_tables_are_the_documented_ones() -> None:
    assert list(LOW.codes) == reference.LOW_CODES and list(HIGH.codes) == reference.HIGH_CODES
    assert sorted(LOW.runs.items()) == sorted(reference.LOW_RUNS)
    assert sorted(HIGH.runs.items()) == sorted(reference.HIGH_RUNS)
    assert (LOW.dictionary_size, HIGH.dictionary_size) == (len(LOW.codes) + 1, len(HIGH.codes) + 1)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_decoding_table_finds_the_first_code(mode: Mode) -> None:
    table = tables.decoding_table(mode)
    for code in all_codes(mode):
        for rest in range(1 << (9 - len(code))):
            text = code + reference.bits(rest, 9 - len(code)) if len(code) < 9 else code
            kind, _, bits = (int(v) for v in table[int(text[::-1], 2)])
            assert bits == (12 if kind == tables.ESCAPED else len(code))


def codes_at_the_start(mode: Mode, word: int) -> list[tuple[int, int, bool]]:
    """The whole codes among 12 bits: bits, bytes, whether they are common ones."""
    single = tables.decoding_table(mode)
    codes = []
    used = 0
    while used < 12:
        kind, argument, length = (int(v) for v in single[(word >> used) & 511])
        if kind not in (tables.RANK, tables.RUN, tables.ESCAPED) or used + length > 12:
            break
        codes.append((length, argument if kind == tables.RUN else 1, kind == tables.RUN))
        used += length
    return codes


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_groups_are_the_codes_one_after_the_other(mode: Mode) -> None:
    sizes = tables.group_sizes(mode)
    for word in range(1, 4095):
        codes = codes_at_the_start(mode, word)
        if mode is HIGH:
            while len(codes) > 1 and codes[-1] == (3, 1, True):
                codes.pop()
        prefixes = [sum(c[0] + 256 * c[1] for c in codes[:i]) for i in range(len(codes) + 1)]
        if mode is LOW:
            assert sizes[word] == prefixes[-1]
        else:  # it may be shorter where bytes would not fit into 8
            assert sizes[word] in prefixes and bool(sizes[word]) == bool(codes)
            reach = max((sum(c[1] for c in codes[: i + 1]) for i, c in enumerate(codes) if not c[2]), default=0)
            assert sizes[word] == prefixes[-1] or reach > 8
    assert sizes[0] == sizes[4095] == 0


def test_escapes_carry_the_byte_from_its_highest_bit() -> None:
    codes = tables.escape_codes()
    for byte in range(256):
        assert reference.bits(int(codes[byte]), 12) == "1111" + f"{byte:08b}"
