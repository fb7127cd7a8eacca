"""A stand-in for the server of W&B, which cannot run here: it takes what the real `wandb sync` sends, and keeps it."""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler
from typing import Any

from http_server import Loopback

#: As much of an answer as `wandb sync` needs, to whatever it asks.
ANSWER = {
    "viewer": {"id": "1", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}},
    "serverInfo": {"cliVersionInfo": {"max_cli_version": "9.9.9"}, "latestLocalVersionInfo": None},
    "upsertBucket": {
        "bucket": {
            "id": "1", "name": "run", "displayName": "run", "description": "", "config": "{}", "sweepName": None,
            "project": {"id": "1", "name": "project", "entity": {"id": "1", "name": "me"}}, "historyLineCount": 0,
        },
        "inserted": True,
    },
    "model": {"bucket": None},
}  # fmt: skip


class WandbServer(Loopback):
    """Serves on a free port of 127.0.0.1 inside its ``with`` block.

    Attributes
    ----------
    url : its address.
    lines : what was sent of each run, by its id and the name of the file: the objects of its lines.
    """

    def __init__(self) -> None:
        self.lines: dict[str, dict[str, list[dict[str, Any]]]] = {}
        received = self.lines

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if streamed := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
                    for name, file in (json.loads(body).get("files") or {}).items():
                        lines = received.setdefault(streamed[1], {}).setdefault(name, [])
                        lines += [json.loads(line) for line in file["content"] if line.startswith("{")]
                answer = json.dumps({"data": ANSWER} if self.path == "/graphql" else {}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_PUT = do_POST

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        super().__init__(Handler)
        self.url = f"http://127.0.0.1:{self.port}"
