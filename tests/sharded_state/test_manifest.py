"""The manifest: one canonical form, refused in any other, described by the schema in docs/."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
from msgspec.structs import replace

from w8a8sc_tool.errors import InputError
from w8a8sc_tool.sharded_state import FileEntry, LayerEntry, Manifest, RankFileEntry, TensorEntry, meaning
from w8a8sc_tool.sharded_state import manifest as manifest_file

SCHEMA = Path(__file__).parents[2] / "docs" / "manifest.schema.json"


def example() -> Manifest:
    digest = "blake3:" + "0" * 64
    tensors = [
        TensorEntry("a.weight", "I8", [128], 64, 192, digest, "W8A8SC", 0.25, None),
        TensorEntry("a.index", "I8", [16], 192, 208, digest, "W8A8SC"),
        TensorEntry("a.info", "I64", [5], 208, 248, digest, "W8A8SC"),
        TensorEntry("b.weight", "F16", [2, 4], 248, 264, digest, "FLOAT", None, "source"),
        TensorEntry("norm.weight", "F16", [4], 264, 272, digest, "FLOAT"),
    ]
    return Manifest(
        format_version=1,
        tool="w8a8sc",
        tool_version="0",
        codec_version=1,
        model="m",
        architecture="Qwen3ForCausalLM",
        tensor_parallel_size=1,
        options={"max_ratio": 0.95},
        source=digest,
        layers=[LayerEntry("a", 128, 320, "W8A8SC", 0.25, None), LayerEntry("b", 2, 4, "FLOAT", None, "source")],
        rank_files=[RankFileEntry(0, "model-rank-0-part-0.safetensors", 272, 64, digest, tensors)],
        files=[FileEntry("config.json", 2, digest)],
    )


def test_round_trip_and_digest() -> None:
    data = example().to_bytes()
    manifest = manifest_file.parse(data, "here")
    assert manifest.digest.startswith("blake3:")
    assert manifest.to_bytes() == data
    assert (manifest.rank_files, manifest.files, manifest.layers) == (
        example().rank_files,
        example().files,
        example().layers,
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"max_ratio": 0.95', '"max_ratio": 0.96'),
        lambda text: text.replace('"size": 272', '"size": 273'),
        lambda text: text.replace("\n ", "\n  "),
        lambda text: text + "\n",
        lambda text: text.rstrip("\n"),
        lambda text: text.replace('"codec_version": 1', '"codec_version": 1.0'),
        lambda text: text.replace('"digest": "blake3:', '"digest": "blake3:0'),
        lambda text: json.dumps(json.loads(text)),
    ],
)
def test_any_other_form_is_refused(change: object) -> None:
    text = example().to_bytes().decode()
    changed = change(text)  # type: ignore[operator]
    assert changed != text
    with pytest.raises(InputError, match="manifest.json"):
        manifest_file.parse(changed.encode(), "w8a8sc_manifest.json")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a manifest .*truncated"),
        (b"[]", "not a manifest .*object"),
        (b"{}", "not a manifest .*format_version"),
        (b'{"format_version": 3}', "manifest format 3"),
        (b'{"format_version": 1}', "not a manifest"),
        (b'{"format_version": 1, "ranks": 7}', "not a manifest"),
        (b'{"a":' * 50_000, "not a manifest .*recursion"),
    ],
)
def test_what_is_no_manifest(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        manifest_file.parse(data, "here")


def test_load(tmp_path: Path) -> None:
    assert manifest_file.load(tmp_path) is None
    (tmp_path / manifest_file.NAME).write_bytes(example().to_bytes())
    assert manifest_file.load(tmp_path) is not None
    (tmp_path / manifest_file.NAME).rename(tmp_path / "other")
    (tmp_path / manifest_file.NAME).symlink_to("other")
    with pytest.raises(InputError, match="regular file"):
        manifest_file.load(tmp_path)


def test_schema_in_docs_is_current_and_fits() -> None:
    schema = json.loads(SCHEMA.read_text())
    assert schema == manifest_file.schema()
    jsonschema.validate(json.loads(example().to_bytes()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"format_version": 1}, schema)


def test_no_more_is_looked_for_than_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every layer is missing on every rank, which is told of the first few: a small file may say so a billion times."""
    looked_for: list[str] = []
    parts_of = meaning._parts

    def counted(layer: LayerEntry, tensors: dict[str, TensorEntry]) -> Iterator[str]:
        looked_for.append(layer.name)
        return parts_of(layer, tensors)

    monkeypatch.setattr(meaning, "_parts", counted)
    sealed, tp = example(), 1024
    names = (f"model-rank-{rank}-part-0.safetensors" for rank in range(tp))
    manifest = replace(
        sealed,
        tensor_parallel_size=tp,
        layers=[replace(sealed.layers[0], name=str(number)) for number in range(1000)],
        rank_files=[
            replace(sealed.rank_files[0], rank=n, file=name, size=64, tensors=[]) for n, name in enumerate(names)
        ],
    )
    with pytest.raises(InputError, match="rank 0: layer '0' lacks its weight") as raised:
        manifest_file.parse(manifest.to_bytes(), "here")
    assert len(raised.value.problems) == len(looked_for) == 20
