"""What guests see at 169.254.169.254: their own facts, and never another's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from werkzeug.test import Client, TestResponse

from iaas.api.inside.rate_limits import RateLimit
from iaas.api.metadata.app import MetadataApp
from iaas.api.metadata.tokens import MAX_TTL_S
from iaas.api.metadata.tree import VERSIONS, lookup
from iaas.cloud import Cloud
from iaas.resources.instances import Instance
from iaas.resources.networks import NewNIC
from iaas.services.metadata import GuestMetadata, MetadataService
from tests.api.guest_places import make_vpc, put
from tests.factories import create, operator, settle

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me"
TOKEN = "X-aws-ec2-metadata-token"
TTL = "X-aws-ec2-metadata-token-ttl-seconds"
ADDRESS = "10.0.0.5"


class WallOfATest:
    """The wall's clock, moved by hand."""

    def __init__(self) -> None:
        self.at = datetime(2026, 1, 31, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at


@pytest.fixture
def wall() -> WallOfATest:
    return WallOfATest()


@pytest.fixture
def metadata(cloud: Cloud, wall: WallOfATest) -> MetadataApp:
    return MetadataApp(cloud.metadata, wall)


def ask(
    app: MetadataApp,
    path: str,
    *,
    vpc_id: str = "vpc-test0001",
    address: str = ADDRESS,
    method: str = "GET",
    headers: dict[str, str] | None = None,
) -> TestResponse:
    """Ask as a guest of a VPC does whose packets come from ``address``."""
    client = Client(lambda environ, start_response: app(vpc_id, environ, start_response))
    return client.open(path, method=method, headers=headers, environ_overrides={"REMOTE_ADDR": address})


def guest_of(cloud: Cloud, instance: Instance) -> GuestMetadata:
    nic = instance.nics[0]
    assert nic.vpc_id is not None
    assert nic.address is not None
    found = cloud.metadata.of_guest(nic.vpc_id, nic.address)
    assert found is not None
    return found


@pytest.fixture
def web(cloud: Cloud) -> Instance:
    cloud.key_pairs.create(operator(cloud), name="me", public_key=KEY)
    return create(cloud, name="web", key_pairs=("me",), user_data=b"#!/bin/sh\x00\xff")


@pytest.fixture
def placed(cloud: Cloud, web: Instance) -> Instance:
    """The same one, at ADDRESS of a VPC of its own, with two more addresses."""
    put(cloud, web, make_vpc(cloud, 1, cidr="10.0.0.0/16"), ADDRESS, secondary=("10.0.0.6", "10.0.7.7"))
    return cloud.instances.get(operator(cloud), web.id)


def test_tree(cloud: Cloud, web: Instance) -> None:
    guest = guest_of(cloud, web)
    for path, content in {
        "/": "\n".join(VERSIONS),
        "": "\n".join(VERSIONS),
        "/latest": "dynamic/\nmeta-data/\nuser-data",
        "/latest/": "dynamic/\nmeta-data/\nuser-data",
        "/latest/meta-data/instance-id": web.id,
        "/2009-04-04/meta-data/instance-id": web.id,
        "/2021-03-23/meta-data/instance-id": web.id,
        "/latest/meta-data/instance-id/": web.id,
        "//latest//meta-data//instance-id": web.id,
        "/latest/meta-data/hostname": "web",
        "/latest/meta-data/local-hostname": "web",
        "/latest/meta-data/local-ipv4": web.address,
        "/latest/meta-data/mac": web.nics[0].mac,
        "/latest/meta-data/ami-id": web.image_id,
        "/latest/meta-data/instance-type": "nano",
        "/latest/meta-data/flavor": "nano",
        "/latest/meta-data/instance-action": "none",
        "/latest/meta-data/services/domain": "internal",
        "/latest/meta-data/placement/": "availability-zone\nregion",
        "/latest/meta-data/placement/availability-zone": web.zone,
        "/latest/meta-data/public-keys/": "0=me",
        "/latest/meta-data/public-keys/0/": "openssh-key",
        "/latest/meta-data/public-keys/0/openssh-key": KEY,
        "/latest/dynamic/": "instance-identity/",
        "/latest/dynamic/instance-identity/": "document",
    }.items():
        found = lookup(path, guest)
        assert found is not None, path
        assert found.decode() == content, path
    assert lookup("/latest/user-data", guest) == b"#!/bin/sh\x00\xff"


def test_nics_by_mac(cloud: Cloud, placed: Instance) -> None:
    guest = guest_of(cloud, placed)
    mac = placed.nics[0].mac
    folder = "/latest/meta-data/network/interfaces/macs/"
    assert lookup(folder, guest) == f"{mac}/".encode()
    listed = lookup(f"{folder}{mac}/", guest)
    assert listed is not None
    facts = {name: (lookup(f"{folder}{mac}/{name}", guest) or b"").decode() for name in listed.decode().split("\n")}
    assert facts == {
        "device-number": "0",
        "interface-id": placed.nics[0].id,
        "local-hostname": "web",
        "local-ipv4s": f"{ADDRESS}\n10.0.0.6\n10.0.7.7",
        "mac": mac,
        "owner-id": placed.project_id,
        "security-groups": "",
        "subnet-id": "net-test0001",
        "subnet-ipv4-cidr-block": "10.0.0.0/16",
        "vpc-id": "vpc-test0001",
        "vpc-ipv4-cidr-block": "10.0.0.0/16",
        "vpc-ipv4-cidr-blocks": "10.0.0.0/16",
    }


def test_a_nic_without_address_is_listed_as_such(cloud: Cloud) -> None:
    made = create(cloud, nics=(NewNIC(), NewNIC(address="none")))
    guest = guest_of(cloud, made)
    folder = "/latest/meta-data/network/interfaces/macs"
    first, second = made.nics
    assert lookup("/latest/meta-data/mac", guest) == first.mac.encode()
    assert lookup(f"{folder}/{first.mac}/device-number", guest) == b"0"
    assert lookup(f"{folder}/{second.mac}/device-number", guest) == b"1"
    assert lookup(f"{folder}/{first.mac}/local-ipv4s", guest) == (first.address or "").encode()
    assert lookup(f"{folder}/{second.mac}/local-ipv4s", guest) is None
    assert lookup(f"{folder}/{second.mac}/vpc-id", guest) == (second.vpc_id or "").encode()


def test_identity_document(cloud: Cloud, web: Instance) -> None:
    found = lookup("/latest/dynamic/instance-identity/document", guest_of(cloud, web))
    assert found is not None
    document = json.loads(found)
    assert document["instanceId"] == web.id
    assert document["accountId"] == web.project_id
    assert document["availabilityZone"] == web.zone
    assert document["privateIp"] == web.address
    assert document["pendingTime"] == "2026-01-31T12:00:00.000Z"


LABELS = {"team": "web", "app.kubernetes.io/name": "shop", "empty": ""}


def test_labels_are_shown_to_those_who_may_see_them(cloud: Cloud) -> None:
    guest = guest_of(cloud, create(cloud, labels=LABELS, metadata_labels=True))
    folder = "/latest/meta-data/tags/instance/"
    assert lookup(folder, guest) == b"app.kubernetes.io/name\nempty\nteam"
    for key, value in LABELS.items():
        assert lookup(f"{folder}{key}", guest) == value.encode()
    assert lookup(f"{folder}app.kubernetes.io", guest) is None
    assert lookup(f"{folder}team/web", guest) is None


@pytest.mark.parametrize(("labels", "allowed"), [(LABELS, False), ({}, True)])
def test_no_labels_no_folder(cloud: Cloud, labels: dict[str, str], allowed: bool) -> None:
    guest = guest_of(cloud, create(cloud, labels=labels, metadata_labels=allowed))
    assert lookup("/latest/meta-data/tags/", guest) is None
    assert b"tags" not in (lookup("/latest/meta-data/", guest) or b"")


def leaves(path: str, guest: GuestMetadata) -> Iterator[str]:
    """Yield the path of every leaf below, as a client finds them by listings."""
    listed = lookup(path, guest)
    assert listed is not None, path
    for name in listed.decode().split("\n"):
        child = f"{path}{name.partition('=')[0]}"
        if name.endswith("/") or "=" in name:
            yield from leaves(child if child.endswith("/") else f"{child}/", guest)
        else:
            yield child


def test_every_leaf_that_is_listed_is_there(cloud: Cloud, placed: Instance) -> None:
    guest = guest_of(cloud, placed)
    found = list(leaves("/latest/meta-data/", guest)) + list(leaves("/latest/dynamic/", guest))
    assert len(found) > 25
    for path in found:
        assert lookup(path, guest) is not None, path


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/latest/nothing",
        "/latest/meta-data/nothing",
        "/latest/meta-data/instance-id/more",
        "/latest/meta-data/../user-data",
        "/latest/meta-data/public-keys/1/openssh-key",
        "/latest/meta-data/public-keys/-1/openssh-key",
        "/latest/meta-data/public-keys/x",
        "/latest/meta-data/public-keys/" + "9" * 5000,
        "/latest/meta-data/public-keys/0/other",
        "/latest/meta-data/network/interfaces/macs/00:00:00:00:00:00/mac",
        "/latest/meta-data/tags/",
        "/latest/user-data/more",
        "/latest/dynamic/instance-identity/signature",
    ],
)
def test_paths_that_lead_nowhere(cloud: Cloud, web: Instance, path: str) -> None:
    assert lookup(path, guest_of(cloud, web)) is None


def test_without_keys_and_user_data(cloud: Cloud) -> None:
    guest = guest_of(cloud, create(cloud))
    assert lookup("/latest/user-data", guest) is None
    assert lookup("/latest/meta-data/public-keys/", guest) is None
    for folder in ("/latest/", "/latest/meta-data/"):
        listed = lookup(folder, guest)
        assert listed is not None
        assert b"user-data" not in listed
        assert b"public-keys" not in listed


def test_empty_user_data_is_user_data(cloud: Cloud) -> None:
    assert lookup("/latest/user-data", guest_of(cloud, create(cloud, user_data=b""))) == b""


# -- who is who ---------------------------------------------------------------------------------------------


def test_equal_addresses_in_two_vpcs_are_two_guests(cloud: Cloud, metadata: MetadataApp) -> None:
    one, two = create(cloud, name="one", user_data=b"of one"), create(cloud, name="two", user_data=b"of two")
    for number, instance in enumerate((one, two), start=1):
        put(cloud, instance, make_vpc(cloud, number, cidr="10.0.0.0/16"), ADDRESS)
    for vpc_id, instance in (("vpc-test0001", one), ("vpc-test0002", two)):
        assert ask(metadata, "/latest/meta-data/instance-id", vpc_id=vpc_id).text == instance.id
        assert ask(metadata, "/latest/user-data", vpc_id=vpc_id).text == f"of {instance.name}"
    assert ask(metadata, "/latest/user-data", vpc_id="vpc-test0003").status_code == 404


def test_any_of_its_addresses_says_who_it_is(placed: Instance, metadata: MetadataApp) -> None:
    for address in (ADDRESS, "10.0.0.6", "10.0.7.7"):
        assert ask(metadata, "/latest/meta-data/instance-id", address=address).text == placed.id
    for address in ("10.0.0.7", "127.0.0.1", "::1", "", "10.0.0.5%eth0"):
        assert ask(metadata, "/latest/meta-data/instance-id", address=address).status_code == 404


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Instance-ID", "Remote-Addr"])
def test_a_guest_cannot_say_that_it_is_another(placed: Instance, metadata: MetadataApp, header: str) -> None:
    value = f"for={ADDRESS}" if header == "Forwarded" else ADDRESS
    answer = ask(metadata, "/latest/user-data", address="10.0.0.99", headers={header: value})
    assert answer.status_code == 404
    assert b"bin/sh" not in answer.data


def test_a_deleted_guest_is_nobody(cloud: Cloud, web: Instance) -> None:
    nic = web.nics[0]
    assert nic.vpc_id is not None
    assert nic.address is not None
    cloud.instances.delete(operator(cloud), web.id)
    settle(cloud)
    assert cloud.metadata.of_guest(nic.vpc_id, nic.address) is None
    assert cloud.metadata.nic_at(nic.vpc_id, nic.address) is None


# -- requests -----------------------------------------------------------------------------------------------


def test_requests(placed: Instance, metadata: MetadataApp) -> None:
    found = ask(metadata, "/latest/meta-data/instance-id?x=y")
    assert (found.status_code, found.text) == (200, placed.id)
    assert found.headers["Content-Type"] == "text/plain; charset=utf-8"
    head = ask(metadata, "/latest/meta-data/instance-id", method="HEAD")
    assert (head.status_code, head.data, head.headers["Content-Length"]) == (200, b"", str(len(placed.id)))
    assert ask(metadata, "/latest/nothing").status_code == 404
    assert ask(metadata, "/latest/meta-data/%00%ff").status_code == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        refused = ask(metadata, "/latest/user-data", method=method)
        assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")


def test_who_asks_too_often_is_told_to_wait_alone(cloud: Cloud, placed: Instance, wall: WallOfATest) -> None:
    metadata = MetadataApp(cloud.metadata, wall, limit=RateLimit(per_s=0.5, burst=2, now_s=lambda: 0.0))
    path = "/latest/meta-data/instance-id"
    assert [ask(metadata, path).status_code for _ in range(3)] == [200, 200, 429]
    assert ask(metadata, path).headers["Retry-After"] == "2"
    assert ask(metadata, path, address="10.0.0.6").status_code == 200
    assert ask(metadata, path, vpc_id="vpc-test0002").status_code == 404


def test_a_database_in_trouble_is_no_absence(wall: WallOfATest) -> None:
    class Locked(MetadataService):
        def __init__(self) -> None: ...

        def of_guest(self, vpc_id: str, address: str) -> GuestMetadata | None:
            raise OperationalError("select", {}, Exception("database is locked"))

    answer = ask(MetadataApp(Locked(), wall), "/latest/user-data")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")


# -- tokens -------------------------------------------------------------------------------------------------


def new_token(app: MetadataApp, ttl_s: int = 60, **where: Any) -> str:
    answer = ask(app, "/latest/api/token", method="PUT", headers={TTL: str(ttl_s)}, **where)
    assert (answer.status_code, answer.headers[TTL]) == (200, str(ttl_s))
    assert len(answer.text) > 40
    return answer.text


def test_a_token_lets_through_until_it_expires(placed: Instance, metadata: MetadataApp, wall: WallOfATest) -> None:
    headers = {TOKEN: new_token(metadata, 60)}
    assert ask(metadata, "/latest/meta-data/instance-id", headers=headers).text == placed.id
    wall.at += timedelta(seconds=59.9)
    assert ask(metadata, "/latest/meta-data/instance-id", headers=headers).text == placed.id
    wall.at += timedelta(seconds=0.1)
    assert ask(metadata, "/latest/meta-data/instance-id", headers=headers).status_code == 401
    assert ask(metadata, "/latest/meta-data/instance-id").text == placed.id, "it is not asked for"


def test_a_token_is_one_instances_in_one_vpc(cloud: Cloud, placed: Instance, metadata: MetadataApp) -> None:
    other, elsewhere = create(cloud, name="other"), create(cloud, name="elsewhere")
    put(cloud, other, "vpc-test0001", "10.0.0.8")
    put(cloud, elsewhere, make_vpc(cloud, 2, cidr="10.0.0.0/16"), ADDRESS)
    headers = {TOKEN: new_token(metadata)}
    path = "/latest/meta-data/instance-id"
    assert ask(metadata, path, address="10.0.0.6", headers=headers).text == placed.id
    assert ask(metadata, path, address="10.0.0.8", headers=headers).status_code == 401
    assert ask(metadata, path, vpc_id="vpc-test0002", headers=headers).status_code == 401
    assert new_token(metadata) != new_token(metadata, address="10.0.0.8")


@pytest.mark.parametrize("token", ["", "x", "a" * 56, "é", "=" * 56, "A" * 5000])
def test_a_wrong_token_is_refused(placed: Instance, metadata: MetadataApp, token: str) -> None:
    answer = ask(metadata, "/latest/user-data", headers={TOKEN: token.encode().decode("latin-1")})
    assert answer.status_code == 401
    assert b"bin/sh" not in answer.data


def test_no_bit_of_a_token_may_change(placed: Instance, metadata: MetadataApp) -> None:
    token = new_token(metadata)
    for at in range(0, len(token) - 2, 5):
        changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        assert ask(metadata, "/latest/user-data", headers={TOKEN: changed}).status_code == 401


@pytest.mark.parametrize("ttl", ["1", str(MAX_TTL_S)])
def test_lives_of_tokens(placed: Instance, metadata: MetadataApp, ttl: str) -> None:
    assert new_token(metadata, int(ttl))


@pytest.mark.parametrize("ttl", [None, "", "0", "-1", "x", "1.5", str(MAX_TTL_S + 1), "9" * 400, "\u0661", "60, 60"])
def test_no_token_without_a_life(placed: Instance, metadata: MetadataApp, ttl: str | None) -> None:
    headers = {} if ttl is None else {TTL: ttl.encode().decode("latin-1")}
    assert ask(metadata, "/latest/api/token", method="PUT", headers=headers).status_code == 400


def test_no_token_for_forwarded_requests(placed: Instance, metadata: MetadataApp) -> None:
    for value in ("10.0.0.9", ""):
        headers = {TTL: "60", "X-Forwarded-For": value}
        assert ask(metadata, "/latest/api/token", method="PUT", headers=headers).status_code == 403


def test_tokens_are_put_only_and_for_guests_only(placed: Instance, metadata: MetadataApp) -> None:
    for method in ("GET", "HEAD", "POST"):
        answer = ask(metadata, "/latest/api/token", method=method, headers={TTL: "60"})
        assert (answer.status_code, answer.headers["Allow"]) == (405, "PUT")
    nobody = ask(metadata, "/latest/api/token", method="PUT", headers={TTL: "60"}, address="10.0.0.99")
    assert nobody.status_code == 404
