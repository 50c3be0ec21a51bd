"""``FakeCloud`` behind a real socket, for what runs in another process."""

from __future__ import annotations

import http.server
import threading
from typing import Any

import httpx

from tests.unit.client.fake_cloud import ENDPOINT, FakeCloud


class FakeServer:
    """Serves ``cloud`` at ``url`` until it is closed."""

    def __init__(self, cloud: FakeCloud) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length") or 0))
                request = httpx.Request(self.command, ENDPOINT + self.path, headers=dict(self.headers), content=content)
                response = cloud.handle(request)
                self.send_response(response.status_code)
                for name, value in response.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(response.content)

            do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 - http.server looks for these names

            def log_message(self, *_: Any) -> None:
                return

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
