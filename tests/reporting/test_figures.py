"""What a token reads, by other means: the tensors of the files, a weight's sizes, a router's choice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from w8a8sc_tool.checking.verify import verify
from w8a8sc_tool.jobs.inspect import ModuleRow
from w8a8sc_tool.layouts import UNCOMPRESSED
from w8a8sc_tool.reporting.figures import Map, PerToken, letters_of, map_of, per_token, state_of, uncompressed
from w8a8sc_tool.reporting.subjects import Subject, of_directory


@pytest.fixture(scope="module")
def subject(sealed: Callable[[int], Path]) -> Subject:
    return of_directory(verify(sealed(2), quick=True))


def test_a_token_reads_all_but_the_embeddings(subject: Subject) -> None:
    manifest = subject.manifest
    assert manifest is not None
    tensors = [(t.name, t.end - t.begin) for file in manifest.rank_files for t in file.tensors]
    after = sum(nbytes for name, nbytes in tensors if name != "model.embed_tokens.weight")
    compressed = [layer for layer in manifest.layers if layer.quantization in UNCOMPRESSED]
    parts = {f"{layer.name}.{leaf}" for layer in compressed for leaf in ("weight", "index", "info")}
    before = after - sum(nbytes for name, nbytes in tensors if name in parts)
    before += sum(layer.n * layer.k for layer in compressed) * 2
    assert per_token(subject) == PerToken(before, after) and before > after


def test_without_ratios_nothing_tells_what_there_was_before(subject: Subject) -> None:
    unsealed = [replace(row, ratio=None) for row in subject.rows]
    assert per_token(replace(subject, rows=unsealed)) is None
    assert None in [uncompressed(row, subject.tp) for row in unsealed]


def test_with_tied_embeddings_they_are_the_head(subject: Subject) -> None:
    assert subject.config is not None
    embeddings = next(row.bytes for row in subject.rows if row.name == "model.embed_tokens")
    untied, tied = per_token(subject), per_token(replace(subject, config=replace(subject.config, tied=True)))
    assert untied is not None and tied is not None and tied.after - untied.after == embeddings


def test_of_routed_experts_those_that_are_chosen(subject: Subject) -> None:
    assert subject.config is not None
    config = replace(subject.config, further={"num_experts": 8, "num_experts_per_tok": 2})
    experts = ModuleRow("model.layers.0.mlp.experts", 0, "mlp.experts", "W8A8_DYNAMIC", None, 800, experts=True)
    assert per_token(replace(subject, config=config, rows=[experts])) == PerToken(200, 200)


def test_the_map_has_the_layers_of_the_manifest(subject: Subject) -> None:
    assert subject.manifest is not None
    whole = map_of(subject, 1000)
    assert {row.name for row in whole.cells.values()} == {layer.name for layer in subject.manifest.layers}
    assert whole.left_out == 0 and whole.layers == [0, 1]
    assert [name.rpartition(".")[2] for name in whole.columns] == ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
    part = map_of(subject, 5)
    assert part.layers == [0] and part.left_out == len(whole.cells) - 4
    wide = [replace(row, short_name=f"m{number}") for number in range(70) for row in subject.rows[2:3]]
    assert len(map_of(replace(subject, rows=[replace(row, layer=0, linear=True) for row in wide]), 1000).columns) == 60
    assert map_of(Subject(Path(), "checkpoint", ""), 5) == Map([], [], {})


def test_letters_begin_with_the_commonest_fallback() -> None:
    def row(quantization: str, fallback: str | None, ratio: float | None = None) -> ModuleRow:
        return ModuleRow("m", 0, "m", quantization, None, 1, ratio, fallback, True)

    rows = [row("W8A8", None), row("W8A8S", "ratio", 0.97), row("FLOAT", "source"), row("FLOAT", "source")]
    assert state_of(row("W8A8SC", None, 0.5)) is None
    assert [state.quantization for state in letters_of([*rows, row("W8A8SC", None, 0.5)])] == ["FLOAT", "W8A8S", "W8A8"]
    assert list(letters_of(rows).values()) == ["A", "B", "C"]
