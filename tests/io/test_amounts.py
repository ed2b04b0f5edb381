"""Sizes as people write them."""

from __future__ import annotations

import pytest

from w8a8sc_tool.io.amounts import parsed_size


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("1.5B", 1),
        ("2kB", 2000),
        ("2 KiB", 2048),
        ("500MB", 500_000_000),
        ("500mib", 500 << 20),
        ("1.5GiB", 3 << 29),
        ("0.1GB", 100_000_000),
        (" 5 GB ", 5 * 10**9),
        ("1TiB", 1 << 40),
        ("1TB", 10**12),
    ],
)
def test_sizes(text: str, nbytes: int) -> None:
    assert parsed_size(text) == nbytes


@pytest.mark.parametrize(
    "text",
    ["", "B", "GB", "5G", "5iB", "5 apples", "-5GB", "+5GB", "1e9", ".5GB", "5.GB", "5,0GB", "5GBs", "0x10", "9" * 16]
    + ["\u0665GB", "5\nGB", "inf", "nan"],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parsed_size(text)
