"""Instances: machines of either kind, and their verbs."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from iaas.client.actions import Action, action_from_answer
from iaas.client.collection import Collection
from iaas.client.errors import NeverReady, UnexpectedAnswer, WaitTimeout
from iaas.client.jobs import Job
from iaas.client.nics import NICSpec
from iaas.client.placement import Placement
from iaas.client.resource import (
    STRINGS,
    TIME,
    UNSET,
    Resource,
    Unset,
    decode,
    item_path,
    mapping_of,
    read_failure,
    reads,
    reads_all,
)
from iaas.kernel.errors import Failure

if TYPE_CHECKING:
    from iaas.client.client import Client

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSpec:
    """What to create. ``flavor``, or ``vcpus`` and ``memory_mib``; what is None or empty is left to the server.

    ``user_data`` as bytes may hold anything; ``nesting`` and ``privileged`` are for container machines. ``nics`` are
    in the order of the guest's devices: one on the zone's basic subnet when None, none at all when empty.
    ``metadata_labels`` lets the guest read its labels.
    """

    kind: str
    image: str
    flavor: str | None = None
    vcpus: int | None = None
    memory_mib: int | None = None
    root_disk_gib: int | None = None
    name: str | None = None
    hostname: str | None = None
    zone: str | None = None
    key_pairs: Sequence[str] = ()
    user_data: str | bytes | None = field(default=None, repr=False)  # may hold secrets
    labels: Mapping[str, str] = field(default_factory=dict)
    nesting: bool | None = None
    privileged: bool | None = None
    metadata_labels: bool | None = None
    nics: Sequence[NICSpec] | None = None
    placement: Placement | None = None

    def to_body(self) -> dict[str, Any]:
        """Return the JSON object of the create call."""
        body: dict[str, Any] = {
            "kind": self.kind,
            "image": self.image,
            "flavor": self.flavor,
            "vcpus": self.vcpus,
            "memory_mib": self.memory_mib,
            "root_disk_gib": self.root_disk_gib,
            "name": self.name,
            "hostname": self.hostname,
            "zone": self.zone,
            "key_pairs": list(self.key_pairs) or None,
            "labels": dict(self.labels) or None,
            "nesting": self.nesting,
            "privileged": self.privileged,
            "metadata_labels": self.metadata_labels,
            "nics": None if self.nics is None else [nic.to_body() for nic in self.nics],
            "placement": self.placement.to_body() if self.placement is not None else None,
        }
        if isinstance(self.user_data, bytes):
            body["user_data"] = base64.b64encode(self.user_data).decode()
            body["user_data_encoding"] = "base64"
        else:
            body["user_data"] = self.user_data
        return {name: value for name, value in body.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceNIC:
    """A network interface of an instance, in the order of ``device_index``."""

    id: str
    subnet_id: str = ""
    vpc_id: str | None = None
    mac: str = ""
    address: str | None = None
    secondary_addresses: tuple[str, ...] = field(default=(), metadata=STRINGS)
    device_index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    """A command's end in the guest. Bytes that are no UTF-8 became replacement characters."""

    exit_code: int
    stdout: str = ""
    stderr: str = ""
    truncated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance(Resource):
    """A machine. ``status`` is where it rests, ``transition`` the action in flight, or None.

    ``guest_ready_at`` is when the guest first answered after its last start; ``running`` alone says only that
    the backend runs it.
    """

    path: ClassVar[str] = "/v1/instances"
    key: ClassVar[str] = "instance"

    project_id: str | None = None
    zone: str | None = None
    kind: str = ""
    status: str = ""
    transition: str | None = None
    failure: Failure | None = field(default=None, metadata=reads(read_failure))
    generation: int = 0
    hostname: str | None = None
    flavor: str | None = None
    vcpus: int = 0
    memory_mib: int = 0
    root_disk_gib: int = 0
    image_id: str | None = None
    image: str | None = None
    key_pairs: tuple[str, ...] = field(default=(), metadata=STRINGS)
    nesting: bool = False
    privileged: bool = False
    metadata_labels: bool = False
    nics: tuple[InstanceNIC, ...] = field(default=(), metadata=reads_all(lambda data: decode(InstanceNIC, data)))
    address: str | None = None
    host_id: str | None = None
    placement: Mapping[str, Any] | None = field(default=None, hash=False)
    guest_ready_at: datetime | None = field(default=None, metadata=TIME)
    deleted_at: datetime | None = field(default=None, metadata=TIME)
    purge_at: datetime | None = field(default=None, metadata=TIME)
    purged_at: datetime | None = field(default=None, metadata=TIME)

    def start(self) -> Action[Instance]:
        """Start it (stopped before)."""
        return self._act("start")

    def stop(self, *, force: bool = False, timeout_s: int | None = None) -> Action[Instance]:
        """Stop it: ask the guest, and cut the power after ``timeout_s`` (the server's default is 60) or at once
        with ``force``."""
        return self._act("stop", force=force or None, timeout_s=timeout_s)

    def restart(self, *, force: bool = False, timeout_s: int | None = None) -> Action[Instance]:
        """Stop and start it; arguments as of ``stop``."""
        return self._act("restart", force=force or None, timeout_s=timeout_s)

    def resize(
        self, *, flavor: str | None = None, vcpus: int | None = None, memory_mib: int | None = None
    ) -> Action[Instance]:
        """Give it another shape, by flavor or by numbers; it must be stopped."""
        return self._act("resize", flavor=flavor, vcpus=vcpus, memory_mib=memory_mib)

    def rebuild(self, *, image: str | None = None) -> Action[Instance]:
        """Give it a fresh root disk from ``image`` (its present one when absent); id, NICs and addresses stay.

        What was written to the old root disk is lost.
        """
        return self._act("rebuild", image=image)

    def delete(self, *, purge: bool = False) -> Action[Instance]:
        """Remove it. While the server retains it (``purge_at``) it can be recovered; with ``purge`` not at all."""
        answer = self.client.request("DELETE", self._own_path(), params={"purge": True} if purge else None)
        return action_from_answer(Instance, self.client, answer, is_removal=True)

    def recover(self, *, name: str | None = None) -> Action[Instance]:
        """Bring it back from deletion, stopped; under another name if its own is taken.

        Raises:
            InvalidState: it is not deleted, or gone for good.
            NameTaken: another has its name now.
            OutOfCapacity: its host has no room for it now.
        """
        return self._act("recover", name=name)

    def update(
        self,
        *,
        name: str | Unset | None = UNSET,
        labels: Mapping[str, str | None] | Unset = UNSET,
        only_if_unchanged: bool = False,
    ) -> Instance:
        """Return it with another name, or with ``labels`` merged in (a None value removes that label).

        Raises:
            PreconditionFailed: ``only_if_unchanged``, and it was changed since this value was read.
        """
        changes = {"name": name, "labels": labels if isinstance(labels, Unset) else dict(labels)}
        return self._patch(changes, headers={"If-Match": f'"{self.generation}"'} if only_if_unchanged else None)

    def execute(self, command: Sequence[str], *, timeout_s: int = 30, stdin: str | None = None) -> ExecResult:
        """Return what a command run as root in the guest gave, without a shell in between.

        A command that is not found ends with exit code 127, one that ran out of time (``timeout_s``, at most
        300) with 124.

        Raises:
            GuestUnavailable: nothing in it answers (yet).
            NotSupported: the backend cannot do this.
        """
        body: dict[str, Any] = {"command": list(command), "timeout_s": timeout_s}
        if stdin is not None:
            body["stdin"] = stdin
        answer = self.client.request(
            "POST",
            self._own_path("/actions/exec"),
            body=body,
            timeout_s=self.client.transport.timeout_s + timeout_s,
        )
        return decode(ExecResult, answer)

    def console(self, *, tail_bytes: int | None = None) -> str:
        """Return the end of its console output; "" before the first start. The server's default is 64 KiB."""
        answer = self.client.request("GET", self._own_path("/console"), params={"tail_bytes": tail_bytes})
        return str(mapping_of(answer, "console").get("output") or "")

    def wait_until_ready(self, *, timeout_s: float | None = 300.0) -> Instance:
        """Return it when its guest has answered (``guest_ready_at``).

        Args:
            timeout_s: by the wall clock; None waits for ever.

        Raises:
            NeverReady: it rests in a state in which that will not happen.
            WaitTimeout: the time is over.
        """
        transport = self.client.transport
        deadline = None if timeout_s is None else transport.monotonic() + timeout_s
        pause_s = _FIRST_PAUSE_S
        while True:
            instance = self.refresh()
            if instance.guest_ready_at is not None and instance.status == "running":
                return instance
            if instance.transition is None and instance.status not in ("running", "pending"):
                reason = f": {instance.failure.message}" if instance.failure else ""
                raise NeverReady(f"instance {self.id} is {instance.status}{reason}")
            left_s = pause_s if deadline is None else deadline - transport.monotonic()
            if left_s <= 0:
                raise WaitTimeout(f"the guest of instance {self.id} has not answered after {timeout_s:g} s")
            transport.sleep(min(pause_s, left_s))
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _act(self, verb: str, **body: Any) -> Action[Instance]:
        answer = self.client.request(
            "POST",
            self._own_path(f"/actions/{verb}"),
            body={name: value for name, value in body.items() if value is not None},
        )
        return action_from_answer(Instance, self.client, answer)


class Instances(Collection[Instance]):
    """``client.instances``."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, Instance)

    def get_deleted(self, instance_id: str) -> Instance:
        """Return an instance by id though it may be deleted. ``list(deleted=True)`` lists the deleted ones.

        Raises:
            NotFound: there is none, or it is forgotten.
        """
        answer = self._client.request("GET", item_path(Instance, instance_id), params={"deleted": True})
        return Instance.from_answer(self._client, answer)

    def create(
        self,
        *,
        kind: str,
        image: str,
        flavor: str | None = None,
        vcpus: int | None = None,
        memory_mib: int | None = None,
        root_disk_gib: int | None = None,
        name: str | None = None,
        hostname: str | None = None,
        zone: str | None = None,
        key_pairs: Sequence[str] = (),
        user_data: str | bytes | None = None,
        labels: Mapping[str, str] | None = None,
        nesting: bool | None = None,
        privileged: bool | None = None,
        metadata_labels: bool | None = None,
        nics: Sequence[NICSpec] | None = None,
        placement: Placement | None = None,
    ) -> Action[Instance]:
        """Create and start a machine of ``kind`` ``vm`` or ``container``; ``.wait()`` returns it running.

        Arguments as in ``InstanceSpec``.

        Raises:
            InvalidInput: a field is wrong: ``errors`` names it.
            QuotaExceeded: the project may have no more.
            OutOfCapacity: no host has room.
            NameTaken: the project has an instance of that name.
        """
        return self.create_from(
            InstanceSpec(
                kind=kind,
                image=image,
                flavor=flavor,
                vcpus=vcpus,
                memory_mib=memory_mib,
                root_disk_gib=root_disk_gib,
                name=name,
                hostname=hostname,
                zone=zone,
                key_pairs=key_pairs,
                user_data=user_data,
                labels=labels or {},
                nesting=nesting,
                privileged=privileged,
                metadata_labels=metadata_labels,
                nics=nics,
                placement=placement,
            )
        )

    def create_from(self, spec: InstanceSpec) -> Action[Instance]:
        """Create one machine from ``spec``; as ``create``."""
        answer = mapping_of(self._client.request("POST", Instance.path, body=spec.to_body()), "instance")
        return Action(
            job=Job.from_answer(self._client, answer.get("job")),
            resource=Instance.from_answer(self._client, answer.get("instance")),
        )

    def create_many(self, specs: Iterable[InstanceSpec]) -> list[Action[Instance]]:
        """Create all of ``specs`` (1 to 1000) or none, in one call; one action each, in their order."""
        body = {"instances": [spec.to_body() for spec in specs]}
        answer = mapping_of(self._client.request("POST", f"{Instance.path}:batch", body=body), "instances")
        instances = [Instance.from_answer(self._client, each) for each in answer.get("instances") or ()]
        jobs = {
            resource.id: job
            for job in (Job.from_answer(self._client, each) for each in answer.get("jobs") or ())
            for resource in job.resources
        }
        try:
            return [Action(job=jobs[instance.id], resource=instance) for instance in instances]
        except KeyError as error:
            raise UnexpectedAnswer(f"the server sent no job for instance {error.args[0]}") from error
