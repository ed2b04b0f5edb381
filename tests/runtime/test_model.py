"""The model: equal to its source bit for bit, at every TP size within rounding, and to an implementation of others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from w8a8sc_tool.errors import InputError, UsageError
from w8a8sc_tool.jobs import generate as job
from w8a8sc_tool.jobs.compress import compress
from w8a8sc_tool.jobs.generate import TOLERANCE, Generated, generate
from w8a8sc_tool.runtime.directory import config_of
from w8a8sc_tool.runtime.models.decoder import Layer
from w8a8sc_tool.runtime.models.decoder import Model as Decoder
from w8a8sc_tool.runtime.state import load_checkpoint, load_rank
from w8a8sc_tool.synthesis.synthesize import MODELS, Model, synthesize
from w8a8sc_tool.workers.pool import Pool

from .. import tensors
from ..architectures import Sizes, make
from ..conftest import edit_json

MIXED = [
    *(("*.0.self_attn.*", "W8A8"), ("*.1.mlp.down_proj", "W8A8_DYNAMIC"), ("*.2.mlp.down_proj", "FLOAT")),
    *(("*.3.mlp.down_proj", "W16A16S"), ("*.2.self_attn.*", "W16A16S")),
]
OTHERS = [pytest.param(name, 2, marks=pytest.mark.slow) for name in ("llama tied", "qwen2", "qwen3-vl")]
SLOWER = [pytest.param(*case, marks=pytest.mark.slow) for case in (("mixed", 4), ("tied", 4), ("narrow", 8))]
PROMPT = [5, 300, 17, 999, 42, 42, 7]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "narrow", Model(512, 2048, 2, 16, 2, 128, 3001, ("*.down_proj",)))
        narrow = synthesize(folder / "Narrow-w8a8s", "narrow")  # two kv heads, so that TP 8 repeats them
    return {
        "narrow": narrow,
        **{name: make(name, folder) for name in ("llama tied", "qwen2", "qwen3-vl")},
        "mixed": synthesize(folder / "Mixed-w8a8s", "tiny", types=MIXED),
        "tied": synthesize(
            *(folder / "Tied-w8a8s", "tiny"),
            tied=True,
            m4=True,
            dtype="bfloat16",
            vocabulary=2001,
            types=[("*.down_proj", "FLOAT")],
        ),
    }


@pytest.fixture(scope="module")
def directories(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    folder = tmp_path_factory.mktemp("directories")
    made: dict[tuple[str, int], Path] = {}
    for name, model in models.items():
        sizes = {"narrow": [8], "llama tied": [1, 2], "qwen2": [1, 2], "qwen3-vl": [1, 2]}.get(name, [1, 2, 4])
        for result in compress(model, folder, tp=sizes):
            made[name, result.tp] = result.directory
        for result in compress(model, folder / "plain", tp=sizes, compress=False):
            made[f"{name} uncompressed", result.tp] = result.directory
    return lambda name, tp: made[name, tp]


def logits(folder: Path, size: int, tokens: list[int]) -> torch.Tensor:
    """Teacher-forced logits, one process per rank; size 0 for a checkpoint."""
    import tempfile

    with (
        tempfile.TemporaryDirectory() as scratch,
        Pool(
            max(1, size), "w8a8sc_tool.runtime.rank:Rank", str(folder), size, f"{scratch}/group", 64, 1, 1 << 30
        ) as pool,
    ):
        job._all(pool, "load", lambda rank: (rank,))
        answers = job._all(pool, "logits", lambda rank: (tokens,))
    assert len(set(answers)) == 1  # every rank has the same bits
    return torch.from_numpy(np.frombuffer(answers[0], np.float16).reshape(len(tokens), -1).copy())


@pytest.mark.parametrize("name", ["mixed", "tied", "llama tied", "qwen2", "qwen3-vl"])
def test_one_rank_equals_the_source_bit_for_bit(
    name: str, models: dict[str, Path], directories: Callable[[str, int], Path]
) -> None:
    config = config_of(models[name])
    source = Decoder(config, load_checkpoint(models[name]), room=64)
    made = Decoder(config, load_rank(directories(name, 1), 0), room=64)
    expected, result = (model.forward(torch.tensor(PROMPT)) for model in (source, made))
    assert expected.shape == (len(PROMPT), config.vocabulary)
    assert torch.equal(expected, result)
    assert expected.float().std() > 0.1 and torch.isfinite(expected.float()).all()


@pytest.mark.parametrize(("name", "tp"), [("mixed", 2), *SLOWER])
def test_several_ranks_equal_the_uncompressed_ones_bit_for_bit(
    name: str, tp: int, directories: Callable[[str, int], Path]
) -> None:
    expected, result = (logits(directories(which, tp), tp, PROMPT) for which in (f"{name} uncompressed", name))
    assert torch.equal(expected, result)


@pytest.mark.parametrize(("name", "tp"), [pytest.param("mixed", 2, marks=pytest.mark.slow), *OTHERS, *SLOWER])
def test_several_ranks_agree_within_the_rounding_of_their_sums(
    name: str, tp: int, models: dict[str, Path], directories: Callable[[str, int], Path]
) -> None:
    expected = logits(models[name], 0, PROMPT).float()
    result = logits(directories(name, tp), tp, PROMPT).float()
    spread = expected.std(-1, keepdim=True)
    assert ((result - expected).abs() / spread).max() < 0.6 * TOLERANCE
    best = expected.topk(2, dim=-1)
    clear = (best.values[:, :1] - best.values[:, 1:] > TOLERANCE * spread).squeeze(1)
    assert torch.equal(result.argmax(-1)[clear], expected.argmax(-1)[clear])


@pytest.mark.parametrize("name", ["mixed", pytest.param("tied", marks=pytest.mark.slow)])
def test_decoding_with_the_cache_equals_prefill(
    name: str, directories: Callable[[str, int], Path], models: dict[str, Path]
) -> None:
    """Token by token, in two pieces, or all at once: the same bits."""
    state, config = load_rank(directories(name, 1), 0), config_of(models[name])
    prompt = PROMPT * 3  # more than a tile of rows
    whole = Decoder(config, state, room=64).forward(torch.tensor(prompt))
    for sizes in ([1] * len(prompt), [9, 12]):
        model = Decoder(config, state, room=64)
        steps = torch.cat([model.forward(part) for part in torch.tensor(prompt).split(sizes)])
        assert torch.equal(whole, steps)


class PlainLinear(torch.nn.Module):
    """A quantized layer as plainly as it can be said, in float64."""

    def __init__(self, parts: dict[str, tuple[str, list[int], bytes]]) -> None:
        super().__init__()
        self.weight = torch.from_numpy(tensors.array(parts["weight"]).astype(np.float64))
        values = {leaf: tensors.array(entry) for leaf, entry in parts.items()}
        self.scale = float(values["input_scale"].astype(np.float16).item())
        self.offset = float(values["input_offset"].item())
        self.bias = torch.from_numpy(values["quant_bias"].astype(np.float64))
        self.deq = torch.from_numpy(values["deq_scale"].astype(np.int32).view(np.float32).astype(np.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = torch.clamp(torch.round(x.double() / self.scale + self.offset), -128, 127)
        return ((q @ self.weight.T + self.bias) * self.deq).to(x.dtype)


def theirs(model: Path) -> Any:
    """transformers' model in float32 with the same weights."""
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.from_pretrained(model)
    config._attn_implementation = "eager"
    made = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    content: tensors.Content = {}
    for path in model.glob("*.safetensors"):
        content |= tensors.read(path)
    quantized = {name.removesuffix(".quant_bias") for name in content if name.endswith(".quant_bias")}
    for name in quantized:
        parts = {key.rpartition(".")[2]: value for key, value in content.items() if key.rpartition(".")[0] == name}
        parent, _, leaf = name.rpartition(".")
        setattr(made.get_submodule(parent), leaf, PlainLinear(parts))
    state = {
        name: torch.from_numpy(tensors.array(entry).astype(np.float32))
        for name, entry in content.items()
        if name.rpartition(".")[0] not in quantized
    }
    missing, unexpected = made.load_state_dict(state, strict=False)
    assert not unexpected and not missing
    return made


@pytest.mark.parametrize(
    ("architecture", "sizes"),
    [
        ("Qwen3ForCausalLM", (512, 1536, 4, 12, 4, 128, 2048)),
        ("Qwen2ForCausalLM", (512, 1536, 4, 8, 2, 64, 2048)),
        ("LlamaForCausalLM", (512, 1536, 4, 8, 4, 128, 2048)),
    ],
)
def test_against_transformers_layer_by_layer(
    architecture: str, sizes: Sizes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """float16 activations here, float32 there: hidden states and logits agree to a few percent of their spread."""
    pytest.importorskip("transformers")
    down, mlp = "*.mlp.down_proj", "model.layers.1.mlp.*_proj"
    monkeypatch.setitem(MODELS, "small", Model(*sizes, float_layers=(down, mlp), architecture=architecture))
    model = synthesize(tmp_path / "Small-w8a8s", "small")
    (result,) = compress(model, tmp_path)
    other = theirs(model)
    with torch.inference_mode():
        expected = other(torch.tensor([PROMPT]), output_hidden_states=True)
    ours = Decoder(config_of(model), load_rank(result.directory, 0), room=64)
    states: list[torch.Tensor] = []
    real = Layer.__call__

    def record(layer: Layer, *arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        out, residual = real(layer, *arguments)
        states.append(out + residual)
        return out, residual

    monkeypatch.setattr(Layer, "__call__", record)
    result = ours.forward(torch.tensor(PROMPT)).float()
    # The last of transformers' hidden states is behind the final norm.
    for number, (mine, reference) in enumerate(zip(states[:-1], expected.hidden_states[1:-1])):
        error = (mine.float() - reference[0]).abs().max() / reference.std()
        assert error < 0.1, f"layer {number}: {error:.3f}"
    logits_error = (result - expected.logits[0]).abs().max() / expected.logits.std()
    assert logits_error < 0.1


# ------------------------------------------------------------------------------------------------------- generating


def test_two_ranks_generate_the_sources_text(models: dict[str, Path], directories: Callable[[str, int], Path]) -> None:
    pieces: list[str] = []
    result = generate(
        directories("mixed", 2),
        prompt="Hello",
        max_new_tokens=6,
        compare=models["mixed"],
        on_token=lambda token, text: pieces.append(text),
    )
    assert result.ok and result.compared
    assert result.text and "".join(pieces) == result.text


@pytest.mark.slow
def test_one_rank_gives_the_sources_tokens_and_a_seed_repeats_a_sample(
    models: dict[str, Path], directories: Callable[[str, int], Path]
) -> None:
    result = generate(directories("mixed", 1), prompt="Hello", max_new_tokens=6, compare=models["mixed"])
    assert result.differs_at is None and result.ok
    sampled = [
        generate(directories("mixed", 1), token_ids=PROMPT, max_new_tokens=5, temperature=1.0, seed=seed).tokens
        for seed in (1, 1, 2)
    ]
    assert sampled[0] == sampled[1] != sampled[2]


@pytest.mark.slow
def test_of_a_model_with_images_the_decoder_is_run(
    models: dict[str, Path], directories: Callable[[str, int], Path]
) -> None:
    result = generate(directories("qwen3-vl", 1), token_ids=PROMPT, max_new_tokens=3, compare=models["qwen3-vl"])
    assert result.compared and result.differs_at is None
    assert result.notes == ["the model's decoder alone is run: images are not read"]
    assert generate(directories("mixed", 1), token_ids=PROMPT, max_new_tokens=1, temperature=0).notes == []


@pytest.mark.slow
def test_without_a_tokenizer_ids_are_what_there_is(directories: Callable[[str, int], Path], tmp_path: Path) -> None:
    bare = Path(shutil.copytree(directories("mixed", 1), tmp_path / "bare"))
    (bare / "tokenizer.json").unlink()
    result = generate(bare, token_ids=PROMPT, max_new_tokens=2)
    assert result.text is None and len(result.tokens) == 2
    with pytest.raises(InputError, match=r"no tokenizer\.json.*token_ids="):
        generate(bare, prompt="Hello")
    with pytest.raises(UsageError, match="no token 99999"):
        generate(bare, token_ids=[99999])


_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(_POINTER, "Git LFS", id="pointer"),
        pytest.param("", "not a tokenizer", id="empty"),
        pytest.param("{}", "not a tokenizer", id="object"),
    ],
)
def test_token_ids_need_no_tokenizer(
    content: str, message: str, directories: Callable[[str, int], Path], tmp_path: Path
) -> None:
    """Not even a good one; a prompt does, and the error is the tokenizer's."""
    spoilt = Path(shutil.copytree(directories("mixed", 1), tmp_path / "spoilt"))
    expected = generate(spoilt, token_ids=PROMPT, max_new_tokens=2)
    (spoilt / "tokenizer.json").write_text(content)
    result = generate(spoilt, token_ids=PROMPT, max_new_tokens=2)
    assert (result.tokens, result.text) == (expected.tokens, None)
    with pytest.raises(InputError, match=rf"{message}.*tokenizer\.json"):
        generate(spoilt, prompt="hello")


def test_templates_cannot_run_code(directories: Callable[[str, int], Path], tmp_path: Path) -> None:
    bare = Path(shutil.copytree(directories("mixed", 1), tmp_path / "bare"))
    for template, message in (
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "fails"),
        ("{% for i in range(10 ** 9) %}x{% endfor %}", "fails"),
        ("{{ 'x' * 10000000 }}", "more than"),
    ):
        (bare / "chat_template.jinja").write_text(template)
        with pytest.raises(InputError, match=message):
            generate(bare, prompt="Hello")


def test_a_template_without_an_end_is_stopped(
    directories: Callable[[str, int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "_TEXT_SECONDS", 3.0)
    bare = Path(shutil.copytree(directories("mixed", 1), tmp_path / "bare"))
    loops = "".join(f"{{% for i{n} in range(9999) %}}" for n in range(4))
    (bare / "chat_template.jinja").write_text(loops + "{% endfor %}" * 4)
    with pytest.raises(InputError, match="took longer than 3 s"):
        generate(bare, prompt="Hello")


@pytest.mark.slow
def test_what_the_files_say_of_generating(directories: Callable[[str, int], Path], tmp_path: Path) -> None:
    """End tokens of both files that vLLM looks at, and sampling unless something else is asked for."""
    bare = Path(shutil.copytree(directories("mixed", 1), tmp_path / "bare"))

    def run(ends: object, **options: Any) -> Generated:
        content = {"temperature": 1.5, "top_k": 7, "repetition_penalty": 1.1, "eos_token_id": ends}
        (bare / "generation_config.json").write_text(json.dumps(content))
        return generate(bare, token_ids=PROMPT, max_new_tokens=6, **options)

    greedy = run(None, temperature=0, repetition_penalty=1)
    assert len(set(greedy.tokens)) > 2
    third = greedy.tokens[2]
    for ends in (third, [1, third]):
        assert run(ends, temperature=0, repetition_penalty=1).tokens[-1] == third
    sampled = run(None)
    assert (sampled.sampling.temperature, sampled.sampling.top_k, sampled.sampling.repetition_penalty) == (1.5, 7, 1.1)
    assert sampled.tokens == run(None).tokens != run(None, seed=3).tokens
    tokenizer = json.loads((bare / "tokenizer.json").read_text())["model"]["vocab"]
    word = next(word for word, number in tokenizer.items() if number == greedy.tokens[1])
    edit_json(bare / "tokenizer_config.json", lambda content: content.update(eos_token={"content": word}))
    assert run(None, temperature=0, repetition_penalty=1).tokens == greedy.tokens[:2]
    with pytest.raises(UsageError, match="a comparison needs greedy decoding"):
        run(None, compare=bare, top_k=3)


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.slow
def test_the_rotation_counts_in_either_layout(directories: Callable[[str, int], Path], tmp_path: Path) -> None:
    """The same theta gives the same tokens wherever it stands, another theta others, and yarn none."""
    bare = Path(shutil.copytree(directories("mixed", 1), tmp_path / "bare"))
    prompt = PROMPT * 8

    def tokens(*absent: str, **keys: Any) -> list[int]:
        content = json.loads((directories("mixed", 1) / "config.json").read_text()) | keys
        (bare / "config.json").write_text(json.dumps({k: v for k, v in content.items() if k not in absent}))
        return generate(bare, token_ids=prompt, max_new_tokens=8, temperature=0).tokens

    moved = {"rope_type": "default", "rope_theta": 1000000}
    expected = tokens()
    assert tokens("rope_theta", "rope_scaling", rope_parameters=moved) == expected
    assert tokens(rope_theta=10.0) != expected
    with pytest.raises(InputError, match="rope_type yarn is not supported by the bundled runtime"):
        tokens("rope_theta", rope_parameters=moved | {"rope_type": "yarn", "factor": 4.0})
    with pytest.raises(InputError, match="quantization_config would take the place"):
        tokens(quantization_config={"bits": 8})


def test_a_source_that_is_not_run_is_refused_before_the_work(
    models: dict[str, Path], directories: Callable[[str, int], Path], tmp_path: Path
) -> None:
    source = Path(shutil.copytree(models["mixed"], tmp_path / "source"))
    edit_json(source / "config.json", lambda content: content.update(partial_rotary_factor=0.5))
    with pytest.raises(InputError, match=r"partial_rotary_factor 0\.5 is not supported"):
        generate(directories("mixed", 1), token_ids=PROMPT, compare=source, on_token=lambda token, text: pytest.fail())


def test_a_rank_in_several_files_is_the_same_rank(
    sealed: Callable[[int], Path], in_parts: Callable[[int], Path]
) -> None:
    for rank in range(2):
        one, several = load_rank(sealed(2), rank), load_rank(in_parts(2), rank)
        assert one.keys() == several.keys()
        assert all(torch.equal(one[name], several[name]) for name in one)


@pytest.mark.slow
def test_damaged_swapped_and_missing_rank_files(directories: Callable[[str, int], Path], tmp_path: Path) -> None:
    whole = directories("mixed", 2)
    first, second = (f"model-rank-{rank}-part-0.safetensors" for rank in (0, 1))
    missing = Path(shutil.copytree(whole, tmp_path / "missing"))
    (missing / second).unlink()
    with pytest.raises(InputError, match="no file of rank 1"):
        generate(missing, token_ids=PROMPT)
    swapped = Path(shutil.copytree(whole, tmp_path / "swapped"))
    (swapped / first).rename(swapped / "x")
    (swapped / second).rename(swapped / first)
    (swapped / "x").rename(swapped / second)
    with pytest.raises(InputError, match="not the file that the manifest lists"):
        generate(swapped, token_ids=PROMPT)
    damaged = Path(shutil.copytree(whole, tmp_path / "damaged"))
    content = tensors.read(damaged / first)
    name = "model.layers.2.mlp.gate_up_proj.weight"
    header = 8 + int.from_bytes((damaged / first).read_bytes()[:8], "little")
    begin = (damaged / first).read_bytes().index(content[name][2][:64], header)
    with (damaged / first).open("r+b") as file:
        file.seek(begin + 300)
        file.write(b"\xff\x00\xff\x00")
    with pytest.raises(InputError, match=f"{name}.*see w8a8sc verify"):
        generate(damaged, token_ids=PROMPT, max_new_tokens=1)
    (damaged / "w8a8sc_manifest.json").unlink()  # as a directory of the vendor's script
    with pytest.raises(InputError, match="cannot be decoded"):
        generate(damaged, token_ids=PROMPT, max_new_tokens=1)
    with pytest.raises(InputError, match="not a sharded_state directory"):
        generate(tmp_path, token_ids=PROMPT)
