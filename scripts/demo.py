"""The demonstration of ``scripts/run``: one VM and one container machine, made and asked through the public API."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from iaas.client import Action, Client, ConnectionFailed, GuestUnavailable, IaasError, Instance
from iaas.client.tunnel import open_tunnel

LABELS = {"made-by": "scripts-run"}
KINDS = ("vm", "container")
POLL_S = 0.2
ANSWER_TIMEOUT_S = 60.0


@dataclass(slots=True)
class Machine:
    """One machine of the demonstration and what is known about it so far."""

    name: str
    kind: str
    job_id: str
    instance: Instance
    told: str = ""
    ready_after_s: float | None = None
    hostname: str = ""
    page: str = ""
    failure: str = ""

    @property
    def has_answered(self) -> bool:
        """The command ran in *this* guest, and the page came from it."""
        return self.hostname == self.name and f"id={self.instance.id}" in self.page


@dataclass(slots=True)
class Demonstration:
    """Makes the machines, shows them becoming ready, and asks each one who it is.

    Args:
        pause: waits so many seconds, or less when the run is to end.
        timeout_s: how long both may take to become ready.
    """

    client: Client
    console: Console
    pause: Callable[[float], None]
    timeout_s: float
    machines: list[Machine] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    def run(self) -> bool:
        """Return whether both machines became ready and answered."""
        self._remove_earlier()
        self._began = time.monotonic()
        for kind in KINDS:
            self._create(kind)
        self._watch()
        for machine in self.machines:
            if machine.ready_after_s is not None:
                self._ask(machine)
        self.console.print(self._table())
        return len(self.machines) == len(KINDS) and all(machine.has_answered for machine in self.machines)

    def _say(self, machine: Machine, text: str) -> None:
        if text != machine.told:
            machine.told = text
            elapsed_s = time.monotonic() - self._began
            self.console.print(f"  {elapsed_s:6.1f} s  {machine.name:16} {text}", markup=False, highlight=False)

    def _remove_earlier(self) -> None:
        """A state folder that is kept has the machines of the run before."""
        selector = ",".join(f"{name}={value}" for name, value in LABELS.items())
        gone: list[Action[Instance]] = [
            each.delete() for each in self.client.instances.list(label_selector=selector) if each.transition is None
        ]
        for action in gone:
            action.wait(timeout_s=ANSWER_TIMEOUT_S)

    def _create(self, kind: str) -> None:
        name = f"demo-{kind}"
        action = self.client.instances.create(kind=kind, image="tiny", flavor="micro", name=name, labels=LABELS)
        machine = Machine(name=name, kind=kind, job_id=action.job.id, instance=action.resource)
        self.machines.append(machine)
        self._say(machine, f"accepted as {machine.instance.id}, job {machine.job_id}")

    def _watch(self) -> None:
        deadline = time.monotonic() + self.timeout_s
        while waiting := [each for each in self.machines if each.ready_after_s is None and not each.failure]:
            for machine in waiting:
                self._look_at(machine)
                if machine.ready_after_s is None and not machine.failure and time.monotonic() > deadline:
                    machine.failure = f"not ready within {self.timeout_s:.0f} s"
                    self._say(machine, machine.failure)
            self.pause(POLL_S)

    def _look_at(self, machine: Machine) -> None:
        machine.instance = self.client.instances.get(machine.instance.id)
        if machine.instance.guest_ready_at is not None:
            machine.ready_after_s = time.monotonic() - self._began
            self._say(machine, f"ready at {machine.instance.address}")
            return
        job = self.client.jobs.get(machine.job_id)
        if machine.instance.status == "failed" or (job.is_finished and job.status != "succeeded"):
            reason = job.error or machine.instance.failure
            machine.failure = reason.message if reason else job.status
            self._say(machine, f"failed: {machine.failure}")
        elif job.is_finished:
            self._say(machine, "running; its guest boots")
        elif job.progress is not None:
            step = job.progress
            about = f": {step.message}" if step.message else ""
            self._say(machine, f"step {step.step} of {step.steps}, {step.name}{about}")

    def _ask(self, machine: Machine) -> None:
        """Let the guest say who it is: by a command in it, and by its page through the server's proxy."""
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while True:
            try:
                machine.hostname = machine.instance.execute(["hostname"]).stdout.strip()
                machine.page = _page(self.client, machine.instance)
                break
            except (GuestUnavailable, ConnectionFailed, OSError, http.client.HTTPException) as error:
                if time.monotonic() > deadline:
                    machine.failure = f"does not answer: {error}"
                    self._say(machine, machine.failure)
                    return
            except IaasError as error:
                machine.failure = str(error)
                self._say(machine, machine.failure)
                return
            self.pause(POLL_S)
        if not machine.has_answered:
            machine.failure = f"answers as {machine.hostname!r} with {machine.page!r}"
        self._say(machine, machine.failure or "answers to commands and on port 80")

    def _table(self) -> Table:
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for column in ("name", "kind", "id", "address", "ready after", "hostname says"):
            table.add_column(column, no_wrap=True)
        table.add_column("page on port 80", overflow="fold")
        for machine in self.machines:
            table.add_row(
                machine.name,
                machine.kind,
                machine.instance.id,
                machine.instance.address or "-",
                "-" if machine.ready_after_s is None else f"{machine.ready_after_s:.1f} s",
                machine.hostname or "-",
                machine.page or machine.failure or "-",
            )
        return table


def _page(client: Client, instance: Instance) -> str:
    """Return what the guest's web server sends for ``/``."""
    connection = http.client.HTTPConnection(instance.id, timeout=ANSWER_TIMEOUT_S)
    connection.sock = open_tunnel(client, instance, 80, timeout_s=ANSWER_TIMEOUT_S)
    connection.sock.settimeout(ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        return connection.getresponse().read(4096).decode(errors="replace").strip()
    finally:
        connection.close()
