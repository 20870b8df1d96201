"""A server on loopback that speaks what was recorded of real ones, and breaks off where it is told to."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CUT = object()


class Answer:
    """One answer: status, pieces of the body (CUT hangs up without ending it), seconds between them."""

    def __init__(self, pieces=(), status=200, kind="application/json", pause=0.0, chunked=True):
        self.pieces, self.status, self.kind, self.pause, self.chunked = list(pieces), status, kind, pause, chunked


def answer_json(value, status=200):
    return Answer([json.dumps(value).encode()], status)


def sse(*events, done=True):
    """Server-sent events of JSON values."""
    pieces = [b"data: " + (e if isinstance(e, bytes) else json.dumps(e).encode()) + b"\n\n" for e in events]
    return [*pieces, b"data: [DONE]\n\n"] if done else pieces


class Fake:
    """routes: `GET /path` → an Answer, or a function of the request's body that gives one."""

    def __init__(self, routes):
        self.routes, self.asked = routes, []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                self.answer(None)

            def do_POST(self):
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, body):
                key = f"{self.command} {self.path}"
                fake.asked.append((key, body, dict(self.headers)))
                found = fake.routes.get(key) or answer_json({"error": "not found"}, 404)
                with contextlib.suppress(OSError):
                    self.give(found(body) if callable(found) else found)
                self.close_connection = True

            def give(self, answer):
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.kind)
                if answer.chunked:
                    self.send_header("Transfer-Encoding", "chunked")
                else:
                    self.send_header("Connection", "close")
                self.end_headers()
                for piece in answer.pieces:
                    if piece is CUT:
                        return
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if answer.chunked else piece)
                    time.sleep(answer.pause)
                if answer.chunked:
                    self.wfile.write(b"0\r\n\r\n")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
