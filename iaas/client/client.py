"""The way in: one client for one cloud and one token."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from iaas.client.address_reservations import AddressReservations
from iaas.client.capabilities import Capabilities, Health
from iaas.client.catalog import Flavors, Host, Image, KeyPairs, Zones
from iaas.client.collection import Collection
from iaas.client.credentials import Credentials, find_credentials
from iaas.client.doctor import Doctor
from iaas.client.events import Events
from iaas.client.identity import AccessKeys, APITokens, Projects
from iaas.client.instances import Instances
from iaas.client.jobs import Jobs
from iaas.client.nics import NICs
from iaas.client.quotas import Quotas
from iaas.client.reachability import Reachability
from iaas.client.resource import decode
from iaas.client.subnets import Subnets
from iaas.client.transport import Param, Transport
from iaas.client.vpcs import VPCs

if TYPE_CHECKING:
    import httpx


class Client:
    """A cloud, seen through its native API; safe to share between threads, closed by ``with`` or ``close()``.

    Args:
        endpoint: URL of the server. What is not given is looked up: see ``find_credentials``.
        token: API token.
        credentials_file: instead of ``$IAAS_CREDENTIALS`` and the default one.
        timeout_s: how long one request may take (waits take their own limits).
        max_retries: further tries when the server could not be reached, or asked to come again (``Retry-After``).
        http: a stand-in for the network, such as ``httpx.MockTransport`` (tests).

    Raises:
        ConfigurationError: no endpoint is known, or what was found cannot be used.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        token: str | None = None,
        *,
        credentials_file: str | os.PathLike[str] | None = None,
        timeout_s: float = 30.0,
        max_retries: int = 3,
        http: httpx.BaseTransport | None = None,
    ) -> None:
        credentials = find_credentials(endpoint, token, credentials_file=credentials_file)
        self.transport = Transport(credentials, timeout_s=timeout_s, max_retries=max_retries, http=http)
        self.instances = Instances(self)
        self.vpcs = VPCs(self)
        self.subnets = Subnets(self)
        self.nics = NICs(self)
        self.address_reservations = AddressReservations(self)
        self.reachability = Reachability(self)
        self.images: Collection[Image] = Collection(self, Image)
        self.flavors = Flavors(self)
        self.key_pairs = KeyPairs(self)
        self.zones = Zones(self)
        self.hosts: Collection[Host] = Collection(self, Host)
        self.projects = Projects(self)
        self.api_tokens = APITokens(self)
        self.access_keys = AccessKeys(self)
        self.quotas = Quotas(self)
        self.jobs = Jobs(self)
        self.events = Events(self)
        self.doctor = Doctor(self)

    @property
    def credentials(self) -> Credentials:
        """Where this client goes, and as whom."""
        return self.transport.credentials

    def capabilities(self) -> Capabilities:
        """Return what the server and its backend can do; needs no token."""
        answer = self.request("GET", "/v1/capabilities")
        return decode(Capabilities, answer, raw=answer)

    def health(self) -> Health:
        """Return how the server is; needs no token."""
        answer = self.request("GET", "/v1/health")
        return decode(Health, answer, raw=answer)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Param] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """Return the JSON answer to any call of the API, also to one that this SDK has no verb for.

        Raises:
            APIError: the server refused.
            ConnectionFailed: it could not be reached.
        """
        return self.transport.request(method, path, params=params, body=body, headers=headers, timeout_s=timeout_s)

    def close(self) -> None:
        """Let go of the connections."""
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
