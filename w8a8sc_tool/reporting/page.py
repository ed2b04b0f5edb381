"""The report as HTML: tables and pictures put into the template, every text escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from .._version import VERSION
from ..checking.verify import NOT_READ
from ..errors import Problem
from ..io.amounts import size
from ..jobs.batch import Outcome
from ..jobs.inspect import ModuleRow
from ..layouts import DEFAULT_TARGET, UNCOMPRESSED
from ..serving import Estimate
from ..serving.command import quoted
from ..text import one_line
from . import pictures
from .figures import Map, PerToken, State, letters_of, map_of, per_token, state_of, uncompressed
from .subjects import Subject
from .svg import drawing

MARK: Final = "<!DOCTYPE html>\n<!-- a report of w8a8sc -->\n"
"""The beginning of every report, by which one is known."""

_MOST_CELLS: Final = 6000  # of all maps together; one takes about 200 bytes, in picture and table
_MOST_OUTSIDE: Final = 2000  # linear layers outside of the decoder, of all subjects together
_MOST_PROBLEMS: Final = 40  # shown per subject
_MOST_NAMES: Final = 200  # modules named per reason
_MOST_RANKS: Final = 64  # rows of a table of ranks
_LONGEST: Final = 600  # characters of one text that is not a command


@dataclass(frozen=True)
class Content:
    """All that a page is made of. tree_problems: of what directories are together."""

    subjects: Sequence[Subject]
    outcomes: Sequence[Outcome] = ()
    tree_problems: Sequence[Problem] = ()
    not_checked: Sequence[str] = ()
    written: datetime = field(default_factory=datetime.now)

    @property
    def ok(self) -> bool:
        whole = not self.tree_problems and not any(subject.problems for subject in self.subjects)
        return whole and all(outcome.ok for outcome in self.outcomes)


def render(content: Content) -> str:
    """The page of a report; needs matplotlib and Jinja2."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    def shown(value: Any) -> Any:
        """Text as it is shown: on one line, without what is not to be shown, and of a length that can be read."""
        if not isinstance(value, str) or isinstance(value, Markup):
            return value
        value = one_line(value)
        return value if len(value) <= _LONGEST else f"{value[: _LONGEST - 40]} … {value[-36:]}"

    environment = Environment(
        loader=PackageLoader(__name__.rpartition(".")[0]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"size": size, "markup": Markup, "whole": lambda text: escape(one_line(text))}
    with drawing():
        parts = _parts(content)
    text: str = environment.get_template("page.html").render(parts)
    return MARK + text


def _parts(content: Content) -> dict[str, Any]:
    """What the template is given."""
    subjects = content.subjects
    labels = labels_of(subjects)
    known = [(subject, label) for subject, label in zip(subjects, labels) if subject.inspection is not None]
    return {
        "version": VERSION,
        "written": content.written.strftime("%Y-%m-%d %H:%M"),
        "title": ", ".join(dict.fromkeys(subject.name for subject in subjects)) or "batch",
        "content": content,
        "subjects": list(zip(range(1, len(subjects) + 1), subjects, labels)),
        "most_problems": _MOST_PROBLEMS,
        "read": _read(subjects),
        "glance": [_glance(subject, label) for subject, label in zip(subjects, labels)],
        "checks": _side_by_side([_checks(subject) for subject in subjects]),
        "origin": list(_origin(subjects)),
        "labels": labels,
        "maps": _maps(known),
        "bytes": _bytes(known),
        "tokens": _tokens(known),
        "memory": _memory(known),
        "commands": [(label, list(_commands(subject))) for subject, label in zip(subjects, labels)],
        "not_checked": list(_not_checked(content, labels)),
    }


def _read(subjects: Sequence[Subject]) -> str:
    """What reading says of subjects without problems: "proved", "read", or "" if not all of them were read."""
    if not subjects or not all(item.verification and item.verification.contents_read for item in subjects):
        return ""
    return "proved" if all(item.manifest for item in subjects) else "read"


def labels_of(subjects: Sequence[Subject]) -> list[str]:
    """A short name for every subject, no two alike: of one model's sizes, the sizes."""
    names = {subject.name for subject in subjects}
    labels = []
    for subject in subjects:
        sort = "checkpoint" if subject.kind == "checkpoint" else f"TP {subject.tp or '?'}"
        labels.append(sort if len(names) == 1 else f"{pictures.shortened(subject.name)} {sort}")
    return [
        label if labels.count(label) == 1 else f"{label} ({labels[: number + 1].count(label)})"
        for number, label in enumerate(labels)
    ]


def _glance(subject: Subject, label: str) -> dict[str, Any]:
    """A subject in one row."""
    manifest, inspection = subject.manifest, subject.inspection
    token = per_token(subject)
    ratio = manifest.weight_ratio if manifest else None
    share = manifest.compressed_share if manifest else None
    done = sum(layer.quantization in UNCOMPRESSED for layer in manifest.layers) if manifest else 0
    return {
        "label": label,
        "path": str(subject.path),
        "kind": subject.kind,
        "problems": len(subject.problems),
        "state": _state(subject),
        "bytes": size(inspection.bytes) if inspection else "not known",
        "rank": size(max(manifest.rank_bytes)) if manifest else "",
        "ratio": f"{ratio:.3f}" if ratio is not None else "",
        "layers": f"{done} of {len(manifest.layers)}" if manifest else "",
        "share": f"{share:.1%}" if share is not None else "",
        "token": f"{1 - token.after / token.before:.0%} less" if token and token.before else "",
        "longest": list(_longest(subject)),
    }


def _state(subject: Subject) -> str:
    if subject.problems:
        return "damaged" if subject.kind == "directory" else "cannot be used"
    if subject.kind == "checkpoint":
        return "readable"
    return "sealed" if subject.manifest is not None else "no manifest"


def _longest(subject: Subject) -> Iterator[str]:
    """Tokens of the longest sequence, per size."""
    for estimate in subject.estimates:
        size_ = f"TP {estimate.tp}: " if subject.kind == "checkpoint" else ""
        yield size_ + _length(estimate)
        if estimate.with_plugin is not None:
            yield f"with the plugin: {_length(estimate.with_plugin)}"


def _length(estimate: Estimate, *, compressed_masks: bool = False) -> str:
    length = estimate.largest_len(compressed_masks=compressed_masks)
    return f"{length} tokens" if length else "does not fit"


def _checks(subject: Subject) -> list[tuple[str, str]]:
    """What is known of a subject's verification, and by what."""
    report = subject.verification
    if report is None:
        found = "read, and planned" if subject.plans else "could not be read whole"
        return [("headers, config.json, description", found), ("values of the weights", "not read by this report")]
    if not report.contents_read:
        read = "not read by this report"
    else:
        read = "every byte was read for this report" + ("" if report.ok else ": see the problems")
    against = "not compared by this report"
    if report.against_source is not None:
        against = f"{report.against_source}: {'every tensor is what it becomes' if report.ok else 'see the problems'}"
    return [
        ("manifest", _manifest(subject)),
        ("sizes and structure", "as they have to be" if report.ok else "see the problems"),
        ("bytes", read),
        ("against its source", against),
        ("checks made before", subject.said or "none that this report knows of: a manifest does not record any"),
    ]


def _side_by_side(columns: Sequence[list[tuple[str, str]]]) -> list[tuple[str, list[str]]]:
    """Rows of a table with a column per subject, of what each says under the same titles."""
    titles = dict.fromkeys(title for column in columns for title, _ in column)
    known = [dict(column) for column in columns]
    return [(title, [column.get(title, "") for column in known]) for title in titles]


def _manifest(subject: Subject) -> str:
    manifest = subject.manifest
    if manifest is None:
        damaged = subject.verification is not None and subject.verification.has_manifest
        return "there is one, which cannot be trusted" if damaged else "there is none: bytes cannot be proved"
    tensors = sum(len(file.tensors) for file in manifest.rank_files)
    return f"whole by its own digest; has a hash of each of {tensors} tensors and {len(manifest.files)} other files"


def _origin(subjects: Sequence[Subject]) -> Iterator[tuple[str, list[str]]]:
    """Rows of what they were made of, and by what; a row that says nothing of any is left out."""
    for title, values in (
        ("path", [str(subject.path) for subject in subjects]),
        ("model", [subject.name for subject in subjects]),
        ("architecture", [subject.inspection.architecture if subject.inspection else "" for subject in subjects]),
        ("made by", [_made_by(subject) for subject in subjects]),
        ("made of the checkpoint", [subject.manifest.source if subject.manifest else "" for subject in subjects]),
        ("made for vLLM Ascend", [_option(subject, "target", DEFAULT_TARGET) for subject in subjects]),
        ("preset", [_option(subject, "preset") for subject in subjects]),
        ("left W8A8S from ratio", [_option(subject, "max_ratio") for subject in subjects]),
        ("kept uncompressed as asked", [_option(subject, "keep") for subject in subjects]),
        ("backend", [_option(subject, "backend") for subject in subjects]),
        ("digest of the manifest", [subject.manifest.digest if subject.manifest else "" for subject in subjects]),
    ):
        if any(values):
            yield title, [value or "not known" for value in values]


def _made_by(subject: Subject) -> str:
    manifest = subject.manifest
    if manifest is None:
        return ""
    return f"{manifest.tool} {manifest.tool_version}, codec {manifest.codec_version}"


def _option(subject: Subject, key: str, default: object = "") -> str:
    if subject.manifest is None:
        return ""
    value = subject.manifest.options.get(key, default)
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def _maps(known: Sequence[tuple[Subject, str]]) -> dict[str, Any]:
    """A map per subject under one scale of colours, and what its letters mean."""
    left = _MOST_CELLS
    maps: list[tuple[Subject, str, Map]] = []
    for subject, label in known:
        content = map_of(subject, left)
        left -= len(content.cells)
        maps.append((subject, label, content))
    cells = [row for _, _, content in maps for row in content.cells.values()]
    letters = letters_of(cells)
    scale = pictures.scale_of(row.ratio or 0 for row in cells if state_of(row) is None)
    return {
        "scale": scale,
        "states": [(letter, state, _members(maps, state)) for state, letter in letters.items()],
        "most_names": _MOST_NAMES,
        "of": [
            {
                "label": label,
                "map": content,
                "svg": pictures.map_picture(content, scale, letters, f"map{number}", f"Ratios of {label}")
                if content.cells
                else "",
                "headings": [pictures.shortened(column) for column in content.columns],
                "rows": [(layer, [_cell(row, scale, letters) for row in rows]) for layer, rows in content.rows()],
                "outside": len(_outside(subject)),
                "others": [_other(row) for row in _outside(subject)[: min(_MOST_NAMES, _MOST_OUTSIDE // len(maps))]],
            }
            for number, (subject, label, content) in enumerate(maps)
        ],
    }


def _members(maps: Sequence[tuple[Subject, str, Map]], state: State) -> list[tuple[str, list[str]]]:
    """Per subject, the names of the modules in a state."""
    members = [
        (label, [row.name for row in content.cells.values() if state_of(row) == state]) for _, label, content in maps
    ]
    return [(label, names) for label, names in members if names]


def _cell(row: ModuleRow | None, scale: pictures.Scale | None, letters: dict[State, str]) -> tuple[str, str]:
    """A cell of the table: its class and its text."""
    if row is None:
        return "", ""
    state = state_of(row)
    if state is not None:
        tried = f" {row.ratio:.3f}" if row.ratio is not None else ""
        return "plain", f"{letters[state]}{tried}"
    return (f"c{scale.number(row.ratio or 0)}" if scale else ""), f"{row.ratio:.3f}"


def _outside(subject: Subject) -> list[ModuleRow]:
    """Linear layers that stand outside the decoder's layers: a tower's."""
    return [row for row in subject.rows if row.layer < 0 and row.linear]


def _other(row: ModuleRow) -> tuple[str, str, str]:
    return row.name, pictures.spoken(row), size(row.bytes)


def _bytes(known: Sequence[tuple[Subject, str]]) -> dict[str, Any]:
    """Bytes by group and by rank."""
    inspections = [(subject, label, subject.inspection) for subject, label in known if subject.inspection is not None]
    totals = [inspection.totals() for _, _, inspection in inspections]
    groups = {
        group: [total.get(group, (0, 0)) for total in totals]
        for group in dict.fromkeys(group for total in totals for group in total)
    }
    labels = [label for _, label, _ in inspections]
    return {
        "svg": pictures.groups_picture(labels, {g: [b for _, b in v] for g, v in groups.items()}, "bytes")
        if groups
        else "",
        "labels": labels,
        "groups": groups,
        "sums": [inspection.bytes for _, _, inspection in inspections],
        "uncompressed": [_uncompressed_bytes(inspection.modules, subject.tp) for subject, _, inspection in inspections],
        "files": [_file_bytes(subject) for subject, _, _ in inspections],
        "ranks": [
            (label, sorted({group for rank in inspection.ranks for group in rank}, reverse=True), inspection.ranks)
            for _, label, inspection in inspections
            if inspection.ranks
        ],
        "most_ranks": _MOST_RANKS,
    }


def _uncompressed_bytes(rows: Sequence[ModuleRow], tp: int) -> str:
    sizes = [uncompressed(row, tp) for row in rows]
    return "not known" if None in sizes else size(sum(filter(None, sizes)))


def _file_bytes(subject: Subject) -> str:
    manifest = subject.manifest
    if manifest is None:
        return "not known"
    return size(manifest.total_bytes)


def _tokens(known: Sequence[tuple[Subject, str]]) -> dict[str, Any]:
    """Bytes that a token reads, of the directories of which that is known."""
    of: list[tuple[Subject, str, PerToken]] = []
    for subject, label in known:
        token = per_token(subject)
        if token is not None and token.before:
            of.append((subject, label, token))
    labels, tokens = [label for _, label, _ in of], [token for _, _, token in of]
    tps = [subject.tp for subject, _, _ in of]
    return {
        "svg": pictures.tokens_picture(labels, tokens, tps, "tokens") if of else "",
        "rows": list(zip(labels, tokens, tps)),
    }


def _memory(known: Sequence[tuple[Subject, str]]) -> dict[str, Any]:
    """What fits on a chip of the usual size, a row per size, with and without the plugin."""
    rows: list[tuple[str, Estimate]] = []
    for subject, label in known:
        for estimate in subject.estimates:
            name = label if subject.kind == "directory" else f"{label}, TP {estimate.tp}"
            rows.append((name, estimate))
            if estimate.with_plugin is not None:
                rows.append((f"{name}, plugin", estimate.with_plugin))
    return {
        "svg": pictures.memory_picture([name for name, _ in rows], [item for _, item in rows], "memory")
        if rows
        else "",
        "rows": [(name, item, _length(item), _length(item, compressed_masks=True)) for name, item in rows],
        "chip": rows[0][1].chip / (1 << 30) if rows else 0,
    }


def _commands(subject: Subject) -> Iterator[tuple[str, str]]:
    """What to do with a subject, and the command for it."""
    path = quoted(str(subject.path))
    if subject.kind == "checkpoint":
        if subject.plans:
            sizes = " ".join(f"--tp {plan.tp}" for plan in subject.plans)
            yield "compress it", f"w8a8sc compress {path} {sizes}"
            yield "serve it as it is", f"w8a8sc serve {path} -- --tensor-parallel-size {subject.plans[0].tp}"
        return
    sealed = subject.manifest is not None
    yield "prove every byte of it" if sealed else "check what can be checked of it", f"w8a8sc verify {path}"
    if subject.problems:
        return
    if subject.advice is not None and subject.advice.command is None:
        return
    yield "serve it, with the options that 310P needs", f"w8a8sc serve {path}"
    if subject.advice is not None and subject.advice.command is not None:
        yield "serve it without w8a8sc on the host", subject.advice.command
    yield "serve it in a container: prints the command", f"w8a8sc serve {path} --container"


_ALWAYS: Final = (
    "nothing was run: neither vLLM, nor an NPU, nor the bundled runtime (w8a8sc generate does)",
    "how good the model's answers are: compression does not change weights, quantization did before",
    "activations and what a host's software takes of a chip are estimates, all else in the table of memory is counted",
)


def _not_checked(content: Content, labels: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """What was not checked, and of which subjects; none: of all."""
    gaps: dict[str, list[str]] = {}
    for subject, label in zip(content.subjects, labels):
        report = subject.verification
        for gap in report.not_checked if report is not None else ["the values of a checkpoint's weights"]:
            text = "the bytes of tensors and of side files (w8a8sc verify reads them)" if gap == NOT_READ else gap
            gaps.setdefault(text, []).append(label)
    for text, of in gaps.items():
        yield text, [] if len(of) == len(labels) else of
    yield from ((text, []) for text in dict.fromkeys(content.not_checked))
    yield from ((text, []) for text in _ALWAYS)
