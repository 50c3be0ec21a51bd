"""The OpenAPI document against the server, by schemathesis: whatever is made from it is answered as it says.

Every case is sent by everybody, those with the least rights first: an operation at a time with values that fit its
schema and values that do not, then chains of calls along the links of the document. ``IAAS_FUZZ_SEED`` chooses other
cases; the seed is in the report of a failure.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import hypothesis
import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import BaseSchema, Case, GenerationMode, Response
from schemathesis.checks import CheckContext, not_a_server_error
from schemathesis.generation.stateful import APIStateMachine
from schemathesis.openapi import from_wsgi
from schemathesis.specs.openapi import checks

from iaas.api import access, wiring
from iaas.api.app import create_app
from iaas.cloud import Cloud
from iaas.resources.common import Role
from tests.api.calling import Caller
from tests.factories import TOKEN, assert_consistent, open_cloud, principal_in, settle

SEED = int(os.environ.get("IAAS_FUZZ_SEED", "1"))
CASES = 8  # for each operation, and as many that do not fit its schema
CHAINS = 24  # for each who begins them
STEPS = 8

SETTINGS = settings(
    deadline=None,
    database=None,
    phases=[Phase.generate],  # a failure is shown as it was met: shrinking calls would change the cloud further
    suppress_health_check=list(HealthCheck),
)
CONFORMANCE = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
SEQUENCE = [checks.use_after_free, checks.ensure_resource_availability]
FORM = {"unknown", "required", "mistyped", "too_long", "too_short", "length", "not_a_choice", "out_of_range"}
"""What is wrong with a field by its schema alone."""

SHARED = {"zone", "host", "flavor", "image"}
"""Belong to no project: who may see one sees all."""

SHAPE = {"vcpus": 1, "memory_mib": 64}
Least = Role | None
RANK: list[Least] = [None, Role.READER, Role.MEMBER, Role.ADMIN]


REACHED: dict[str, set[str]] = defaultdict(set)
"""The operations that succeeded in chains of each who began them."""


CONFIG = {
    "generation": {"with-security-parameters": False},  # who calls is our choice
    "phases": {
        "stateful": {
            "inference": {"algorithms": []},  # the document's own links, no guesses
            "generation": {"mode": "positive"},  # a chain is to get far
        }
    },
}


class World:
    """A cloud with a project "team", something of each kind in it, and everybody who may call."""

    def __init__(self, cloud: Cloud, app: Flask) -> None:
        app.extensions[wiring.KEY] = cloud  # making an application takes longer than making a cloud
        self.cloud = cloud
        self.app = app
        self.tokens: Mapping[str, str | None] = {
            "nobody": None,
            "stranger": principal_in(cloud, "others", Role.MEMBER)[1],
            "reader": principal_in(cloud, "team", Role.READER)[1],
            "member": principal_in(cloud, "team", Role.MEMBER)[1],
            "admin": principal_in(cloud, "team", Role.ADMIN)[1],
            "operator": TOKEN,
        }
        self.roles: Mapping[str, Least] = {
            "nobody": None,
            "stranger": Role.MEMBER,
            "reader": Role.READER,
            "member": Role.MEMBER,
            "admin": Role.ADMIN,
            "operator": Role.ADMIN,
        }
        self.member = Caller(self.app, self.tokens["member"])
        self.operator = Caller(self.app, TOKEN)
        # Nobody in this play may take these away from the others.
        self.kept = {each["id"] for each in self.operator.get("/v1/projects")["items"]}
        for who in ("stranger", "member", "operator"):
            tokens = Caller(self.app, self.tokens[who]).get("/v1/api_tokens")["items"]
            self.kept |= {each["id"] for each in tokens}

    def headers(self, who: str) -> dict[str, str]:
        token = self.tokens[who]
        return {} if token is None else {"Authorization": f"Bearer {token}"}

    def restore(self) -> dict[str, str]:
        """Return one thing of "team" for each variable of a path; what an earlier case removed is made anew."""
        settle(self.cloud)
        found = {kind: self._spare(f"/v1/{kind}s") for kind in ("key_pair", "api_token", "access_key")}
        if "spare" not in {each["name"] for each in self.operator.get("/v1/flavors", name="spare")["items"]}:
            self.operator.send("POST", "/v1/flavors", {**SHAPE, "name": "spare", "root_disk_gib": 1}, status=201)
        items = self.member.get("/v1/instances", limit=1)["items"]
        if not items:
            new = {"kind": "container", "image": "tiny", **SHAPE}
            items = [self.member.send("POST", "/v1/instances", new, status=202)["instance"]]
            settle(self.cloud)
        jobs = self.member.get("/v1/jobs", limit=1)["items"]
        found |= {"instance": items[0]["id"], "project": items[0]["project_id"], "job_id": jobs[0]["id"]}
        found |= self._networks()
        return {**found, "zone": "zone-1", "host": "sim-zone-1-1", "flavor": "spare", "image": "tiny"}

    def _networks(self) -> dict[str, str]:
        vpc = self._ensured("vpc", "/v1/vpcs", {"cidr": "10.0.0.0/16"}, status="active")
        number = len(self.member.get("/v1/subnets", limit=1000)["items"])
        block = f"10.0.{number % 256}.0/24"
        subnet = self._ensured("subnet", "/v1/subnets", {"vpc": vpc, "cidr": block}, vpc=vpc, status="active")
        free = self.member.get(f"/v1/subnets/{subnet}")["dhcp_last"]
        nic = self.member.get("/v1/nics", label_selector="spare", limit=1)["items"]
        if not nic:
            nic = [self.member.send("POST", "/v1/nics", {"subnet": "basic", "labels": {"spare": ""}}, status=201)]
        target = {"destination": "172.16.0.0/24", "address": free}
        record = {"name": "spare", "type": "A", "values": [free]}
        found = {"vpc": vpc, "subnet": subnet, "nic": nic[0]["id"]}
        found["route"] = self._ensured("route", f"/v1/vpcs/{vpc}/routes", target)
        found["record"] = self._ensured("dns_record", f"/v1/vpcs/{vpc}/dns_records", record)
        found["reservation"] = self._ensured("address_reservation", "/v1/address_reservations", {"subnet": subnet})
        return found

    def _ensured(self, kind: str, collection: str, body: dict[str, Any], **query: str) -> str:
        """Return the id of one of the collection, made of ``body`` if there is none; shared ones do not count."""
        is_labelled = kind not in ("route", "dns_record")
        query |= {"label_selector": "spare"} if is_labelled else {}
        items = [each for each in self.member.get(collection, **query)["items"] if not each.get("is_shared")]
        if not items:
            body = {**body, "labels": {"spare": ""}} if is_labelled else body
            items = [self.member.send("POST", collection, body, status=202)[kind]]
            settle(self.cloud)
        return str(items[0]["id"])

    def _spare(self, collection: str) -> str:
        items = self.member.get(collection, label_selector="spare")["items"]
        if not items:
            body = {"name": f"spare-{self.cloud.ids.new('n')}", "labels": {"spare": ""}}
            items = [self.member.send("POST", collection, body, status=201)]
        return str(items[0]["id"])

    def send(self, case: Case, who: str, *, is_own: bool) -> Response:
        """Return the answer, held to the document and to what the caller may.

        Args:
            is_own: what the path names belongs to the project "team".
        """
        response = case.call(headers=self.headers(who))
        case.validate_response(response, checks=CONFORMANCE)
        status = response.status_code
        assert response.headers["x-request-id"], case.as_curl_command()
        if status >= 400:
            assert response.json()["request_id"] == response.headers["x-request-id"][0]
        least = least_of(case)
        told = f"{who}: {case.as_curl_command()} -> {status} {response.text}"
        if RANK.index(self.roles[who]) < RANK.index(least):
            assert status == (401 if who == "nobody" else 403), told
        elif who == "stranger" and is_own:
            # What all projects share is seen by all of them, and changed by none.
            is_shared = status == 403 and "is shared by all projects" in response.text
            assert is_shared or status in (400, 404, 412, 415, 422), told
        return response


def least_of(case: Case) -> Least:
    return access.ROUTES[case.path.replace("{", "<").replace("}", ">")][case.method]


def load(app: Flask) -> BaseSchema:
    return from_wsgi("/v1/openapi.json", app, config=schemathesis.Config.from_dict(CONFIG))


@pytest.fixture(scope="module")
def world(shared_cloud: Cloud) -> World:
    return World(shared_cloud, create_app(shared_cloud))


@pytest.fixture(scope="module")
def schema(world: World) -> BaseSchema:
    return load(world.app)


@schemathesis.check
def form_is_not_refused(ctx: CheckContext, response: Response, case: Case) -> bool | None:
    """What fits the schema may name what is not there, or ask for too much; it is not refused for its form."""
    if case.meta is not None and case.meta.generation.mode.is_positive and response.status_code in (400, 415, 422):
        assert response.status_code == 422, response.text
        wrong = [error for error in response.json()["errors"] if error["code"] in FORM]
        assert not wrong, wrong
    return None


def operations() -> list[str]:
    return sorted(
        f"{method} {rule.replace('<', '{').replace('>', '}')}"
        for rule, methods in access.ROUTES.items()
        for method in methods
        if rule.startswith("/v1/") and "/docs" not in rule and "openapi" not in rule
    )


@pytest.mark.parametrize("label", operations())
def test_every_operation_with_everybody(world: World, schema: BaseSchema, label: str) -> None:
    method, path = label.split()
    operation = schema[path][method]
    modes = [GenerationMode.POSITIVE]
    if list(operation.body) or list(operation.query):  # of text that may be anything nothing is wrong
        modes.append(GenerationMode.NEGATIVE)
    sys.stdout.write(f"IAAS_FUZZ_SEED={SEED}\n")  # in the report if this fails
    for mode in modes:

        @hypothesis.seed(SEED)
        @settings(SETTINGS, max_examples=CASES)
        @given(case=operation.as_strategy(generation_mode=mode), is_there=st.integers(0, 3))
        def run(case: Case, is_there: int) -> None:
            there = world.restore()
            variables = case.path_parameters or {}
            if is_there:
                variables.update({name: there[name] for name in variables})
            if "wait" in (case.query or {}):
                case.query.pop("wait")  # time stands in this cloud
            key = (case.headers or {}).get("Idempotency-Key")
            for who in world.tokens:
                if key is not None:  # in the project of the member, whose answer is not the admin's
                    case.headers.pop("Idempotency-Key", None)
                    if who != "admin":
                        case.headers["Idempotency-Key"] = key
                response = world.send(case, who, is_own=bool(is_there and variables.keys() - SHARED))
            case.validate_response(response, checks=[form_is_not_refused, checks.negative_data_rejection])

        run()


# -- chains of calls --------------------------------------------------------------------------------------------


def chains(actor: str) -> type[APIStateMachine]:
    """Return a machine that goes along the links as ``actor``; those who may not try each step before."""
    with open_cloud() as cloud:
        app = create_app(cloud)
        base: Any = load(app).as_state_machine()

    class Chains(base):  # type: ignore[misc]  # made at run time
        def setup(self) -> None:
            """Begin in a fresh cloud: a chain that is played again must go the same way."""
            self.left = ExitStack()
            self.cloud = self.left.enter_context(open_cloud())
            self.world = World(self.cloud, app)
            self.world.restore()

        def teardown(self) -> None:
            with self.left:
                settle(self.cloud)
                assert_consistent(self.cloud)
            super().teardown()

        def before_call(self, case: Case) -> None:
            settle(self.cloud)
            if case.method == "DELETE" and self.world.kept.intersection((case.path_parameters or {}).values()):
                case.path_parameters = dict.fromkeys(case.path_parameters, "nothing")
            query = case.query or {}
            query.pop("deleted", None)  # what is deleted shall not be there
            query.pop("wait", None)  # time stands in this cloud
            if case.headers:
                case.headers.pop("If-Match", None)  # another generation is the rule, and says nothing
            mode = case.meta.generation.mode if case.meta is not None else GenerationMode.POSITIVE
            if mode.is_positive and case.path == "/v1/instances" and isinstance(case.body, dict):
                kept = {name: case.body[name] for name in ("kind", "name", "user_data") if name in case.body}
                case.body = {**kept, "image": "tiny", **SHAPE}
            if mode.is_positive and case.path == "/v1/vpcs" and isinstance(case.body, dict):
                case.body = {"cidr": "10.0.0.0/16"}

        def call(self, case: Case, **kwargs: Any) -> Response:
            is_own = bool((case.path_parameters or {}).keys() - SHARED)
            least = least_of(case)
            for who in ("nobody", "stranger", "reader"):
                may = RANK.index(self.world.roles[who]) >= RANK.index(least)
                if who != actor and (not may or (is_own and who == "stranger")):
                    self.world.send(case, who, is_own=is_own)
            answer = self.world.send(case, actor, is_own=False)
            if answer.status_code < 300:
                REACHED[actor].add(case.operation.label)
            return answer

        def validate_response(self, response: Response, case: Case, *_: Any, **kwargs: Any) -> None:
            case.validate_response(response, checks=SEQUENCE, recorder=self.recorder)

    return Chains


@pytest.mark.parametrize("actor", ["reader", "member", "admin", "operator"])
def test_chains_of_calls(actor: str) -> None:
    sys.stdout.write(f"IAAS_FUZZ_SEED={SEED}\n")  # in the report if this fails
    machine = hypothesis.seed(SEED)(chains(actor))
    machine.run(settings=settings(SETTINGS, max_examples=CHAINS, stateful_step_count=STEPS))
    assert len(REACHED[actor]) >= 4, f"the chains lead nowhere: {REACHED[actor]}"
