"""Batches: checked before they begin, carried out in order, told as they were."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from w8a8sc_tool.cli.main import run
from w8a8sc_tool.conversion.convert import target_folder
from w8a8sc_tool.errors import InputError, MissingError
from w8a8sc_tool.jobs import batch as job
from w8a8sc_tool.workers.progress import Progress

from .test_compress import digests

EXAMPLE = Path(__file__).parents[2] / "configs" / "batch.yaml"


def write(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_annotated_example_is_one() -> None:
    batch = job.load(EXAMPLE)
    assert {entry.output for entry in batch.jobs} == {str(EXAMPLE.parent / "compressed")}
    assert [entry.sizes for entry in batch.jobs] == [(1, 2), (4,)]
    text = EXAMPLE.read_text()
    assert all(f" {key}: " in text for key in ("model", *job.KEYS))


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS", "/models")
    monkeypatch.setenv("HOME", "/home/somebody")
    file = write(
        tmp_path / "b.yaml",
        {
            "output": "~/out",
            "jobs": [{"model": "$MODELS/a"}, {"model": "b", "output": "${MODELS}/o", "preset": "p.yaml"}],
        },
    )
    first, second = job.load(file).jobs
    assert (first.model, first.output, first.keywords["preset"]) == ("/models/a", "/home/somebody/out", "auto")
    assert (second.model, second.output) == (f"{tmp_path}/b", "/models/o")
    assert second.keywords["preset"] == f"{tmp_path}/p.yaml"
    write(file, {"jobs": [{"model": "$NOWHERE/a"}]})
    with pytest.raises(InputError, match="NOWHERE is not set"):
        job.load(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "mapping"),
        ({"jobs": []}, "no jobs"),
        ({"jobs": [{}]}, "model"),
        ({"jobs": [{"model": "a", "shell": "rm"}]}, "shell"),
        ({"jobs": [{"model": "a", "tp": "two"}]}, "tp"),
        ({"jobs": [{"model": "a"}], "processes": 0}, "positive"),
    ],
)
def test_what_is_no_batch(content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        job.load(write(tmp_path / "b.yaml", content))


def test_one_size_and_one_pattern_stand_for_themselves(tiny: Path, tmp_path: Path) -> None:
    jobs = [{"model": str(tiny), "tp": 2, "keep": "*.o_proj"}]
    (outcome,) = job.run_batch(write(tmp_path / "b.yaml", {"output": "out", "jobs": jobs, "processes": 1}))
    assert (outcome.state, outcome.tp) == ("made", (2,))
    manifest = json.loads((Path(outcome.directories[0]) / "w8a8sc_manifest.json").read_text())
    assert manifest["options"]["keep"] == ["*.o_proj"]


def test_everything_is_checked_before_anything_is_made(tiny: Path, tmp_path: Path) -> None:
    jobs = [{"model": str(tiny)}, {"model": str(tiny), "tp": [1, 3]}, {"model": "nothing"}, {"model": str(tiny)}]
    with pytest.raises(InputError) as raised:
        job.run_batch(write(tmp_path / "b.yaml", {"output": "out", "jobs": jobs}))
    lines = [str(problem) for problem in raised.value.problems]
    assert any("job 2: " in line and "sizes that work" in line for line in lines)
    assert any("job 3: no such folder" in line for line in lines)
    assert any("jobs 1 and 4 make the same" in line for line in lines)
    assert not (tmp_path / "out").exists()


def test_a_failure_stops_the_others_only_when_asked(
    tiny: Path, sealed: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [{"model": str(tiny), "name": "In-the-way"}, {"model": str(tiny), "tp": [1, 2], "name": "Tiny"}]
    target = target_folder(tmp_path / "out", "In-the-way", 1)
    target.mkdir(parents=True)
    file = write(tmp_path / "b.yaml", {"output": "out", "jobs": jobs, "processes": 2})
    assert run(["batch", str(file), "--json"]) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert first["state"] == "failed" and "exists already" in first["error"]
    assert second["state"] == "made"
    for tp in (1, 2):
        assert digests(target_folder(tmp_path / "out", "Tiny", tp)) == digests(sealed(tp))
    target.rmdir()
    assert run(["batch", str(file)]) == 0  # what is there is not made again
    printed = capsys.readouterr().out
    assert [next(word for word in line.split() if word in ("made", "done")) for line in printed.splitlines()[1:]] == [
        "made",
        "done",
    ]

    target_folder(tmp_path / "other", "In-the-way", 1).mkdir(parents=True)
    stopping = write(tmp_path / "c.yaml", {"output": "other", "jobs": jobs, "stop_on_failure": True})
    assert [outcome.state for outcome in job.run_batch(stopping)] == ["failed", "skipped"]


def test_one_bar_for_all(tiny: Path, tmp_path: Path) -> None:
    """Also when there is less to do than was planned: a job that fails, one that goes on, one that is done."""

    class Bar(Progress):
        def __init__(self) -> None:
            self.begun: list[tuple[str, int]] = []
            self.notes: list[str] = []
            self.done = self.ended = 0
            self.stages: set[str] = set()

        def begin(self, label: str, total_bytes: int, copied_bytes: int = 0) -> None:
            self.begun.append((label, total_bytes))

        def stage(self, name: str) -> None:
            self.stages.add(name)

        def advance(self, bytes_done: int, original: int = 0, compressed: int = 0) -> None:
            self.done += bytes_done

        def skip(self, bytes_done: int) -> None:
            self.done += bytes_done

        def end(self) -> None:
            self.ended += 1

        def note(self, message: str) -> None:
            self.notes.append(message)

    names = ("a", "b")
    jobs = [{"model": str(tiny), "name": name} for name in names]
    file = write(tmp_path / "b.yaml", {"output": "out", "jobs": jobs, "processes": 1})
    target_folder(tmp_path / "out", "a", 1).mkdir(parents=True)
    for expected in ({"compressing", "sealing"}, {"hashing the source"}):
        bar = Bar()
        job.run_batch(file, progress=bar)
        assert len(bar.begun) == bar.ended == 1
        assert bar.done == bar.begun[0][1]
        assert expected <= bar.stages
        (failed,) = [note for note in bar.notes if "job 1 of 2 failed" in note]
        assert "exists already" in failed


def test_without_ray(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"w8a8sc\[ray\]"):
        job.run_batch(write(tmp_path / "b.yaml", {"jobs": [{"model": str(tiny)}]}), engine="ray")


CLUSTER = """
import sys, time
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
cluster.wait_for_nodes()
print(cluster.address, flush=True)
for line in sys.stdin:
    if line.strip() == "lose":
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        print("lost", flush=True)
    else:
        break
cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_on_a_ray_cluster_that_loses_a_node(tiny: Path, sealed: Callable[[int], Path], tmp_path: Path) -> None:
    """A head and two nodes, each of several processes; one node is killed while jobs run."""
    pytest.importorskip("ray")
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert cluster.stdin and cluster.stdout
    try:
        address = next(line.strip() for line in cluster.stdout if ":" in line)
        jobs = [{"model": str(tiny), "tp": [2], "name": f"Tiny{n}"} for n in range(6)]
        jobs.append({"model": str(tiny), "name": "In-the-way"})
        target_folder(tmp_path / "out", "In-the-way", 1).mkdir(parents=True)
        file = write(tmp_path / "b.yaml", {"output": "out", "jobs": jobs, "processes": 1})
        command = [sys.executable, "-c", "from w8a8sc_tool.cli.main import main; main()", "batch", str(file)]
        running = subprocess.Popen(
            [*command, "--engine", "ray", "--ray-address", address, "--json"], stdout=subprocess.PIPE, text=True
        )
        first = target_folder(tmp_path / "out", "Tiny0", 2)
        for _ in range(600):
            if first.exists() or running.poll() is not None:
                break
            time.sleep(0.1)
        cluster.stdin.write("lose\n")
        cluster.stdin.flush()
        printed, _ = running.communicate(timeout=300)
        assert printed.startswith("["), printed
        outcomes = json.loads(printed)
    finally:
        os.killpg(cluster.pid, signal.SIGTERM)
        cluster.wait()
    assert running.returncode == 1
    # A job whose node is lost just after it was done is "done" when it is started again.
    assert {outcome["state"] for outcome in outcomes[:-1]} <= {"made", "done"}
    assert outcomes[-1]["state"] == "failed" and "exists already" in outcomes[-1]["error"]
    for number in range(6):
        made, expected = digests(target_folder(tmp_path / "out", f"Tiny{number}", 2)), digests(sealed(2))
        assert {k: v for k, v in made.items() if "manifest" not in k} == {
            k: v for k, v in expected.items() if "manifest" not in k
        }


def test_an_output_that_may_not_be_written_to_stops_a_batch_before_its_first_job(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root may do everything, the answer of the system is given by the test."""
    closed = tmp_path / "closed"
    closed.mkdir()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **how: path != closed and real(path, mode, **how))
    monkeypatch.setattr(os, "supports_effective_ids", {os.access})
    batch = tmp_path / "batch.yaml"
    batch.write_text(f"jobs:\n- {{model: {tiny}, output: open}}\n- {{model: {tiny}, output: closed}}\n")
    with pytest.raises(InputError, match="job 2: cannot be written to .Permission denied"):
        job.run_batch(batch)
    assert not (tmp_path / "open").exists()
