"""The memory model: against the figures that the guide and its notes give, and its own limits."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from w8a8sc_tool.cli.main import run
from w8a8sc_tool.errors import InputError, UsageError
from w8a8sc_tool.jobs.serving import fit
from w8a8sc_tool.serving import Estimate, estimate, parse_size
from w8a8sc_tool.serving.memory import COMPRESSED_MASK, mask_bytes, mask_peak_bytes

from .test_command import config

GIB = 1 << 30


@pytest.mark.parametrize(("length", "mib"), [(16384, 512), (20480, 800), (32768, 2048), (40960, 3200)])
def test_masks(length: int, mib: int) -> None:
    """One mask as the notes count it; two of them, and three while one is built."""
    assert mask_bytes(length, compressed=False) == 2 * mib << 20
    assert mask_peak_bytes(length, compressed=False) == 3 * mib << 20
    assert mask_bytes(length, compressed=True) == COMPRESSED_MASK == 8 << 20


def test_kv_bytes_per_token() -> None:
    """2 x layers x kv heads of a rank x head size x 2 bytes."""
    assert estimate(config("qwen3-8b"), 1, 8 * GIB).kv_per_token == 2 * 36 * 8 * 128 * 2
    assert estimate(config("qwen3-32b"), 4, 8 * GIB).kv_per_token == 2 * 64 * 2 * 128 * 2
    assert estimate(config("qwen3-32b"), 16, 8 * GIB).kv_per_token == 2 * 64 * 1 * 128 * 2


@pytest.mark.parametrize("tied", [False, True])
def test_embeddings_are_kept_twice(tied: bool) -> None:
    """By vLLM Ascend 0.18 and 0.23 alike; tied ones are one matrix. 2.49 GB for Qwen3-8B, untied."""
    copies = estimate(dataclasses.replace(config("qwen3-8b"), tied=tied), 1, 8 * GIB).embedding_copies
    assert copies == (1 if tied else 2) * 151936 * 4096 * 2


def test_the_cache_gets_half_of_what_is_left() -> None:
    size = estimate(config("qwen3-8b"), 1, 10 * GIB, chip=40 * GIB)
    left = 36 * GIB - 10 * GIB - size.embedding_copies - size.activations
    assert size.kv_cache == left // 2
    assert (
        size.kv_tokens % 128 == 0 and 0 <= size.kv_cache - size.kv_tokens * size.kv_per_token < 128 * size.kv_per_token
    )


def test_limits_hold_and_are_reached() -> None:
    for chip in (14 * GIB, 20 * GIB, 43 * GIB):
        size = estimate(config("qwen3-8b"), 1, 10 * GIB, chip=chip)
        length = size.largest_len(compressed_masks=False)
        assert length * size.kv_per_token <= size.kv_cache
        assert mask_peak_bytes(length, compressed=False) <= size.free_for_masks
        assert length <= size.largest_len(compressed_masks=True)
        longer = length + 128
        assert (
            longer * size.kv_per_token > size.kv_cache
            or mask_peak_bytes(longer, compressed=False) > size.free_for_masks
        )


def test_states_of_linear_attention() -> None:
    """Qwen3.6-27B at TP 4, by hand: 16 softmax layers with a kv head, 48 linear ones with 12 value heads a rank."""
    one = estimate(config("qwen3.6-27b"), 4, 10 * GIB)
    assert one.kv_per_token == 16 * 2 * 256 * 2
    of_layer = (10240 // 4 * 3 + 12 * 128 * 128) * 2
    assert one.cache.state == 48 * of_layer
    # 1024 bytes a token and layer: 399 tokens hold a layer's states. 48 linear layers are three groups of 16.
    assert (one.cache.block, one.cache.state_blocks, one.cache.allocations) == (512, 3, 2)
    blocks = one.kv_cache // (512 * one.kv_per_token)
    assert one.kv_tokens == (blocks - 3) * 512
    assert one.free_for_masks == one.chip - one.weights - one.embedding_copies - one.activations - 2 * one.kv_cache
    assert one.largest_len(compressed_masks=True) > one.largest_len(compressed_masks=False) > 16384
    document = one.document()
    assert document["state_bytes_per_sequence"] == 48 * of_layer and document["kv_block_tokens"] == 512


@pytest.mark.parametrize(("interval", "group", "state_blocks"), [(2, 32, 1), (4, 16, 3), (3, 21, 3)])
def test_layers_share_blocks_in_groups_of_equal_size(interval: int, group: int, state_blocks: int) -> None:
    hybrid = config("qwen3.6-27b")
    kinds = ("full_attention" if number % interval == 0 else "linear_attention" for number in range(1, 65))
    cache = estimate(dataclasses.replace(hybrid, layer_types=tuple(kinds)), 4, 10 * GIB).cache
    assert (cache.per_token, cache.state_blocks) == (group * 1024, state_blocks)


def test_nothing_fits_into_too_little() -> None:
    size = estimate(config("qwen3-8b"), 1, 10 * GIB, chip=8 * GIB)
    assert not size.fits and size.kv_cache == 0 and size.largest_len(compressed_masks=True) == 0


def full_size(model: str, tp: int, length: int) -> Estimate:
    """int8 weights, and two float16 matrices of the vocabulary; Qwen3-8B also has FLOAT layers."""
    c = config(model)
    layer = c.hidden_size * (2 * c.heads + 2 * c.kv_heads) * c.head_dim + 3 * c.hidden_size * c.intermediate_size
    floats = c.layers * c.hidden_size * c.intermediate_size
    weights = (c.layers * layer + floats + 4 * c.vocabulary * c.hidden_size) // tp
    return estimate(c, tp, weights, max_model_len=length)


@pytest.mark.parametrize(
    ("model", "tp", "length"), [("qwen3-8b", 1, 20480), ("qwen3-14b", 1, 20480), ("qwen3-32b", 4, 20480)]
)
def test_what_the_guides_serve_fits(model: str, tp: int, length: int) -> None:
    assert full_size(model, tp, length).fits


def test_sizes() -> None:
    assert (
        parse_size("44G") == 44 * GIB and parse_size("43693M") == 43693 << 20 and parse_size("1.5 GiB") == 3 * GIB // 2
    )
    for wrong in ("", "G", "-1G", "0", "4X"):
        with pytest.raises(UsageError):
            parse_size(wrong)


def test_a_directory_needs_what_its_checkpoint_needs(tiny: Path, sealed: Callable[[int], Path]) -> None:
    """A compressed weight is allocated whole; index and info come on top."""
    sizes = {entry.tp: entry.weights for entry in fit(tiny)}
    assert set(sizes) == {1, 2, 4}
    (entry,) = fit(sealed(2))
    assert sizes[2] < entry.weights < sizes[2] * 1.02
    with pytest.raises(InputError, match=r"made for TP 2, not 4.*w8a8sc reshard"):
        fit(sealed(2), tp=4)
    assert [entry.tp for entry in fit(tiny, tp=(4, 1))] == [4, 1]
    with pytest.raises(UsageError, match="each once"):
        fit(tiny, tp=(2, 2))
    with pytest.raises(InputError, match="no such folder"):
        fit(tiny / "nothing")


def test_the_command(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", str(tiny), "--json", "--max-model-len", "1024", "--chip-memory", "4G"]) == 0
    estimates = json.loads(capsys.readouterr().out)
    assert [entry["tensor_parallel_size"] for entry in estimates] == [1, 2, 4]
    assert all(entry["fits"] and entry["max_model_len"] == 1024 for entry in estimates)
    assert run(["fit", str(tiny), "--tp", "1", "--tp", "2", "--chip-memory", "100M"]) == 1
    assert "fits" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["memory.png", "memory.svg"])
def test_the_picture(name: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / name
    assert run(["fit", str(tiny), "--plot", str(path), "-q"]) == 0
    assert path.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")
    assert run(["fit", str(tiny), "--plot", str(tmp_path / "memory.doc")]) == 2
