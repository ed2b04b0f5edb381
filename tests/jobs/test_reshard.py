"""From one directory to others: the same bytes as from the source, and back to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from w8a8sc_tool.checking.verify import verify
from w8a8sc_tool.checkpoint import Checkpoint
from w8a8sc_tool.codec import MatrixEncoder, decode_matrix
from w8a8sc_tool.conversion.worker import Converter
from w8a8sc_tool.errors import AccessError, InputError, WorkError
from w8a8sc_tool.jobs.compress import compress
from w8a8sc_tool.jobs.reshard import reshard, to_checkpoint
from w8a8sc_tool.synthesis.synthesize import MODELS, Model, synthesize

from .. import tensors
from ..checking.test_compare import recoded
from ..conftest import edit_json
from .test_compress import digests

MIXED = [
    *(("*.0.self_attn.*", "W8A8"), ("*.1.mlp.down_proj", "W8A8_DYNAMIC"), ("*.1.self_attn.o_proj", "FLOAT")),
    *(("*.1.self_attn.*", "W16A16S"), ("*.0.mlp.down_proj", "W16A16S")),
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Mixed types; a tied bfloat16 model with norm biases and a padded vocabulary; one with repeated kv heads."""
    folder = tmp_path_factory.mktemp("sources")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "narrow", Model(512, 2048, 1, 16, 2, 128, 3001, ("*.down_proj",)))
        narrow = synthesize(folder / "Narrow-w8a8s", "narrow")
    return {
        "mixed": synthesize(folder / "Mixed-w8a8s", "tiny", layers=2, types=MIXED),
        "tied": synthesize(
            folder / "Tied-w8a8s", "tiny", layers=1, tied=True, m4=True, dtype="bfloat16", vocabulary=2001
        ),
        "narrow": narrow,
    }


@pytest.fixture(scope="module")
def made(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    folder = tmp_path_factory.mktemp("made")
    made: dict[tuple[str, int], Path] = {}

    def directory(name: str, tp: int) -> Path:
        if (name, tp) not in made:
            (result,) = compress(sources[name], folder, tp=[tp], processes=2)
            made[name, tp] = result.directory
        return made[name, tp]

    return directory


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("mixed", 4, (1, 2)),
        pytest.param("mixed", 1, (2, 4), marks=pytest.mark.slow),
        ("tied", 2, (1, 4)),
        pytest.param("narrow", 8, (1, 4), marks=pytest.mark.slow),
        pytest.param("narrow", 2, (8,), marks=pytest.mark.slow),
    ],
)
def test_resharding_gives_what_the_source_gives(
    name: str, before: int, after: tuple[int, ...], made: Callable[[str, int], Path], tmp_path: Path
) -> None:
    """All files, the manifest too."""
    results = reshard(made(name, before), tmp_path, tp=after, processes=2)
    for result in results:
        assert digests(result.directory) == digests(made(name, result.tp))


def test_tiles_are_moved_where_no_cut_goes_through_them(
    sources: dict[str, Path], made: Callable[[str, int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tiny's cuts for TP 1 and 2 lie between tiles, so nothing is encoded."""
    mixed, tied = made("mixed", 1), made("tied", 1)  # before anything is counted
    encoded: list[int] = []
    encode = MatrixEncoder.encode

    def counted(self: Any, *arguments: Any) -> Any:
        encoded_matrix = encode(self, *arguments)
        encoded.append(len(encoded_matrix.entries))
        return encoded_matrix

    monkeypatch.setattr(MatrixEncoder, "encode", counted)
    monkeypatch.setattr("w8a8sc_tool.conversion.conversion.Pool", InProcess)
    reshard(mixed, tmp_path, tp=[2], verify=False)
    assert encoded == []
    reshard(tied, tmp_path, tp=[4], verify=False)
    assert encoded  # 384 columns of o_proj are no whole tiles


class InProcess:
    """A pool of one worker that is no process."""

    def __init__(self, count: int, handler: str, *arguments: Any, **named: Any) -> None:
        self._worker = Converter(*arguments)
        self._answers: list[tuple[int, Any]] = []

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *exception: object) -> None: ...

    @property
    def busy(self) -> bool:
        return bool(self._answers)

    def idle(self) -> list[int]:
        return [] if self._answers else [0]

    def call(self, number: int, task: str, method: str, *arguments: Any) -> None:
        self._answers.append((0, getattr(self._worker, method)(*arguments)))

    def wait(self, timeout: float | None = None) -> list[tuple[int, Any]]:
        answers, self._answers = self._answers, []
        return answers


@pytest.mark.parametrize("name", ["mixed", pytest.param("tied", marks=pytest.mark.slow)])
def test_decompressing_gives_the_uncompressed_directory(
    name: str, sources: dict[str, Path], made: Callable[[str, int], Path], tmp_path: Path
) -> None:
    (result,) = reshard(made(name, 2), tmp_path / "back", compress=False, processes=2)
    (wanted,) = compress(sources[name], tmp_path / "plain", tp=[2], compress=False, processes=2)
    assert digests(result.directory) == digests(wanted.directory)


M4_BIASES = ("self_attn.q", "self_attn.k", "self_attn.v", "mlp.gate", "mlp.up")


@pytest.mark.parametrize(
    ("name", "tp"),
    [("mixed", 4), *(pytest.param(*case, marks=pytest.mark.slow) for case in (("tied", 2), ("narrow", 8)))],
)
def test_a_checkpoint_that_compresses_to_the_same(
    name: str, tp: int, sources: dict[str, Path], made: Callable[[str, int], Path], tmp_path: Path
) -> None:
    path = to_checkpoint(made(name, tp), tmp_path)
    before, after = (json.loads((p / "quant_model_description.json").read_text()) for p in (sources[name], path))
    # m4 leaves linear biases that quant_bias contains: a directory has no tensor for them.
    contained = {f"model.layers.0.{layer}_proj.bias" for layer in M4_BIASES if name == "tied"}
    assert after == {key: value for key, value in before.items() if key not in contained}
    assert contained <= before.keys()
    (result,) = compress(path, tmp_path / "again", tp=[tp], processes=2)
    again, wanted = digests(result.directory), digests(made(name, tp))
    assert {file: value for file, value in again.items() if "manifest" not in file} == {
        file: value for file, value in wanted.items() if "manifest" not in file
    }


def test_descriptions_name_no_tensors_that_are_not_there(tiny_copy: Path, tmp_path: Path) -> None:
    """Of a source with tensors that have no place, and of a directory whose description names them, as others' do."""
    weights, description = tiny_copy / "quant_model_weight_w8a8s.safetensors", "quant_model_description.json"
    extra = ["model.layers.0.self_attn.q_proj.bias", "model.layers.1.rotary.inv_freq"]
    tensors.write(weights, tensors.read(weights) | {name: tensors.entry("F16", np.ones(1536)) for name in extra})
    edit_json(tiny_copy / description, lambda types: types.update(dict.fromkeys(extra, "FLOAT")))
    before = list(json.loads((tiny_copy / description).read_text()))
    (result,) = compress(tiny_copy, tmp_path / "made", tp=[2], processes=2)
    assert verify(result.directory, source=tiny_copy).ok
    wanted = [key for key in before if key not in extra]
    assert list(json.loads((result.directory / description).read_text())) == wanted
    (result.directory / "w8a8sc_manifest.json").unlink()
    edit_json(result.directory / description, lambda types: types.update(dict.fromkeys(extra, "FLOAT")))
    assert verify(result.directory, source=tiny_copy).ok
    back = to_checkpoint(result.directory, tmp_path / "back")
    assert list(json.loads((back / description).read_text())) == wanted
    (again,) = reshard(result.directory, tmp_path / "again", tp=[1], processes=2)
    assert list(json.loads((again.directory / description).read_text())) == wanted


def test_a_checkpoint_that_would_be_refused_is_not_put_in_place(
    sealed: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_a_ghost(*arguments: Any) -> bytes:
        return b'{"model.ghost.weight": "FLOAT"}'

    directory = sealed(1)
    monkeypatch.setattr("w8a8sc_tool.planning.side_files.description_json", with_a_ghost)
    with pytest.raises(WorkError, match="is refused, first: model.ghost.weight is described"):
        to_checkpoint(directory, tmp_path / "back")
    with pytest.raises(WorkError, match="reading back what was written found .* errors"):
        reshard(directory, tmp_path / "out", verify=False)
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["Tiny-w8a8s-310.partial"]


def test_a_directory_of_the_vendor(sealed: Callable[[int], Path], tmp_path: Path) -> None:
    """Decoded values are what is equal."""
    (result,) = reshard(recoded(sealed(2), tmp_path / "vendor"), tmp_path, tp=[1], processes=2)
    (ours,), (theirs,) = ([tensors.read(p) for p in d.glob("*.safetensors")] for d in (sealed(1), result.directory))
    assert set(ours) == set(theirs)
    for name, entry in ours.items():
        if f"{name.removesuffix('.weight')}.index" in ours or name.endswith(".index"):
            continue
        assert theirs[name] == entry
    for name in [name.removesuffix(".index") for name in ours if name.endswith(".index")]:
        a, b = (
            decode_matrix(*(tensors.array(content[f"{name}.{leaf}"]) for leaf in ("weight", "index", "info")))
            for content in (ours, theirs)
        )
        assert np.array_equal(a, b)


def test_damage_is_noticed_before_anything_is_put_in_place(sealed_copy: Path, tmp_path: Path) -> None:
    path = sealed_copy / "model-rank-0-part-0.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 8
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"not those that were written.*w8a8sc verify"):
        reshard(sealed_copy, tmp_path / "a", tp=[1])
    assert not list((tmp_path / "a").glob("*/TP1/*tp1"))
    with pytest.raises(InputError, match="not those that were written"):
        to_checkpoint(sealed_copy, tmp_path / "b")
    with pytest.raises(InputError, match="sizes that work: 1, 2, 4"):
        reshard(sealed_copy, tmp_path / "c", tp=[3])
    path.unlink()
    with pytest.raises(InputError, match="see w8a8sc verify"):
        reshard(sealed_copy, tmp_path / "d", tp=[1])


def test_a_checkpoint_that_cannot_be_opened_again_is_not_called_wrong(
    sealed: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a file system refuses says nothing of what was written."""

    def refused(*arguments: Any) -> Any:
        raise AccessError("cannot be opened (Too many open files)", "model.safetensors")

    monkeypatch.setattr(Checkpoint, "open", refused)
    with pytest.raises(AccessError, match="Too many open files"):
        to_checkpoint(sealed(1), tmp_path / "back")
