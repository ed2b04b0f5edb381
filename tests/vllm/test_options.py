"""The loader's options: what is taken, and what a misspelt one is answered."""

from __future__ import annotations

import pytest

from w8a8sc_tool.errors import UsageError
from w8a8sc_tool.vllm.options import Options


def test_nothing_given_is_exact_hashed_and_kept() -> None:
    assert Options.parse(None) == Options.parse({}) == Options("exact", "hashes", "keep")
    assert Options.parse({"allocate": "full", "verify": "sizes", "embedding_copies": "drop"}) == Options(
        "full", "sizes", "drop"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"alocate": "full"}, "has no option 'alocate' .*: allocate may be meant"),
        ({"pattern": "x"}, "has no option 'pattern' .*: known are allocate, verify, embedding_copies"),
        ({"verify": "none"}, "verify cannot be 'none': give hashes or sizes"),
        ({"verify": ["hashes"]}, "verify cannot be"),
        ({"allocate": True}, "allocate cannot be 'True': give exact or full"),
        ({1: 2}, "has no option '1'"),
        ("exact", "give a JSON object"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_line(content: object, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Options.parse(content)
    assert "\n" not in str(caught.value)
