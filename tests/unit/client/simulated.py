"""The real application on a simulated cloud, in this process, as the network of SDK and CLI."""

from __future__ import annotations

import httpx

from iaas.api.app import create_app
from iaas.cloud import Cloud
from tests.factories import settle


class SimulatedNetwork(httpx.BaseTransport):
    """Answers as the server does. Time stands in the cloud, and jumps to where all is done after each change."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._inner = httpx.WSGITransport(app=create_app(cloud, proxy_url="http://127.0.0.1:1"))
        self.requests: list[tuple[str, str]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append((request.method, request.url.raw_path.decode()))
        response = self._inner.handle_request(request)
        content = response.read()
        if request.method != "GET":
            settle(self._cloud)
        return httpx.Response(response.status_code, headers=response.headers, content=content)
