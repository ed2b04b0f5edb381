"""Presets and batch files."""

from __future__ import annotations

from .cases import Case, linked, text

PRESET = "preset.yaml"
BATCH = "batch.yaml"

PRESETS = [
    Case("preset: aliases that multiply", "preset", text(PRESET, "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n")),
    Case(
        "preset: a Python object", "preset", text(PRESET, "name: !!python/object/apply:os.system ['touch touched']\n")
    ),
    Case("preset: nested deeply", "preset", text(PRESET, "name: " + "[" * 30_000)),
    Case("preset: a key twice", "preset", text(PRESET, "name: a\nname: b\n")),
    Case("preset: keys nobody knows", "preset", text(PRESET, "name: a\nshell: rm\n")),
    Case("preset: a list", "preset", text(PRESET, "- a\n")),
    Case("preset: wrong types", "preset", text(PRESET, "name: [a]\nmax_ratio: many\n")),
    Case("preset: binary", "preset", text(PRESET, bytes(range(256)))),
    Case("preset: too large", "preset", text(PRESET, "name: a\n" + "# x\n" * 100_000)),
    Case("preset: a merge key", "preset", text(PRESET, "<<: {name: a}\nname: b\nmax_ratio: 7\n")),
    Case(
        "preset: patterns without end",
        "preset",
        text(PRESET, "name: a\nkeep: ['" + "*a" * 5000 + "b']\n"),
        harmless=True,
    ),
    Case("preset: a device", "preset", linked(PRESET, "/dev/zero")),
]

BATCHES = [
    Case("batch: aliases that multiply", "batch", text(BATCH, "a: &a [x,x]\njobs: [*a,*a]\n")),
    Case("batch: a Python object", "batch", text(BATCH, "jobs: !!python/object/apply:os.system ['touch touched']\n")),
    Case("batch: nested deeply", "batch", text(BATCH, "jobs: " + "[" * 30_000)),
    Case("batch: a million jobs", "batch", text(BATCH, "jobs:\n" + "- {model: a}\n" * 1_000_000)),
    Case("batch: shell in a path", "batch", text(BATCH, 'jobs: [{model: "$(touch touched)"}]\n')),
    Case(
        "batch: a model that is a device",
        "batch",
        lambda f: (linked("device", "/dev/zero")(f), text(BATCH, "jobs: [{model: device}]\n")(f)),
    ),
    Case("batch: sizes beyond reason", "batch", text(BATCH, f"jobs: [{{model: ., tp: [{10**30}]}}]\n")),
]
