"""Checkpoints to try things on: a W8A8S Qwen3 of any size, as msmodelslim would leave it, from a seed."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import yaml

from ..errors import InputError, UsageError, WorkError
from ..io import files, reading
from ..io.safetensors import DTYPES, TensorInfo, header_for
from .tokenizer import tokenizer_files

Dtype = Literal["float16", "bfloat16"]
_OTHER_TYPES: Final = ("FLOAT", "W8A8", "W8A8_DYNAMIC", "W16A16S")
_BLOCK_ELEMENTS: Final = 4 << 20
_SMALLEST_VOCABULARY: Final = 320  # all bytes and the special tokens

# Standard deviation of the int8 weights that msmodelslim 26.1.0 made of small models with its published recipes: their
# step follows each channel's spread, so that layers and models hardly differ (docs/performance.md). The 8B recipe cuts
# off a fraction of the values, the others take a multiple of the deviation.
_FRACTION_SIGMA: Final = 2.5
_SIGMA_SIGMA: Final = 3.87
_LARGEST_VALUE: Final = 20

# What outlier suppression m4 leaves: the mean of a norm's output moved into a bias, in steps that sums are exact with.
_SHIFT_SIGMA: Final = 0.05
_SHIFT_STEP: Final = 2.0**-10

# Activations behind a norm are about standard normal; +-4 of them fill int8.
_INPUT_SCALE: Final = 4 / 127
_INPUT_OFFSET: Final = 3
_ZEROS_W16: Final = 0.75  # of the values of W16A16S weights; no recipe is published


@dataclass(frozen=True)
class Model:
    """Sizes of a Qwen3 dense model, and what its recipe does.

    float_layers: left FLOAT. m4: outlier suppression moves a shift into biases. part_bytes: how files are split (None:
    one file). sigma: standard deviation of the int8 weights. recipe: the model type it is published for, if it is.
    """

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    float_layers: tuple[str, ...]
    m4: bool = False
    part_bytes: int | None = None
    sigma: float = _FRACTION_SIGMA
    recipe: str | None = None


_EVERY_DOWN: Final = ("*.mlp.down_proj",)
_QWEN3_8B_GATES: Final = tuple(f"model.layers.{i}.mlp.{n}_proj" for i in (1, 3, 4, 7, 16) for n in ("gate", "up"))
MODELS: Final[dict[str, Model]] = {
    "qwen3-8b": Model(4096, 12288, 36, 32, 8, 128, 151936, _EVERY_DOWN + _QWEN3_8B_GATES, recipe="Qwen3-8B"),
    "qwen3-14b": Model(5120, 17408, 40, 40, 8, 128, 151936, _EVERY_DOWN, True, 4 << 30, _SIGMA_SIGMA, "Qwen3-14B"),
    "qwen3-32b": Model(5120, 25600, 64, 64, 8, 128, 151936, _EVERY_DOWN, False, 4 << 30, _SIGMA_SIGMA, "Qwen3-32B"),
    # Small, but wide enough for the kernel's limits at TP 1, 2 and 4.
    "tiny": Model(512, 1536, 4, 12, 4, 128, 2048, (*_EVERY_DOWN, "model.layers.1.mlp.*_proj")),
}


@dataclass(frozen=True)
class _Tensor:
    """A tensor to be written: `make` yields its values in pieces."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    quantization: str
    make: Callable[[], Iterator[npt.NDArray[Any]]]


def synthesize(
    folder: str | os.PathLike[str],
    preset: str = "tiny",
    *,
    layers: int | None = None,
    dtype: Dtype = "float16",
    tied: bool = False,
    m4: bool | None = None,
    vocabulary: int | None = None,
    types: Sequence[tuple[str, str]] | None = None,
    part_bytes: int | None = None,
    seed: int = 0,
    advance: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a W8A8S checkpoint to a new folder, the same bytes for the same arguments everywhere.

    preset: one of MODELS; layers, vocabulary, m4: instead of the preset's. m4: as outlier suppression of that name
    leaves it, with biases in norms and in the linear layers behind them, and float32 scalars; a layer that is neither
    W8A8S nor W8A8 then has a bias that no class of vLLM takes. dtype: of the float model; bfloat16 also makes deq_scale
    float32. types: (pattern, type) for linear layers that are not W8A8S, patterns as in a shell, type FLOAT, W8A8,
    W8A8_DYNAMIC or W16A16S; None for the recipe's FLOAT layers. part_bytes: split into files of about this size.
    advance is called with (bytes written, bytes in all) after each piece. Raises InputError if the folder exists,
    UsageError for what cannot be.
    """
    if dtype not in ("float16", "bfloat16"):
        raise UsageError(f"dtype {dtype!r} is neither float16 nor bfloat16")
    model = _model(preset, layers=layers, vocabulary=vocabulary, m4=m4, part_bytes=part_bytes)
    rules = [(pattern, "FLOAT") for pattern in model.float_layers] if types is None else list(types)
    for pattern, kind in rules:
        if kind not in _OTHER_TYPES:
            raise UsageError(f"type {kind} for {pattern} is none of {', '.join(_OTHER_TYPES)}")
    target = Path(folder)
    if reading.link_status(target) is not None:
        raise InputError("exists already", str(target), "choose another folder")
    reading.check_can_create(target)
    files.make_parents(target)
    tensors = list(_Maker(model, dtype, tied, rules, seed).tensors())
    try:
        _write_weights(target, tensors, model.part_bytes, advance or (lambda written, total: None))
        _write_side_files(target, model, dtype, tied, tensors)
        _set_modes(target)
    except OSError as error:
        raise WorkError(f"writing failed ({error.strerror})", str(target)) from None
    return target


def _model(preset: str, **changes: Any) -> Model:
    """A preset with every change that is not None."""
    if preset not in MODELS:
        raise UsageError(f"there is no preset {preset!r}", remedy="presets: " + ", ".join(MODELS))
    model = replace(MODELS[preset], **{key: value for key, value in changes.items() if value is not None})
    if model.layers < 1 or model.vocabulary < _SMALLEST_VOCABULARY:
        raise UsageError(f"at least one layer and {_SMALLEST_VOCABULARY} tokens are needed")
    return model


@lru_cache(maxsize=2)
def _weight_table(sigma: float) -> npt.NDArray[np.int8]:
    """int8 [65536]: a rounded normal distribution, every value as often as it is frequent."""
    values = np.arange(-_LARGEST_VALUE, _LARGEST_VALUE + 1)
    below = np.array([0.5 * (1 + math.erf((value + 0.5) / sigma / math.sqrt(2))) for value in values[:-1]])
    ends = np.rint(np.append(below, 1.0) * 65536).astype(np.int64)
    return np.repeat(values, np.diff(ends, prepend=0)).astype(np.int8)


@lru_cache(maxsize=1)
def _normal_table() -> npt.NDArray[np.float32]:
    """float32 [65536]: quantiles of the standard normal distribution, by linear interpolation of its distribution."""
    grid = np.linspace(-5, 5, 20001)
    distribution = np.array([0.5 * (1 + math.erf(x / math.sqrt(2))) for x in grid])
    return np.interp((np.arange(65536) + 0.5) / 65536, distribution, grid).astype(np.float32)


def _to_bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Rounded to nearest even, as bits."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


class _Maker:
    """Makes the tensors of a model one after the other; every tensor has its own stream of random numbers."""

    def __init__(self, model: Model, dtype: Dtype, tied: bool, rules: Sequence[tuple[str, str]], seed: int) -> None:
        self._model = model
        self._float = "F16" if dtype == "float16" else "BF16"
        self._tied = tied
        self._rules = rules
        self._seed = seed
        self._row_sums: dict[str, npt.NDArray[np.int64]] = {}
        self._shifted: dict[str, npt.NDArray[np.float64]] = {}  # weights times the shift in front of them

    def tensors(self) -> Iterator[_Tensor]:
        model = self._model
        embedding = (model.vocabulary, model.hidden_size)
        yield self._floats("model.embed_tokens.weight", embedding, 1.0)
        for layer in range(model.layers):
            yield from self._layer(f"model.layers.{layer}.")
        yield from self._norm("model.norm", model.hidden_size)
        if not self._tied:
            yield self._floats("lm_head.weight", embedding, model.hidden_size**-0.5)

    def _layer(self, prefix: str) -> Iterator[_Tensor]:
        model = self._model
        hidden, inner = model.hidden_size, model.intermediate_size
        q_rows, kv_rows = model.heads * model.head_dim, model.kv_heads * model.head_dim
        # What a layer adds to the residual stream shrinks with depth, so that its size stays the same.
        damping = (2 * model.layers) ** -0.5
        yield from self._norm(f"{prefix}input_layernorm", hidden)
        for name, rows in (("q_proj", q_rows), ("k_proj", kv_rows), ("v_proj", kv_rows)):
            yield from self._linear(f"{prefix}self_attn.{name}", rows, hidden, 1.0, f"{prefix}input_layernorm")
        yield from self._norm(f"{prefix}self_attn.q_norm", model.head_dim)
        yield from self._norm(f"{prefix}self_attn.k_norm", model.head_dim)
        yield from self._linear(f"{prefix}self_attn.o_proj", hidden, q_rows, damping)
        yield from self._norm(f"{prefix}post_attention_layernorm", hidden)
        for name in ("gate_proj", "up_proj"):
            yield from self._linear(f"{prefix}mlp.{name}", inner, hidden, 1.0, f"{prefix}post_attention_layernorm")
        yield from self._linear(f"{prefix}mlp.down_proj", hidden, inner, damping)

    def _norm(self, name: str, size: int) -> Iterator[_Tensor]:
        yield self._floats(f"{name}.weight", (size,), 0.05, center=1.0)
        if self._model.m4:
            yield self._values(
                f"{name}.bias", "F32", "FLOAT", (self._shift(name, size) * _SHIFT_STEP).astype(np.float32)
            )

    def _shift(self, name: str, size: int) -> npt.NDArray[np.float64]:
        """The bias of a norm in steps, float64 [size] of integers; only norms in front of linear layers have one."""
        if not name.endswith("layernorm"):
            return np.zeros(size)
        values = _normal_table()[self._random(f"{name}.bias", size)].astype(np.float64)
        return np.asarray(np.rint(values * (_SHIFT_SIGMA / _SHIFT_STEP)))

    def _linear(self, name: str, n: int, k: int, gain: float, norm: str | None = None) -> Iterator[_Tensor]:
        """norm: the one in front of the layer, if there is one."""
        kind = next((kind for pattern, kind in self._rules if fnmatchcase(name, pattern)), "W8A8S")
        shift = self._shift(norm, k) if self._model.m4 and norm else None
        if kind in ("FLOAT", "W16A16S"):
            if kind == "FLOAT":
                yield self._floats(f"{name}.weight", (n, k), gain * k**-0.5)
            else:
                yield self._sparse_floats(f"{name}.weight", (n, k), gain * (k * (1 - _ZEROS_W16)) ** -0.5)
            if shift is not None:
                yield self._floats(f"{name}.bias", (n,), 0.2)
            return
        spread = gain * k**-0.5 / float(_weight_table(self._model.sigma).astype(np.float32).std())
        scales = (spread * (1 + 0.1 * _normal_table()[self._random(f"{name}.deq_scale", n)])).astype(np.float32)
        yield _Tensor(f"{name}.weight", "I8", (n, k), kind, lambda: self._weights(name, n, k, shift))
        if shift is not None:
            yield _Tensor(f"{name}.bias", self._float, (n,), "FLOAT", lambda: iter([self._bias(name, scales)]))
        if kind != "W8A8_DYNAMIC":
            yield from self._static(name, kind, n, scales)
        if kind != "W8A8S":
            yield self._values(f"{name}.weight_scale", self._float, kind, scales[:, None])
            yield self._values(f"{name}.weight_offset", self._float, kind, np.zeros((n, 1), np.float32))

    def _static(self, name: str, kind: str, n: int, scales: npt.NDArray[np.float32]) -> Iterator[_Tensor]:
        """The tensors of a layer whose input has a fixed scale."""
        deq = scales * np.float32(_INPUT_SCALE)
        scalar = "F32" if self._model.m4 else self._float
        yield self._values(f"{name}.input_scale", scalar, kind, np.full(1, _INPUT_SCALE, np.float32))
        yield self._values(f"{name}.input_offset", scalar, kind, np.full(1, _INPUT_OFFSET, np.float32))
        yield _Tensor(f"{name}.quant_bias", "I32", (n,), kind, lambda: iter([self._quant_bias(name)]))
        if self._float == "F16":
            yield self._values(f"{name}.deq_scale", "I64", kind, deq.view(np.int32).astype(np.int64))
        else:
            yield self._values(f"{name}.deq_scale", "F32", kind, deq)

    def _random(self, name: str, count: int) -> npt.NDArray[np.uint16]:
        """uint16 [count], depending on nothing but seed and name."""
        return next(self._stream(name, count, count))

    def _stream(self, name: str, count: int, block: int) -> Iterator[npt.NDArray[np.uint16]]:
        generator = np.random.SFC64(np.random.SeedSequence([self._seed, zlib.crc32(name.encode())]))
        for first in range(0, count, block):
            size = min(block, count - first)
            yield generator.random_raw(-(-size // 4)).view(np.uint16)[:size]

    def _weights(self, name: str, n: int, k: int, shift: npt.NDArray[np.float64] | None) -> Iterator[npt.NDArray[Any]]:
        table = _weight_table(self._model.sigma)
        rows = max(1, _BLOCK_ELEMENTS // k)
        sums, shifted = [], []
        for block in self._stream(f"{name}.weight", n * k, rows * k):
            values = np.take(table, block)
            matrix = values.reshape(-1, k)
            sums.append(matrix.sum(axis=1, dtype=np.int64))
            if shift is not None:  # integers below 2**53: exact in whatever order they are added
                shifted.append(matrix.astype(np.float64) @ shift)
            yield values
        self._row_sums[name] = np.concatenate(sums)  # for the biases
        self._shifted[name] = np.concatenate(shifted) if shifted else np.zeros(n)

    def _bias(self, name: str, scales: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """What takes back the shift of the norm in front."""
        values = -scales * (self._shifted[name] * _SHIFT_STEP).astype(np.float32)
        return self._encode(values, self._float)

    def _quant_bias(self, name: str) -> npt.NDArray[Any]:
        """What takes back the input offset, and the bias in units of deq_scale, as msmodelslim folds both in."""
        bias = np.rint(self._shifted.pop(name) * (-_SHIFT_STEP / _INPUT_SCALE)).astype(np.int64)
        return (bias - _INPUT_OFFSET * self._row_sums.pop(name)).astype(np.int32)

    def _sparse_floats(self, name: str, shape: tuple[int, ...], sigma: float) -> _Tensor:
        """Floating weights most of which are zero."""
        values = _normal_table() * np.float32(sigma)
        values[np.random.default_rng(0).random(len(values)) < _ZEROS_W16] = 0
        table = self._encode(values, self._float)
        count = math.prod(shape)

        def make() -> Iterator[npt.NDArray[Any]]:
            for block in self._stream(name, count, _BLOCK_ELEMENTS):
                yield np.take(table, block)

        return _Tensor(name, self._float, shape, "W16A16S", make)

    def _floats(
        self, name: str, shape: tuple[int, ...], sigma: float, *, center: float = 0.0, dtype: str | None = None
    ) -> _Tensor:
        dtype = dtype or self._float
        table = self._encode(_normal_table() * np.float32(sigma) + np.float32(center), dtype)
        count = math.prod(shape)

        def make() -> Iterator[npt.NDArray[Any]]:
            for block in self._stream(name, count, _BLOCK_ELEMENTS):
                yield np.take(table, block)

        return _Tensor(name, dtype, shape, "FLOAT", make)

    def _values(self, name: str, dtype: str, kind: str, values: npt.NDArray[Any]) -> _Tensor:
        encoded = self._encode(values, dtype)
        return _Tensor(name, dtype, values.shape, kind, lambda: iter([encoded]))

    @staticmethod
    def _encode(values: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
        return _to_bfloat16(values.astype(np.float32)) if dtype == "BF16" else values.astype(DTYPES[dtype])


def _nbytes(tensor: _Tensor) -> int:
    return math.prod(tensor.shape) * DTYPES[tensor.dtype].itemsize


def _write_weights(
    target: Path, tensors: Sequence[_Tensor], part_bytes: int | None, advance: Callable[[int, int], None]
) -> None:
    stem = "quant_model_weight_w8a8s"
    total = sum(map(_nbytes, tensors))
    parts: list[list[_Tensor]] = [[]]
    for tensor in tensors:
        if part_bytes and parts[-1] and sum(map(_nbytes, parts[-1])) + _nbytes(tensor) > part_bytes:
            parts.append([])
        parts[-1].append(tensor)
    names = [f"{stem}.safetensors"]
    if part_bytes:
        names = [f"{stem}-{number:05d}-of-{len(parts):05d}.safetensors" for number in range(1, len(parts) + 1)]
    for name, part in zip(names, parts):
        infos, end = [], 0
        for tensor in part:
            infos.append(TensorInfo(tensor.name, tensor.dtype, tensor.shape, end, end + _nbytes(tensor)))
            end = infos[-1].end
        with files.new_file(target / name) as file:
            file.write(header_for(infos))
            for tensor in part:
                for piece in tensor.make():
                    file.write(np.ascontiguousarray(piece).data)
                    advance(piece.nbytes, total)
    if part_bytes:
        index = {
            "metadata": {"total_size": total},
            "weight_map": {tensor.name: name for name, part in zip(names, parts) for tensor in part},
        }
        _write_json(target / f"{stem}.safetensors.index.json", index)


def _write_side_files(target: Path, model: Model, dtype: Dtype, tied: bool, tensors: Sequence[_Tensor]) -> None:
    description: dict[str, Any] = {"version": "1.0.0", "model_quant_type": "W8A8S"}
    description |= {tensor.name: tensor.quantization for tensor in tensors}
    _write_json(target / "quant_model_description.json", description)
    tokens, files = tokenizer_files(model.vocabulary)
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": tokens["end_of_text"],
        "eos_token_id": tokens["end_of_turn"],
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "hidden_size": model.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": model.intermediate_size,
        "max_position_embeddings": 40960,
        "max_window_layers": model.layers,
        "model_type": "qwen3",
        "num_attention_heads": model.heads,
        "num_hidden_layers": model.layers,
        "num_key_value_heads": model.kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": tied,
        "torch_dtype": dtype,
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": model.vocabulary,
    }
    _write_json(target / "config.json", config)
    generation = {
        "bos_token_id": tokens["end_of_text"],
        "do_sample": True,
        "eos_token_id": [tokens["end_of_turn"], tokens["end_of_text"]],
        "pad_token_id": tokens["end_of_text"],
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
    }
    _write_json(target / "generation_config.json", generation)
    for name, content in files.items():
        _write_json(target / name, content)
    if model.recipe is not None:
        _write_recipe(target / f"{model.recipe}_best_practice.yaml", model)


def _write_recipe(path: Path, model: Model) -> None:
    """The keys of the recipe that tell what was done; msmodelslim copies its recipe whole."""
    spec: dict[str, Any] = {"anti_cfg": {"anti_method": "m4"}} if model.m4 else {}
    spec["calib_params"] = {"mix_cfg": dict.fromkeys(model.float_layers, "float")}
    content = {"apiversion": "modelslim_v0", "spec": spec, "metadata": {"verified_model_types": [model.recipe]}}
    files.write_plain(path, yaml.safe_dump(content, sort_keys=False).encode())


def _set_modes(target: Path) -> None:
    """The modes that msmodelslim leaves: nobody may change weights, and all may read the recipe alone."""
    modes = {".safetensors": 0o400, ".json": 0o600, ".yaml": 0o644}
    for path in reading.entries(target):
        files.set_mode(path, modes[path.suffix])


def _write_json(path: Path, content: Any) -> None:
    files.write_plain(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
