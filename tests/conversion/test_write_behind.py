"""Writing by threads: everything is written, few calls wait, and an error comes to who calls."""

from __future__ import annotations

import threading

import pytest

from w8a8sc_tool.conversion import write_behind
from w8a8sc_tool.conversion.write_behind import WriteBehind


def test_finish_waits_for_all() -> None:
    behind = WriteBehind()
    written: list[int] = []
    for number in range(50):
        behind.call(written.append, number)
    behind.finish()
    assert sorted(written) == list(range(50))


def test_few_calls_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "_BEHIND", 3)
    behind, goes_on = WriteBehind(), threading.Event()
    begun: list[int] = []

    def write(number: int) -> None:
        begun.append(number)
        goes_on.wait(10)

    def call_all() -> None:
        for number in range(4):
            behind.call(write, number)

    caller = threading.Thread(target=call_all)
    caller.start()
    caller.join(0.1)
    assert caller.is_alive() and 3 not in begun
    goes_on.set()
    caller.join(10)
    behind.finish()
    assert sorted(begun) == [0, 1, 2, 3]


@pytest.mark.parametrize("calls", [1, 20])
def test_an_error_comes_to_the_caller(calls: int) -> None:
    behind = WriteBehind()

    def write(number: int) -> None:
        if number == 0:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        for number in range(calls):
            behind.call(write, number)
        behind.finish()
