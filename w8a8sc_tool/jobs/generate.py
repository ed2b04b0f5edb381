"""Generation: a directory's ranks as processes, tokens streamed as they come, and the comparison with the source."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..checking.verify import refuse_broken_ranks
from ..checkpoint import ModelConfig
from ..errors import InputError, MissingError, UsageError, W8A8SCError, WorkError
from ..io import files, reading
from ..runtime.directory import check_runnable, config_of, config_of_directory
from ..runtime.generation import Generation
from ..runtime.models import check_model
from ..runtime.sampling import Sampling
from ..text import is_utf8
from ..workers.machine import cores, free_memory
from ..workers.pool import Pool

# Sums of the ranks' float16 results are rounded otherwise than one rank's sum. Where the best two logits are closer
# than this many standard deviations of all logits, either token is right (docs/runtime.md has what was measured).
TOLERANCE: Final = 0.1

_RANK: Final = "w8a8sc_tool.runtime.rank:Rank"
_TEXT: Final = "w8a8sc_tool.runtime.text:Tokenizer"
_TEXT_SECONDS: Final = 60.0  # a chat template that takes longer is stopped
_STEP_SECONDS: Final = 3600.0
_DECODED_PART: Final = 0.6  # of the free memory may hold decoded weights; the rest is for what is mapped from files
_UNKNOWN_MEMORY: Final = 8 << 30


@dataclass
class Generated:
    """What was generated. margins: by how much the best logit led the next, in standard deviations of the logits."""

    prompt: list[int]
    tokens: list[int] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    text: str | None = None
    tp: int = 1
    sampling: Sampling = Sampling()  # noqa: RUF009 (it cannot be changed)
    load_seconds: float = 0.0
    prompt_seconds: float = 0.0
    token_seconds: float = 0.0
    differs_at: int | None = None  # first token that the source checkpoint would not have given
    margin_there: float = 0.0
    compared: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def tokens_per_second(self) -> float:
        return (len(self.tokens) - 1) / self.token_seconds if len(self.tokens) > 1 and self.token_seconds else 0.0

    @property
    def ok(self) -> bool:
        """Whether the comparison, if there was one, found nothing wrong."""
        return self.differs_at is None or (self.tp > 1 and self.margin_there <= TOLERANCE)

    @property
    def exit_code(self) -> int:
        """The command's."""
        return 0 if self.ok else 1

    def document(self) -> dict[str, Any]:
        """What --json prints: docs/json.md."""
        return {
            "prompt_tokens": self.prompt,
            "tokens": self.tokens,
            "text": self.text,
            "tensor_parallel_size": self.tp,
            "sampling": self.sampling.document(),
            "load_seconds": round(self.load_seconds, 3),
            "prompt_seconds": round(self.prompt_seconds, 3),
            "tokens_per_second": round(self.tokens_per_second, 2),
            "compared": self.compared,
            "differs_at": self.differs_at,
            "margin_there": round(self.margin_there, 4) if self.differs_at is not None else None,
            "ok": self.ok,
        }


def generate(
    directory: str | os.PathLike[str],
    *,
    prompt: str | None = None,
    token_ids: Sequence[int] | None = None,
    max_new_tokens: int = 32,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    seed: int = 0,
    compare: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    on_token: Callable[[int, str], None] | None = None,
) -> Generated:
    """Generate from a sharded_state directory, one process per rank.

    prompt (text, through the directory's tokenizer and chat template) or token_ids. temperature, top_k, top_p, min_p,
    repetition_penalty: see runtime.sampling; by default those of the directory's generation_config.json, as vLLM takes
    them. temperature 0 is greedy; a seed makes sampling repeatable. on_token is called with each token and the text it
    adds. compare: a W8A8S checkpoint that is given the same prompt; the first token that differs is reported. This
    needs greedy decoding: of generation_config.json, the end tokens alone are then used. device: "cpu", or "npu" for
    NPUs 0 to TP - 1.

    Raises InputError, MissingError, UsageError.
    """
    _check_usage(prompt, token_ids, max_new_tokens)
    others = {"top_k": top_k, "top_p": top_p, "min_p": min_p, "repetition_penalty": repetition_penalty}
    if compare is not None and (temperature or any(value is not None for value in others.values())):
        raise UsageError("a comparison needs greedy decoding: leave out what changes the choice of tokens")
    folder = Path(directory)
    tp, config = _check_models(folder, device, compare)
    generation = Generation.read(folder, config)
    notes = ["the model's decoder alone is run: images are not read"] if config.reads_images else []
    sampling = Sampling()
    if compare is None:
        sampling = generation.with_values(temperature=temperature, seed=seed, **others)
    if problem := sampling.problem():
        raise UsageError(problem)
    with _text(folder, wanted=prompt is not None) as text:
        tokens = list(token_ids) if token_ids is not None else text.encode(prompt)
        _check_tokens(tokens, config.vocabulary)
        result = Generated(tokens, tp=tp, sampling=sampling, notes=notes)
        _generate(folder, text, generation.ends | text.ends, max_new_tokens, device, result, on_token)
        result.text = text.decode(result.tokens) if text.there else None
    if compare is not None:
        _compare(Path(compare), result, device)
    return result


def _check_usage(prompt: str | None, token_ids: Sequence[int] | None, max_new_tokens: int) -> None:
    if (prompt is None) == (token_ids is None):
        raise UsageError("give either a prompt or token ids")
    if prompt is not None and not is_utf8(prompt):
        raise UsageError("the prompt is not UTF-8")
    if max_new_tokens < 1:
        raise UsageError("max new tokens must be above 0")


def _check_models(folder: Path, device: str, compare: str | os.PathLike[str] | None) -> tuple[int, ModelConfig]:
    """The size and config of a directory that can be run here, as can the checkpoint it is compared with."""
    reading.check_folder(folder)
    tp = refuse_broken_ranks(folder)
    _need(device)
    config = config_of_directory(folder)
    check_model(config.architecture)
    if compare is not None:
        check_runnable(config_of(Path(compare)))
    return tp, config


def _generate(
    folder: Path,
    text: _Text,
    ends: Set[int],
    count: int,
    device: str,
    result: Generated,
    on_token: Callable[[int, str], None] | None,
) -> None:
    """Add tokens to the result until one of `ends` or `count` of them."""
    shown = ""
    for token, margin in _tokens(folder, result.tp, result.prompt, count, result.sampling, device, result):
        result.tokens.append(token)
        result.margins.append(margin)
        whole = text.decode(result.tokens)
        # A character may take several tokens: what is not whole yet is not shown.
        added = "" if whole.endswith("\ufffd") else whole[len(shown) :]
        shown += added
        if on_token is not None:
            on_token(token, added)
        if token in ends:
            break


def _need(device: str) -> None:
    for package, extra in (("torch", "runtime"), *([("torch_npu", "npu")] if device == "npu" else [])):
        if importlib.util.find_spec(package) is None:
            raise MissingError(f"{package} is not installed", remedy=f"pip install 'w8a8sc[{extra}]'")


def _check_tokens(tokens: Sequence[int], vocabulary: int) -> None:
    if not tokens:
        raise UsageError("the prompt is empty")
    wrong = next((token for token in tokens if not 0 <= token < vocabulary), None)
    if wrong is not None:
        raise UsageError(f"there is no token {wrong}: the vocabulary has {vocabulary}")


class _Text:
    """A tokenizer in a process of its own: what it is made of comes from a file nobody vouches for."""

    def __init__(self, pool: Pool | None) -> None:
        self._pool = pool

    @property
    def there(self) -> bool:
        return self._pool is not None

    def encode(self, prompt: str | None) -> list[int]:
        return list(self._ask("encode", prompt))

    def decode(self, tokens: list[int]) -> str:
        return str(self._ask("decode", tokens)) if self.there else ""

    @property
    def ends(self) -> set[int]:
        """The end token that the tokenizer knows, if it knows one."""
        token = self._ask("end_token") if self.there else None
        return set() if token is None else {token}

    def _ask(self, method: str, *arguments: object) -> Any:
        assert self._pool is not None
        self._pool.call(0, "the tokenizer", method, *arguments)
        for _, answer in self._pool.wait(_TEXT_SECONDS):
            return answer
        raise InputError(
            f"the tokenizer or chat template took longer than {_TEXT_SECONDS:.0f} s", "", "give token_ids="
        )


@contextmanager
def _text(folder: Path, *, wanted: bool) -> Iterator[_Text]:
    there = reading.exists(folder / "tokenizer.json") and importlib.util.find_spec("tokenizers") is not None
    if not wanted and not there:
        yield _Text(None)
        return
    if not reading.exists(folder / "tokenizer.json"):
        raise InputError("there is no tokenizer.json", str(folder), "give token_ids=")
    with Pool(1, _TEXT, folder) as pool:
        text = _Text(pool)
        if not wanted:  # it would only show what the tokens say
            try:
                text.decode([])
                _ = text.ends
            except W8A8SCError:
                text = _Text(None)
        yield text


def _tokens(
    folder: Path,
    size: int,
    prompt: list[int],
    count: int,
    sampling: Sampling,
    device: str,
    result: Generated | None = None,
) -> Iterator[tuple[int, float]]:
    """Tokens and margins, one by one; size 0 runs a W8A8S checkpoint."""
    started = time.perf_counter()
    ranks = max(1, size)
    threads = max(1, cores() // ranks)
    room = len(prompt) + count
    budget = int((free_memory() or _UNKNOWN_MEMORY) * _DECODED_PART) // ranks
    with files.temporary_folder() as scratch:
        rendezvous = str(scratch / "group")
        arguments = (str(folder), size, rendezvous, room, threads, budget, device)
        with Pool(ranks, _RANK, *arguments, threads=threads) as pool:
            _all(pool, "load", lambda rank: (rank,))
            _all(pool, "start", lambda rank: (sampling,))
            loaded = time.perf_counter()
            pending = prompt
            for number in range(count):
                before = time.perf_counter()
                steps = _all(pool, "append", lambda rank: (pending,))  # noqa: B023 (called before the loop goes on)
                if result is not None:
                    seconds = time.perf_counter() - before
                    result.load_seconds = loaded - started
                    result.prompt_seconds += seconds if number == 0 else 0.0
                    result.token_seconds += seconds if number else 0.0
                if len({step.token for step in steps}) != 1:
                    raise WorkError("the ranks disagree about the next token", str(folder), "report this")
                pending = [steps[0].token]
                yield steps[0].token, steps[0].margin


def _all(pool: Pool, method: str, arguments: Callable[[int], tuple[object, ...]]) -> list[Any]:
    """Call a method on all ranks at once, and wait for all: they need each other to go on."""
    answers: dict[int, Any] = {}
    ranks = pool.idle()
    for rank in ranks:
        pool.call(rank, f"rank {rank}", method, *arguments(rank))
    while len(answers) < len(ranks):
        results = pool.wait(_STEP_SECONDS)
        if not results:
            raise WorkError(f"the ranks did not answer within {_STEP_SECONDS:.0f} s")
        answers |= dict(results)
    return [answers[rank] for rank in ranks]


def _compare(model: Path, result: Generated, device: str) -> None:
    """Give the source checkpoint the same prompt and find the first token that differs."""
    result.compared = True
    theirs = _tokens(model, 0, result.prompt, len(result.tokens), Sampling(), device)
    for number, (token, margin) in enumerate(theirs):
        if token != result.tokens[number]:
            result.differs_at, result.margin_there = number, margin
            return
