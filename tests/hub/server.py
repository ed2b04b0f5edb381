"""A server on this machine that speaks as much of both hubs' APIs as their clients ask when they download."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

NEWEST = {"main", "master"}


class HubServer(ThreadingHTTPServer):
    """One model. files: content by name, of the revisions main and master; revisions: those of others.

    status, error_code: the answer to everything, if it is not 200. cut: by name, at which byte a connection ends once.
    withheld: names that are listed and not sent; wrong: those that are sent with one byte changed. sent: bytes by name;
    begun: where the answers that sent them began. Both are written before an answer's first byte: a client may have
    read the last one, and a test look, before the thread that answers goes on.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, model: str, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model = model
        self.files = files
        self.revisions: dict[str, dict[str, bytes]] = {}
        self.status = 200
        self.error_code = ""
        self.cut: dict[str, int] = {}
        self.withheld: set[str] = set()
        self.wrong: set[str] = set()
        self.sent: Counter[str] = Counter()
        self.begun: dict[str, list[int]] = {}
        self._counting = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections that clients end are no news."""

    def count(self, name: str, begin: int, end: int) -> int:
        """Note that bytes begin to end of a file are sent now; return where the connection ends."""
        with self._counting:
            cut = self.cut.get(name)
            if cut is not None and begin < cut < end:
                end = self.cut.pop(name)
            self.begun.setdefault(name, []).append(begin)
            self.sent[name] += end - begin
        return end

    def at(self, revision: str) -> dict[str, bytes] | None:
        if revision in NEWEST:
            return self.files
        others = [self.files, *self.revisions.values()]
        return self.revisions.get(revision) or next((files for files in others if commit_of(files) == revision), None)


def commit_of(files: dict[str, bytes]) -> str:
    """What stands for a commit: 40 hexadecimal digits that change with the content."""
    return hashlib.sha1("".join(f"{name} {_blob(data)}\n" for name, data in sorted(files.items())).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), {key: values[0] for key, values in parse_qs(parts.query).items()}
        model = re.escape(self.server.model)
        if path == "/api/v1/repos/internalAccelerationInfo":
            self._json({"Code": 200, "Data": {}})
        elif self.server.status != 200:
            self._refuse(self.server.status, self.server.error_code)
        elif re.fullmatch(rf"/api/v1/models/{model}/repo/files", path):
            self._modelscope_listing(query)
        elif re.fullmatch(rf"/api/v1/models/{model}/repo", path):
            self._file(self.server.at(query["Revision"]), query["FilePath"])
        elif match := re.fullmatch(rf"/api/models/{model}(?:/revision/(.+))?", path):
            self._huggingface_model(match[1] or "main")
        elif match := re.fullmatch(rf"/api/models/{model}/tree/([^/]+)", path):
            self._huggingface_tree(match[1])
        elif match := re.fullmatch(rf"/{model}/resolve/([^/]+)/(.+)", path):
            self._file(self.server.at(match[1]), match[2])
        else:
            self._refuse(404, "RepoNotFound")

    def _modelscope_listing(self, query: dict[str, str]) -> None:
        files = self.server.at(query["Revision"])
        if files is None:
            self._refuse(404, "")
            return
        entries = [
            {"Path": name, "Name": name, "Type": "blob", "Size": len(data), "Sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
            if name.startswith(query.get("Root", ""))
        ]
        folders = {name.rpartition("/")[0] for name in files if "/" in name}
        entries += [{"Path": name, "Name": name, "Type": "tree", "Size": 0} for name in sorted(folders)]
        self._json({"Code": 200, "Success": True, "Data": {"Files": entries}})

    def _huggingface_model(self, revision: str) -> None:
        files = self.server.at(revision)
        if files is None:
            self._refuse(404, "RevisionNotFound")
            return
        siblings = [{"rfilename": name, "size": len(data), "blobId": _blob(data)} for name, data in files.items()]
        self._json(
            {"id": self.server.model, "sha": commit_of(files), "siblings": siblings, "private": False, "tags": []}
        )

    def _huggingface_tree(self, revision: str) -> None:
        files = self.server.at(revision) or {}
        self._json([{"type": "file", "path": n, "size": len(d), "oid": _blob(d)} for n, d in files.items()])

    def _file(self, files: dict[str, bytes] | None, name: str) -> None:
        if files is None or name not in files or name in self.server.withheld:
            self._refuse(404, "EntryNotFound")
            return
        data = files[name]
        commit, etag = commit_of(files), _blob(data)
        if name in self.server.wrong:
            data = data[:-1] + bytes([data[-1] ^ 1])
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        begin = int(wanted[1]) if wanted else 0
        end = min(int(wanted[2]) + 1, len(data)) if wanted and wanted[2] else len(data)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        self.send_header("Content-Length", str(end - begin))
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        if self.command == "HEAD":
            self.end_headers()
            return
        stop = self.server.count(name, begin, end)
        self.close_connection |= stop < end
        self.end_headers()
        self.wfile.write(data[begin:stop])

    def _json(self, content: object) -> None:
        self._body(200, json.dumps(content).encode())

    def _refuse(self, status: int, code: str) -> None:
        self._body(status, b'{"Code": 0, "Message": "no", "error": "no"}', {"X-Error-Code": code} if code else {})

    def _body(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@lru_cache
def _blob(data: bytes) -> str:
    """A file's name in git, which is its ETag."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
