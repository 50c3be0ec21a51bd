"""As much of LXD's REST API as making, starting and removing machines needs, on a unix socket."""

from __future__ import annotations

import copy
import hashlib
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

ALIAS_PREFIX = "/1.0/images/aliases/"
STATUS_AFTER = {"start": "Running", "unfreeze": "Running", "stop": "Stopped"}


class Refusal(Exception):
    """An HTTP error of the fake."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class FakeLXD:
    """The daemon: its instances and aliases are plain dictionaries that a test may read and spoil.

    ``failures`` maps an operation's description ("POST /1.0/instances") to errors that its next calls end
    with; ``busy`` counts how often instance operations are refused as busy.
    """

    def __init__(self, folder: Path) -> None:
        self.socket_path = str(folder / "lxd.socket")
        self.instances: dict[str, dict[str, Any]] = {}
        self.aliases: dict[str, str] = {}
        self.failures: dict[str, list[str]] = {}
        self.busy = 0
        self.changes_between: list[Callable[[dict[str, Any]], object]] = []  # each before one whole-instance PUT
        self.log: list[str] = []
        self._operations: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                try:
                    with fake._lock:
                        status, answer = 200, fake.answer(self.command, self.path, body, self.headers.get("If-Match"))
                except Refusal as refusal:
                    status, answer = refusal.status, {"type": "error", "error": refusal.text}
                payload = json.dumps(answer).encode()
                self.send_response(202 if answer["type"] == "async" else status)
                self.send_header("Content-Length", str(len(payload)))
                if self.command == "GET":
                    self.send_header("ETag", fake.version_of(answer))
                self.end_headers()
                self.wfile.write(payload)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do  # noqa: N815 - the names http.server looks for

            def address_string(self) -> str:
                return "unix"

            def log_message(self, format: str, *args: object) -> None:
                """Keep the tests' output quiet."""

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True

        self._server = Server(self.socket_path, Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(timeout=5)
        self._server.server_close()
        Path(self.socket_path).unlink(missing_ok=True)

    def version_of(self, answer: dict[str, Any]) -> str:
        return hashlib.sha256(json.dumps(answer.get("metadata"), sort_keys=True).encode()).hexdigest()

    def answer(self, method: str, url: str, body: bytes, version: str | None) -> dict[str, Any]:
        parts = urlsplit(url)
        path, query = parts.path, parse_qs(parts.query)
        if method != "GET":
            self.log.append(f"{method} {path}")
        if path == "/1.0":
            return _sync({"api_extensions": [], "auth": "trusted", "environment": {}})
        if path.startswith("/1.0/operations/"):
            return _sync(self._take(self._operations, path.split("/")[3]))
        if path.startswith("/1.0/storage-pools/"):
            return _sync({"driver": "btrfs"})
        if path.startswith(ALIAS_PREFIX):
            return _sync({"description": "", "target": self._take(self.aliases, path.removeprefix(ALIAS_PREFIX))})
        if path.startswith("/1.0/instances"):
            return self._instances(method, path, query, json.loads(body) if body else {}, version)
        raise Refusal(404, f"no such thing: {method} {path}")

    def _instances(
        self, method: str, path: str, query: dict[str, list[str]], body: dict[str, Any], version: str | None
    ) -> dict[str, Any]:
        _, _, _, *rest = path.split("/")
        if not rest:
            if method == "GET":
                return _sync(list(self.instances.values()))
            return self._operation(method, path, lambda: self._create(body))
        instance = self._take(self.instances, rest[0])
        match method, rest[1:]:
            case "GET", []:
                return _sync(instance)
            case "GET", ["console"]:
                raise Refusal(500, "open : no such file or directory")
            case "PATCH", []:
                return self._operation(method, path, lambda: _merge(instance, body))
            case "PUT", []:
                if self.changes_between:
                    self.changes_between.pop(0)(instance)
                if version is not None and version != self.version_of(_sync(instance)):
                    raise Refusal(412, "Precondition failed: ETag doesn't match")
                return self._operation(method, path, lambda: instance.update(body))
            case "POST", []:
                return self._operation(method, path, lambda: self._rename(rest[0], body["name"]))
            case "DELETE", []:
                return self._operation(method, path, lambda: self._delete(rest[0]))
            case "PUT", ["state"]:
                return self._operation(method, path, lambda: self._set_power(instance, body["action"]))
        raise Refusal(404, f"no such thing: {method} {path} {query}")

    def _create(self, body: dict[str, Any]) -> None:
        if body["name"] in self.instances:
            raise Refusal(400, f'Instance "{body["name"]}" already exists')
        instance = copy.deepcopy(body)
        self.instances[body["name"]] = instance | {"status": "Stopped"}

    def _rename(self, name: str, new_name: str) -> None:
        if new_name in self.instances:
            raise Refusal(400, f'Instance "{new_name}" already exists')
        self.instances[new_name] = self.instances.pop(name) | {"name": new_name}

    def _delete(self, name: str) -> None:
        if self.instances[name]["status"] != "Stopped":
            raise Refusal(400, "Instance is running")
        del self.instances[name]

    def _set_power(self, instance: dict[str, Any], action: str) -> None:
        if instance["status"] == STATUS_AFTER[action]:
            raise Refusal(400, f"The instance is already {instance['status'].lower()}")
        instance["status"] = STATUS_AFTER[action]

    def _operation(self, method: str, path: str, effect: Any) -> dict[str, Any]:
        error = ""
        failures = self.failures.get(f"{method} {path}", [])
        if self.busy > 0:
            self.busy -= 1
            error = 'Instance is busy running a "stop" operation'
        elif failures:
            error = failures.pop(0)
        else:
            try:
                effect()
            except Refusal as refusal:
                error = refusal.text
        operation_id = f"op-{len(self._operations)}"
        self._operations[operation_id] = {
            "id": operation_id,
            "status_code": 400 if error else 200,
            "err": error,
            "metadata": None,
        }
        return {
            "type": "async",
            "operation": f"/1.0/operations/{operation_id}",
            "metadata": self._operations[operation_id],
        }

    @staticmethod
    def _take(things: dict[str, Any], key: str) -> Any:
        if key not in things:
            raise Refusal(404, "not found")
        return things[key]


def _merge(instance: dict[str, Any], body: dict[str, Any]) -> None:
    for part in ("config", "devices"):
        instance[part] = {**instance.get(part, {}), **body.get(part, {})}


def _sync(metadata: Any) -> dict[str, Any]:
    return {"type": "sync", "status_code": 200, "metadata": metadata}


def running_fake(folder: Path) -> Iterator[FakeLXD]:
    """Yield a fake daemon in ``folder`` (for a fixture)."""
    fake = FakeLXD(folder)
    yield fake
    fake.close()
