"""Clients of a tortured server that build VPCs, subnets, NICs and routes, and what must be left of all that."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.torture_client import PATIENCE_S, UNFINISHED, Appetite, Client, Owned

CIDR = "10.9.0.0/16"
ZONE = "zone-1"
MOST_VPCS = 3
MOST_SUBNETS = 6
MOST_NICS = 8
MOST_ROUTES = 20
MOST_IN_ONE = 3  # NICs of an instance beside its first
COUNTED = {"vpc.create", "vpc.delete", "subnet.create", "subnet.delete", "nic.attach", "nic.detach"}


@dataclass
class Wiring:
    """What one client was told of its networks: what there must be in the end, and what was asked for."""

    vpcs: dict[str, dict[str, str]] = field(default_factory=dict)  # VPC -> its routes -> the NICs that they lead to
    subnets: dict[str, tuple[str, int]] = field(default_factory=dict)  # subnet -> its VPC, its number there
    nics: dict[str, tuple[str, str | None]] = field(default_factory=dict)  # NIC -> its subnet, its instance
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)  # (resource, action)
    jobs: dict[str, tuple[str, str]] = field(default_factory=dict)  # job -> (resource, action)


class NetworkClient(Client):
    """Has two instances that are left alone, and moves NICs in and out of them. One job at a time."""

    def __init__(self, port: Callable[[], int], token: str, name: str, seed: int, appetite: Appetite) -> None:
        super().__init__(port, token, name, seed, appetite)
        self.wiring = Wiring()

    @property
    def all_jobs(self) -> Collection[str]:
        return [*self.ledger.jobs, *self.wiring.jobs]

    def _act(self) -> None:
        if len(self.ledger.owned) < 2:
            self._make_instance()
            return
        wiring, choose = self.wiring, self._random.choice
        routed = {nic for routes in wiring.vpcs.values() for nic in routes.values()}
        room = [each for each in self.ledger.owned if self._nics_in(each) < MOST_IN_ONE]
        taken = {subnet for subnet, _ in wiring.nics.values()}
        free = [nic for nic, (_, instance) in wiring.nics.items() if instance is None]
        used = [nic for nic, (_, instance) in wiring.nics.items() if instance is not None]
        unrouted = [nic for nic in free if nic not in routed]
        bare = [vpc for vpc in wiring.vpcs if vpc not in {of for of, _ in wiring.subnets.values()}]
        empty = [subnet for subnet in wiring.subnets if subnet not in taken]
        routes = [(vpc, route) for vpc, of in wiring.vpcs.items() for route in of]
        ways: list[tuple[int, bool, Callable[[], None]]] = [
            (2, len(wiring.vpcs) < MOST_VPCS, self._make_vpc),
            (1, len(bare) > 0, lambda: self._delete_vpc(choose(bare))),
            (4, len(wiring.vpcs) > 0 and len(wiring.subnets) < MOST_SUBNETS, self._make_subnet),
            (1, len(empty) > 0, lambda: self._delete_subnet(choose(empty))),
            (5, len(wiring.subnets) > 0 and len(wiring.nics) < MOST_NICS, self._make_nic),
            (2, len(unrouted) > 0, lambda: self._delete_nic(choose(unrouted))),
            (9, len(free) > 0 and len(room) > 0, lambda: self._attach(choose(free), choose(room))),
            (7, len(used) > 0, lambda: self._detach(choose(used))),
            (6, len(wiring.nics) > 0 and len(routes) < MOST_ROUTES, self._add_route),
            (3, len(routes) > 0, lambda: self._delete_route(*choose(routes))),
        ]
        possible = [(weight, act) for weight, can, act in ways if can]
        self._random.choices([act for _, act in possible], [weight for weight, _ in possible])[0]()

    # -- what there is to do ------------------------------------------------------------------------------

    def _make_instance(self) -> None:
        answer = self._post("/v1/instances", {**self._wish(0), "zone": ZONE})
        instance = answer["instance"]["id"]
        self.ledger.owned[instance] = Owned("running", answer["instance"]["vcpus"])
        self._accepted(instance, "create", answer["job"]["id"])
        self._await(instance)

    def _make_vpc(self) -> None:
        answer = self._post("/v1/vpcs", {"cidr": CIDR, "name": f"{self.name}-{self._serial}"})
        self.wiring.vpcs[answer["vpc"]["id"]] = {}
        self._end("vpc.create", answer["vpc"]["id"], answer["job"])

    def _delete_vpc(self, vpc: str) -> None:
        self._remove("vpc", f"/v1/vpcs/{vpc}", vpc)
        del self.wiring.vpcs[vpc]

    def _make_subnet(self) -> None:
        vpc = self._random.choice(list(self.wiring.vpcs))
        taken = {number for of, number in self.wiring.subnets.values() if of == vpc}
        number = next(number for number in range(256) if number not in taken)
        answer = self._post("/v1/subnets", {"vpc": vpc, "cidr": f"10.9.{number}.0/24", "zone": ZONE})
        self.wiring.subnets[answer["subnet"]["id"]] = (vpc, number)
        self._end("subnet.create", answer["subnet"]["id"], answer["job"])

    def _delete_subnet(self, subnet: str) -> None:
        self._remove("subnet", f"/v1/subnets/{subnet}", subnet)
        del self.wiring.subnets[subnet]

    def _make_nic(self) -> None:
        subnet = self._random.choice(list(self.wiring.subnets))
        self.wiring.nics[self._post("/v1/nics", {"subnet": subnet})["id"]] = (subnet, None)

    def _delete_nic(self, nic: str) -> None:
        found = self._exchange("DELETE", f"/v1/nics/{nic}", None, None)
        assert found.status == 204 or (found.status == 404 and found.tries), found
        self.ledger.unheard += found.status == 404
        del self.wiring.nics[nic]

    def _attach(self, nic: str, instance: str) -> None:
        answer = self._post(f"/v1/nics/{nic}/actions/attach", {"instance": instance})
        self.wiring.nics[nic] = (self.wiring.nics[nic][0], instance)
        self._end("nic.attach", nic, answer["job"])

    def _detach(self, nic: str) -> None:
        answer = self._post(f"/v1/nics/{nic}/actions/detach", {})
        self.wiring.nics[nic] = (self.wiring.nics[nic][0], None)
        self._end("nic.detach", nic, answer["job"])

    def _add_route(self) -> None:
        nic = self._random.choice(list(self.wiring.nics))
        vpc = self.wiring.subnets[self.wiring.nics[nic][0]][0]
        destination = f"10.{100 + self._serial // 256 % 100}.{self._serial % 256}.0/24"
        answer = self._post(f"/v1/vpcs/{vpc}/routes", {"destination": destination, "nic": nic})
        self.wiring.vpcs[vpc][answer["route"]["id"]] = nic
        self._end("vpc.apply", vpc, answer["job"])

    def _delete_route(self, vpc: str, route: str) -> None:
        found = self._exchange("DELETE", f"/v1/vpcs/{vpc}/routes/{route}", None, None)
        del self.wiring.vpcs[vpc][route]
        if found.status == 202:
            self._end("vpc.apply", vpc, json.loads(found.raw)["job"])
            return
        assert (found.status, found.tries > 0) == (404, True), found
        self.ledger.unheard += 1

    # -- how it ends --------------------------------------------------------------------------------------

    def _nics_in(self, instance: str) -> int:
        return sum(each == instance for _, each in self.wiring.nics.values())

    def _end(self, action: str, resource: str, job: Any) -> None:
        """Note the job, and wait for its end."""
        self.wiring.jobs[job["id"]] = (resource, action)
        self.wiring.asked[resource, action] += 1
        give_up_at = time.monotonic() + PATIENCE_S
        while (shown := self.ask("GET", f"/v1/jobs/{job['id']}?wait=5"))["status"] in UNFINISHED:
            assert time.monotonic() < give_up_at, f"{action} of {resource} does not end: {shown}"
        assert shown["status"] == "succeeded", shown

    def _remove(self, what: str, path: str, resource: str) -> None:
        """Delete a VPC or subnet. One that was done unheard is seen by the 404, or by its transition."""
        found = self._exchange("DELETE", path, None, None)
        if found.status == 202:
            self._end(f"{what}.delete", resource, json.loads(found.raw)["job"])
            return
        assert found.status == 404 or found.code == "in_transition", f"DELETE {path}: {found}"
        assert found.tries, f"DELETE {path}, sent once, was answered {found}"
        self.ledger.unheard += 1
        self.wiring.asked[resource, f"{what}.delete"] += 1
        give_up_at = time.monotonic() + PATIENCE_S
        while self._exchange("GET", path, None, None).status != 404:
            assert time.monotonic() < give_up_at, f"{resource} does not go"


def reckon_networks(clients: Iterable[Client], every: Callable[[str], list[Any]]) -> Counter[str]:
    """Hold what the clients were told against the API; ``every`` returns all members of a list of it.

    Raises:
        AssertionError: something was lost, doubled or left over.
    """
    wirings = [client.wiring for client in clients if isinstance(client, NetworkClient)]
    vpcs = {vpc: routes for wiring in wirings for vpc, routes in wiring.vpcs.items()}
    subnets = {subnet: vpc for wiring in wirings for subnet, (vpc, _) in wiring.subnets.items()}
    nics = {nic: place for wiring in wirings for nic, place in wiring.nics.items()}
    at_rest = ("active", None, None)
    shown = every("/v1/vpcs")
    assert {each["id"] for each in shown} == vpcs.keys(), (shown, vpcs)
    assert all((each["status"], each["transition"], each["failure"]) == at_rest for each in shown), shown
    for vpc, routes in vpcs.items():
        found = {route["id"]: route["target"]["id"] for route in every(f"/v1/vpcs/{vpc}/routes")}
        assert found == routes, (vpc, found, routes)
    own = [each for each in every("/v1/subnets") if each["project_id"] is not None]
    assert {each["id"]: each["vpc_id"] for each in own} == subnets, (own, subnets)
    assert all((each["status"], each["transition"], each["failure"]) == at_rest for each in own), own
    alone = [each for each in every("/v1/nics") if not each["delete_with_instance"]]
    assert {each["id"]: (each["subnet_id"], each["instance_id"]) for each in alone} == nics, (alone, nics)
    for each in alone:
        status = "available" if each["instance_id"] is None else "in_use"
        assert (each["status"], each["transition"]) == (status, None), each
    _jobs(wirings, every("/v1/jobs"))
    return Counter(action for wiring in wirings for _, action in wiring.jobs.values())


def _jobs(wirings: list[Wiring], shown: list[Any]) -> None:
    """Every acknowledged job has succeeded, and each action was done as often as it was accepted."""
    jobs = {job["id"]: job for job in shown}
    done: defaultdict[tuple[str, str], int] = defaultdict(int)
    for job in shown:
        if job["action"] in COUNTED:  # a VPC is applied again, unasked, when something moves that routes lead to
            done[job["resources"][0]["id"], job["action"]] += 1
    for wiring in wirings:
        for job_id, (resource, action) in wiring.jobs.items():
            job = jobs[job_id]
            assert (job["status"], job["action"]) == ("succeeded", action), job
            assert job["resources"][0]["id"] == resource, job
        for (resource, action), times in wiring.asked.items():
            if action in COUNTED:
                assert done.pop((resource, action), 0) == times, f"{action} of {resource}: {times} asked for"
    assert not done, f"done, and never asked for: {dict(done)}"
