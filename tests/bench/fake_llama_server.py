"""Stands in for `llama-server` on the path: a model of no weights that behaves as FAKE_LLAMA says.

FAKE_LLAMA: `well`, `never` ready, `dies` at the start, `falls` in the middle of the third request.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOW = os.environ.get("FAKE_LLAMA", "well")
ASKED = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        body = {"/health": {"status": "ok"}, "/props": {"default_generation_settings": {}, "build_info": "b9 fake"}}
        raw = json.dumps(body.get(self.path, {})).encode()
        self.send_response(503 if HOW == "never" else 200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_POST(self):
        ASKED.append(1)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        each = float(os.environ.get("FAKE_SECONDS", "0.002"))
        time.sleep(5 * each)
        for number in range(body["n_predict"]):
            time.sleep(each)
            if HOW == "falls" and len(ASKED) == 3 and number == 2:
                print("error: the fake fell", file=sys.stderr, flush=True)
                os._exit(9)
            self.say({"content": " x", "tokens": [number], "stop": False})
        count = body["n_predict"]
        self.say({
            "content": "", "stop": True, "stop_type": "limit", "tokens_predicted": count,
            "tokens_evaluated": len(body["prompt"]),
            "timings": {"prompt_n": len(body["prompt"]), "prompt_ms": 5 * each * 1e3, "predicted_n": count,
                        "predicted_ms": (count - 1) * each * 1e3, "predicted_per_token_ms": each * 1e3},
        })  # fmt: skip
        self.close_connection = True

    def say(self, event):
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.flush()


if "--version" in sys.argv:
    print("version: 9 (fake)")
    sys.exit(0)
if HOW == "dies":
    print("error: no memory for this model", file=sys.stderr)
    sys.exit(1)
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
