"""What a journal says is believed only as far as this version would have written it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from w8a8sc_tool.conversion.draft import DirectoryDraft, expected_head
from w8a8sc_tool.conversion.earlier import unplanned
from w8a8sc_tool.conversion.parts import fixed_forms, largest_forms, split_of
from w8a8sc_tool.errors import InputError
from w8a8sc_tool.io import hashing
from w8a8sc_tool.jobs.compress import plan
from w8a8sc_tool.planning import PlannedModule
from w8a8sc_tool.sharded_state import Journal, JournalEntry, JournalTensor, SealedDirectory

from ..conftest import MOST_BYTES

TP = 2


def entry_of(item: PlannedModule, part: int) -> JournalEntry:
    """What a journal says of a module whose weight, if it is to be compressed, was."""
    forms = [*fixed_forms(item), *largest_forms(item)]
    small = [(form.name, bytes(form.nbytes)) for form in fixed_forms(item) if form.nbytes % 8]
    names = {name for name, _ in small}
    return JournalEntry(
        item.module.name,
        tuple(JournalTensor(r, form, "hash", part) for r in range(TP) for form in forms if form.name not in names),
        tuple((rank, name, data, hashing.of_bytes(data)) for rank in range(TP) for name, data in small),
        dict.fromkeys(item.sources, "hash"),
        (0.5,) * TP if item.compress else (),
    )


def first(**changes: Any) -> Callable[[JournalEntry], JournalEntry]:
    """Changes to the first tensor of an entry."""
    return lambda entry: replace(entry, tensors=(replace(entry.tensors[0], **changes), *entry.tensors[1:]))


def form(**changes: Any) -> Callable[[JournalEntry], JournalEntry]:
    """Changes to the first tensor's name and place."""
    return lambda entry: first(info=replace(entry.tensors[0].info, **changes))(entry)


LIES: dict[str, Callable[[JournalEntry], JournalEntry]] = {
    "another module": lambda entry: replace(entry, module="nothing"),
    "no such rank": first(rank=TP),
    "a rank below 0": first(rank=-1),
    "no such part": first(part=999),
    "a part below 0": first(part=-1),
    "another tensor": form(name="x"),
    "before the file": form(begin=-8),
    "an end before the beginning": form(begin=8, end=0),
    "larger than any file": form(end=2**80),
    "a tensor twice": lambda entry: replace(entry, tensors=(*entry.tensors, entry.tensors[0])),
    "a tensor less": lambda entry: replace(entry, tensors=entry.tensors[1:]),
    "a small tensor more": lambda entry: replace(entry, small=(*entry.small, (0, "x", b"", ""))),
    "another source": lambda entry: replace(entry, sources={"x": "y"}),
    "a ratio for one rank": lambda entry: replace(entry, ratios=(0.5,)),
    "a ratio below 0": lambda entry: replace(entry, ratios=(-0.5,) * TP),
    "a fallback that does not exist": lambda entry: replace(entry, fallback="x"),
    "a fallback, and compressed": lambda entry: replace(entry, fallback="ratio"),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_nothing_is_believed_that_cannot_be(lie: Callable[[JournalEntry], JournalEntry], tiny: Path) -> None:
    (made,) = plan(tiny, tp=TP)
    part_of = split_of(made, MOST_BYTES).part_of
    entries = [entry_of(item, part_of[item.module.name]) for item in made.modules]
    assert unplanned(entries, made, part_of) is None
    assert unplanned([*entries, entries[0]], made, part_of) is entries[0]
    compressed = next(n for n, item in enumerate(made.modules) if item.compress)
    entries[compressed] = lie(entries[compressed])
    assert unplanned(entries, made, part_of) is entries[compressed]


@pytest.mark.parametrize("data", [b"", b"1"], ids=["another size", "other bytes"])
def test_a_small_tensor_is_looked_at(data: bytes, tiny: Path) -> None:
    (made,) = plan(tiny, tp=TP)
    item = next(item for item in made.modules if any(form.nbytes % 8 for form in fixed_forms(item)))
    entry = entry_of(item, 0)
    rank, name, content, value = entry.small[0]
    part_of = {item.module.name: 0}
    assert unplanned([entry], made, part_of) is None
    for small in ((rank, name, data * len(content), value), (rank, name, b"", hashing.of_bytes(b""))):
        assert unplanned([replace(entry, small=(small, *entry.small[1:]))], made, part_of) is not None


def test_unfinished_work_of_which_nonsense_is_said_is_refused_and_kept(tiny: Path, tmp_path: Path) -> None:
    (made,) = plan(tiny, tp=TP)
    split = split_of(made, MOST_BYTES)
    head = expected_head(made, split, "Tiny")
    entry = entry_of(made.modules[0], split.part_of[made.modules[0].module.name])
    with SealedDirectory(tmp_path / "target", overwrite=False) as sealed:
        for begins in (True, False):
            draft = DirectoryDraft(made, split, sealed, Journal(sealed.partial))
            try:
                if begins:
                    draft.begin(head)
                    draft.record([first(part=split.count)(entry)])
                    left = sorted(sealed.partial.iterdir())
                else:
                    with pytest.raises(InputError, match=rf"{entry.module}' is none .*journal.*resume=False"):
                        draft.go_on(head)
            finally:
                draft.close()
    assert sorted(sealed.partial.iterdir()) == left


def test_a_tensor_elsewhere_or_of_another_form_is_refused(tiny: Path, tmp_path: Path) -> None:
    """What only who gives out the places knows."""
    (made,) = plan(tiny, tp=TP)
    split = split_of(made, MOST_BYTES)
    item = next(item for item in made.modules if any(form.nbytes % 8 == 0 for form in fixed_forms(item)))
    part = split.part_of[item.module.name]
    with SealedDirectory(tmp_path / "target", overwrite=False) as sealed:
        draft = DirectoryDraft(made, split, sealed, Journal(sealed.partial))
        draft.begin(expected_head(made, split, "Tiny"))
        try:
            right = next(form for form in fixed_forms(item) if form.nbytes % 8 == 0)
            placed = draft.ranks[0][part].info(right.name)
            for wrong in (replace(placed, begin=0), replace(placed, shape=(1,)), replace(placed, dtype="U8")):
                entry = JournalEntry(item.module.name, (JournalTensor(0, wrong, "hash", part),), (), {})
                with pytest.raises(InputError, match=rf"{right.name} is not where .*resume=False"):
                    draft.adopt([entry])
        finally:
            draft.close()
