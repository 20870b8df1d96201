"""A Hub on the loopback: the API, files with ranges, redirects to a second host, and every way to misbehave."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import unquote, urlsplit

COMMIT = hashlib.sha1(b"first").hexdigest()


class FakeHub:
    """Serves `repositories[name][file] = bytes`.

    faults: path suffix → list of faults, consumed one a request (the last one stays): a status, or one of
        `reset`, `drip`, `silent`, `short`, `html`, `no-range`, `loop`, `evil-range`, or a (status, headers) pair.
    requests: (path, headers, served by which host) of every request.
    cdn: whether files under `resolve` redirect to a second host, as large files do.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.facts: dict[str, dict[str, object]] = {}
        self.faults: dict[str, list[object]] = {}
        self.requests: list[tuple[str, dict[str, str], str]] = []
        self.cdn = False
        self.sent = 0
        self._servers = [self._start("hub"), self._start("cdn")]
        self.url, self.cdn_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.requests]

    def _start(self, role: str) -> ThreadingHTTPServer:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub, Handler.role = hub, role
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def fault(self, path: str) -> object:
        for suffix, faults in self.faults.items():
            if path.endswith(suffix) and faults:
                return faults.pop(0) if len(faults) > 1 else faults[0]
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    role: str
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((path, dict(self.headers.items()), self.role))
        self.close_connection = True
        fault = self.hub.fault(path)
        if fault is not None and self._misbehave(fault, path):
            return
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            self._describe("/".join(parts[2 : parts.index("revision")]), parts[-1])
        elif "resolve" in parts:
            place = parts.index("resolve")
            self._file("/".join(parts[:place]), "/".join(parts[place + 2 :]), fault)
        else:
            self._reply(404, b"", {})

    def _misbehave(self, fault: object, path: str) -> bool:
        if isinstance(fault, tuple):
            self._reply(fault[0], b"{}", fault[1])
        elif isinstance(fault, int):
            self._reply(fault, b"{}", {})
        elif fault == "reset":
            self.connection.close()
        elif fault == "silent":
            time.sleep(1.5)
        elif fault == "html":
            self._reply(200, b"<html>Log in to the network</html>", {"Content-Type": "text/html; charset=utf-8"})
        elif fault == "loop":
            self._reply(302, b"", {"Location": path})
        elif fault == "drip":
            self._head(200, 10_000, {})
            for _ in range(100):
                self.wfile.write(b"{")
                self.wfile.flush()
                time.sleep(0.05)
        else:
            return False
        return True

    def _describe(self, name: str, revision: str) -> None:
        files = self.hub.repositories.get(name)
        if files is None:
            self._reply(401, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        if revision not in {"main", "v1", COMMIT}:
            self._reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [{"rfilename": file, "size": len(data)} for file, data in files.items()]
        answer = {"id": name, "sha": COMMIT, "siblings": siblings, **self.hub.facts.get(name, {})}
        self._reply(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, file: str, fault: object) -> None:
        data = self.hub.repositories.get(name, {}).get(file)
        if data is None:
            self._reply(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif self.hub.cdn and self.role == "hub":
            self._reply(302, b"", {"Location": f"{self.hub.cdn_url}{self.path}"})
        else:
            self._range(data, fault)

    def _range(self, data: bytes, fault: object) -> None:
        wanted = self.headers.get("Range")
        if not wanted or fault == "no-range":
            self._reply(200, data, {}, cut=fault == "short")
            return
        first, last = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
        last = min(last, len(data) - 1)
        if first >= len(data):
            self._reply(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        shown = first + 7 if fault == "evil-range" else first
        headers = {"Content-Range": f"bytes {shown}-{last}/{len(data)}"}
        self._reply(206, data[first : last + 1], headers, cut=fault == "short")

    def _reply(self, status: int, body: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
        self._head(status, len(body), headers)
        body = body[: len(body) // 2] if cut else body
        try:
            for start in range(0, len(body), 2**16):
                self.hub.sent += len(body[start : start + 2**16])
                self.wfile.write(body[start : start + 2**16])
        except OSError:
            pass

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
