"""What the model is held against: a cloud behind its API, on the simulated backend and a clock moved by hand."""

from __future__ import annotations

import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from iaas.api.app import create_app
from iaas.cloud import Cloud
from iaas.drivers.interface import HostReport
from iaas.kernel.clock import CloudClock
from iaas.resources.common import Role
from tests.api.calling import Caller
from tests.factories import START, TOKEN, make_cloud, principal_in, settle

ZONE = "zone-1"
RETENTION = timedelta(minutes=10)
HOSTS = tuple(HostReport(name=f"host-{number}", zone=ZONE, vcpus=4, memory_mib=1536, disk_gib=12) for number in (1, 2))


class Subject(Protocol):
    """A cloud that can be called, moved on and restarted."""

    cloud: Cloud
    admin: Caller
    member: Caller
    stranger: Caller
    project: str
    is_simulated: bool
    """Of both kinds, in any shape, on a clock moved by hand. Else: container machines, and real time."""

    def settle(self) -> None:
        """Let every job come to its end."""

    def advance(self, seconds: float) -> None:
        """Move the clock, and let happen what is due then."""

    def restart(self) -> None:
        """Close the cloud and open it again on the same files."""

    def close(self) -> None: ...


def callers_of(cloud: Cloud, project: str, tokens: dict[str, str]) -> tuple[Caller, Caller, Caller]:
    """Return operator, member of ``project`` and stranger; ``tokens`` keeps those of the last two over a restart."""
    if not tokens:
        for name in (project, "others"):
            tokens[name] = principal_in(cloud, name, Role.MEMBER)[1]
    app = create_app(cloud)
    return Caller(app, TOKEN), Caller(app, tokens[project]), Caller(app, tokens["others"])


class SimSubject:
    project = "team"
    is_simulated = True

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="iaas-model-")
        self._tokens: dict[str, str] = {}
        self._starts = 0
        self._open(START)

    def _open(self, now: datetime) -> None:
        self._starts += 1
        self.cloud = make_cloud(
            Path(self._folder.name),
            clock=CloudClock(start=now, scale=0),
            seed=self._starts,
            zones=(ZONE,),
            hosts=HOSTS,
            retention_s=RETENTION.total_seconds(),
        )
        self.cloud.executor.recover()
        self.admin, self.member, self.stranger = callers_of(self.cloud, self.project, self._tokens)

    def settle(self) -> None:
        settle(self.cloud)

    def advance(self, seconds: float) -> None:
        self.cloud.clock.advance(seconds)
        self.cloud.executor.run_due()

    def restart(self) -> None:
        now = self.cloud.clock.now()
        self.cloud.close()
        self._open(now)

    def close(self) -> None:
        self.cloud.close()
        self._folder.cleanup()
