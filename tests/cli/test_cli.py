"""The command line: exit codes, where output goes, and one line per error."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from w8a8sc_tool.cli.commands import group
from w8a8sc_tool.conversion.convert import target_folder

from .halted import end_at_work

COMMANDS = (
    *("compress", "reshard", "decompress", "batch", "verify", "compare", "inspect", "generate", "serve", "fit"),
    *("doctor", "compile", "install-executor", "synthesize", "card", "report"),
)
# Of small work, where no stage may have taken the twentieth of a second with which it would be listed.
TIMES = r"times: (.+; )?\d[^;]* in all"


def run(
    *arguments: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "w8a8sc_tool", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=env,
    )


def test_help_of_every_command_shows_an_example() -> None:
    assert run("--help").returncode == 0
    for command in COMMANDS:
        result = run(command, "--help")
        assert result.returncode == 0
        assert f"w8a8sc {command}" in result.stdout.partition("Example:")[2]


def test_the_first_screen() -> None:
    """Without a command: the help, on standard output, and the exit code of a wrong use."""
    bare, asked = run(env={**os.environ, "COLUMNS": "80"}), run("--help", env={**os.environ, "COLUMNS": "80"})
    assert (bare.returncode, bare.stderr, asked.returncode) == (2, "", 0)
    assert bare.stdout == asked.stdout
    assert all(len(line) <= 80 and not line.endswith("...") for line in bare.stdout.splitlines()[1:])
    sections = re.split(r"^(Make|Check|Use):$", bare.stdout, flags=re.M)[1:]
    assert sections[::2] == ["Make", "Check", "Use"]
    listed = [line.split()[0] for text in sections[1::2] for line in text.split("\n\n")[0].split("\n") if line]
    assert sorted(listed) == sorted(COMMANDS) == sorted(group.commands)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_sentence(command: str) -> None:
    options = [parameter for parameter in group.commands[command].params if isinstance(parameter, click.Option)]
    for option in options:
        assert option.help and option.help.endswith((".", "]")) and len(option.help) > 15, option.name


@pytest.mark.parametrize("flag", ["-j 2", "--no-verify", "--no-resume"])
def test_a_flag_that_has_no_meaning_is_refused(sealed_copy: Path, tmp_path: Path, flag: str) -> None:
    result = run("decompress", sealed_copy, "--checkpoint", "-o", tmp_path / "out", *flag.split())
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {flag.split(maxsplit=1)[0]} does not go with --checkpoint")
    assert not (tmp_path / "out").exists()


def test_compress_prints_the_result_and_nothing_else(tiny: Path, tmp_path: Path) -> None:
    result = run("compress", tiny, "--tensor-parallel-size", "2", "--output", tmp_path, "-j", "2")
    assert result.returncode == 0
    assert re.fullmatch(
        rf"note: compressing with native: .*\n(.+: \d+% of .*\n)*{TIMES}\n",
        result.stderr,
    )
    target = target_folder(tmp_path, "Tiny", 2)
    assert result.stdout.startswith(f"{target}\n")
    assert "3 layers not compressed (source" in result.stdout
    assert f"vllm serve {target}" in result.stdout and "--load_format sharded_state" in result.stdout
    again = run("compress", tiny, "--tp", "2", "-o", tmp_path, "--json")
    (document,) = json.loads(again.stdout)
    assert (again.returncode, document["already_done"], document["directory"]) == (0, True, str(target))


def test_dry_run(tiny: Path, tmp_path: Path) -> None:
    result = run("compress", tiny, "--tp", "2", "--dry-run", cwd=tmp_path)
    assert result.returncode == 0
    assert "model.layers.0.self_attn.qkv_proj.weight" in result.stdout
    assert "open" in result.stdout
    (document,) = json.loads(run("compress", tiny, "--dry-run", "--json", cwd=tmp_path).stdout)
    assert document["tensors"][0]["name"] == "model.embed_tokens.weight"
    assert list(tmp_path.iterdir()) == []


def test_verify(sealed_copy: Path, tiny: Path) -> None:
    good = run("verify", sealed_copy, "--source", tiny)
    assert good.returncode == 0
    # A line every few seconds, if it takes so long.
    assert re.fullmatch(rf"(verifying: .*\n)*{TIMES}\n", good.stderr)
    assert good.stdout.startswith("verified: TP 2")
    with (sealed_copy / "model-rank-1-part-0.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    bad = run("verify", sealed_copy)
    assert bad.returncode == 1
    assert "model-rank-1-part-0.safetensors" in bad.stdout and "1 errors" in bad.stdout
    document = json.loads(run("verify", sealed_copy, "--json").stdout)
    assert not document["ok"] and len(document["findings"]) == 1


def test_inspect_fits_a_terminal(sealed: Callable[[int], Path], tiny: Path) -> None:
    for path in (tiny, sealed(2)):
        result = run("inspect", path)
        assert result.returncode == 0
        table = [line for line in result.stdout.splitlines()[1:] if line]
        assert all(len(line) <= 80 for line in table)
        assert json.loads(run("inspect", path, "--json").stdout)["modules"]


def test_synthesize(tmp_path: Path) -> None:
    result = run("synthesize", tmp_path / "m", "--layers", "1", "--w8a8", "*.o_proj", "--part-size", "0.001", "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["folder"] == str(tmp_path / "m")
    types = json.loads((tmp_path / "m" / "quant_model_description.json").read_text())
    assert types["model.layers.0.self_attn.o_proj.weight"] == "W8A8"
    assert types["model.layers.0.mlp.down_proj.weight"] == "FLOAT"


def test_quiet(tiny: Path, tmp_path: Path) -> None:
    result = run("compress", tiny, "-o", tmp_path, "-q", "-j", "1")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("compress", "/no/such/model"), 3, "error: no such folder, /no/such/model: give the folder"),
        (("compress", "{tiny}", "--tp", "3"), 3, "error: tensor-parallel size 3 does not divide"),
        (("compress", "{tiny}", "--tp", "0"), 2, "error: Invalid value for '--tp'"),
        (("compress",), 2, "error: Missing argument 'MODEL'"),
        (("compress", "{tiny}", "--frobnicate"), 2, "error: No such option"),
        (("compress", "{tiny}", "--max-ratio", "1"), 2, "error: max ratio 1"),
        (("compress", "{tiny}", "--max-file-size", "5 apples"), 2, "error: '5 apples' is not a size: give one as 5GB"),
        (("decompress", "x", "--checkpoint", "--max-file-size", "5GB"), 2, "error: --max-file-size does not go with"),
        (("frobnicate",), 2, "error: No such command 'frobnicate': see w8a8sc --help"),
        (("verify", "{tiny}"), 3, "error: a checkpoint, not a sharded_state directory"),
        (("inspect", "/dev/null"), 3, "error: not a folder"),
        (("synthesize", "{tiny}"), 3, "error: exists already"),
        (("synthesize", "/proc/x/y"), 1, "error: creating the folder failed"),
        (("synthesize", "{tmp}/x", "--preset", "qwen9"), 2, "error: there is no preset"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(
    tiny: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    filled = [argument.format(tiny=tiny, tmp=tmp_path) for argument in arguments]
    result = run(*filled, cwd=tmp_path)
    assert result.returncode == code
    assert result.stdout == ""
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_traceback_on_request(tmp_path: Path) -> None:
    result = run("inspect", tmp_path / "x", env={**os.environ, "W8A8SC_DEBUG": "1"})
    assert "Traceback" in result.stderr


def test_a_closed_pipe_is_silent(tiny: Path) -> None:
    command = f"{sys.executable} -m w8a8sc_tool compress {tiny} --dry-run | head -n 1"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("moment", "arguments", "code"),
    [("main.start_early = send", ["compress", "x"], None), ("atexit.register(send)", ["--version"], 0)],
)
def test_signals_before_anything_has_begun_and_after_all_is_done(
    number: int, moment: str, arguments: list[str], code: int | None
) -> None:
    """The first end the process without a word, the others come too late; no traceback in either case."""
    script = (
        "import atexit, os, signal, sys\nfrom w8a8sc_tool.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"send = lambda *_: os.kill(os.getpid(), {number:d})\n"
        f"{moment}\nsys.argv[1:] = {arguments}\nmain.main()"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (-number if code is None else code, "")


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, 130, "interrupted"),
        pytest.param(signal.SIGTERM, 143, "terminated", marks=pytest.mark.slow),
    ],
)
def test_signals(tmp_path: Path, number: int, code: int, word: str) -> None:
    source = tmp_path / "m"
    assert run("synthesize", source, "-q").returncode == 0
    target = target_folder(tmp_path, "m", 1)
    returned, errors = end_at_work(number, "compress", source, "-o", tmp_path, "-j", "1")
    assert returned == code
    assert errors.strip().splitlines()[-1].startswith(word)
    assert target.with_name(f"{target.name}.partial").exists() and not target.exists()
    assert run("compress", source, "-o", tmp_path, "-q").returncode == 0
    assert [path.name for path in target.parent.iterdir()] == [target.name]
