#!/usr/bin/env python3
"""Check a sharded_state directory that was downloaded or copied.

    python examples/verify_download.py DIRECTORY [--digest blake3:...]

--digest: what its maker published. A manifest's hashes show damage; only a digest from elsewhere shows that nobody
replaced the files and the manifest together. Exit code 0: all is well; 1: it is not; 3: this is no such directory.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from w8a8sc_tool import W8A8SCError, verify


def check(directory: Path, digest: str | None) -> bool:
    """Print what is wrong, and what could not be checked; returns whether nothing is wrong."""
    report = verify(directory)
    for finding in report.findings:
        print(f"wrong: {finding}")
    for gap in report.not_checked:
        print(f"not checked: {gap}")
    sound = report.ok
    if report.has_manifest and sound:  # verify has compared the digest with the rest of the manifest
        manifest = json.loads((directory / "w8a8sc_manifest.json").read_text())
        print(f"{manifest['model']} for TP {report.tp}, {report.tensors} tensors, {report.bytes / 1e9:.2f} GB")
        print(f"digest: {manifest['digest']}")
        if digest is not None and manifest["digest"] != digest:
            print(f"wrong: the digest is not the published one, {digest}")
            sound = False
    elif digest is not None:
        print("wrong: there is no sound manifest whose digest could be compared")
        sound = False
    return sound


def main() -> int:
    parser = argparse.ArgumentParser(description="Check a downloaded sharded_state directory.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--digest", help="the manifest's digest, as its maker published it")
    arguments = parser.parse_args()
    try:
        return 0 if check(arguments.directory, arguments.digest) else 1
    except W8A8SCError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
