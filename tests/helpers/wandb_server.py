"""As much of a wandb server as a run needs to start, to go on and to be uploaded."""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """Answers on a free port of this machine; `silent` lets it accept, and say nothing."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.history: list[dict[str, Any]] = []
        """Lines of the run's history, as uploaded."""
        self.runs: set[str] = set()
        """Ids of runs."""
        self.silent = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self) -> None:
        if self.server.silent.is_set():
            threading.Event().wait(600)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if body.startswith(b"\x1f\x8b"):
            body = gzip.decompress(body)
        answer: dict[str, Any] = {}
        if self.path.endswith("/graphql"):
            question = json.loads(body)
            answer = {"data": self._data(question["query"], question.get("variables") or {})}
        elif self.path.endswith("/file_stream"):
            part = json.loads(body).get("files", {}).get("wandb-history.jsonl")
            if part:  # lines from `offset` on are written over
                lines = [json.loads(line) for line in part["content"]]
                self.server.history[part["offset"] :] = lines
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _data(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "p", "name": "test", "entity": {"id": "e", "name": "somebody"}}
        history = self.server.history
        if "mutation UpsertBucket" in query:
            self.server.runs.add(variables["name"])
            bucket = {"id": "b", "name": variables["name"], "displayName": "", "config": "{}"}
            count = {"historyLineCount": len(history)}
            return {"upsertBucket": {"bucket": bucket | count | {"project": project}}}
        if "query RunResumeStatus" in query:
            if variables["name"] not in self.server.runs:
                return {"model": project | {"bucket": None}}
            bucket = {
                "id": "b",
                "name": variables["name"],
                "historyLineCount": len(history),
                "eventsLineCount": 0,
                "logLineCount": 0,
                "historyTail": json.dumps([json.dumps(line) for line in history[-1:]]),
                "eventsTail": "[]",
                "summaryMetrics": "{}",
                "config": "{}",
                "wandbConfig": '{"t": 1}',
            }
            return {"model": project | {"bucket": bucket}}
        if "mutation CreateRunFiles" in query:
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}}
        if "query Viewer" in query:
            return {"viewer": {"id": "u", "entity": "somebody", "username": "somebody"}}
        return {}
