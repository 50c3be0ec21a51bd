from __future__ import annotations

import pytest

from iaas.cloud import Cloud
from tests.api.calling import NEW, Caller, make
from tests.factories import settle


def test_zones_and_hosts(admin: Caller, cloud: Cloud) -> None:
    assert [zone["name"] for zone in admin.get("/v1/zones", sort="name")["items"]] == ["zone-1", "zone-2"]
    assert admin.get("/v1/zones/zone-1")["status"] == "available"
    hosts = admin.get("/v1/hosts", zone="zone-1", status="up")["items"]
    assert {host["zone"] for host in hosts} == {"zone-1"}
    assert admin.get(f"/v1/hosts/{hosts[0]['name']}") == hosts[0] == admin.get(f"/v1/hosts/{hosts[0]['id']}")
    make(admin)
    settle(cloud)
    used = [host for host in admin.get("/v1/hosts")["items"] if host["vcpus_used"]]
    assert [(host["vcpus_used"], host["memory_mib_used"], host["disk_gib_used"]) for host in used] == [(1, 128, 1)]
    for path in ("/v1/zones/zone-9", "/v1/hosts/none"):
        admin.refused("GET", path, status=404, code="not_found")
    for path in ("/v1/zones/zone-1", f"/v1/hosts/{hosts[0]['id']}"):
        assert admin.send("PATCH", path, {"labels": {"rack": "7"}}, status=200)["labels"] == {"rack": "7"}
    assert [zone["id"] for zone in admin.get("/v1/zones", label_selector="rack=7")["items"]] == ["zone-1"]


def test_flavors(admin: Caller) -> None:
    body = {"name": "odd", "vcpus": 3, "memory_mib": 100, "root_disk_gib": 2, "labels": {"a": "b"}}
    response = admin.call("POST", "/v1/flavors", json=body)
    assert response.status_code == 201
    assert response.headers["Location"] == f"/v1/flavors/{response.json['id']}"
    assert admin.get("/v1/flavors/odd") == response.json
    assert body.items() <= response.json.items()
    admin.refused("POST", "/v1/flavors", body, status=409, code="name_taken")
    assert [each["name"] for each in admin.get("/v1/flavors", label_selector="a=b")["items"]] == ["odd"]
    assert admin.get("/v1/flavors", sort="vcpus")["items"][-1]["name"] == "xlarge"
    assert admin.send("PATCH", "/v1/flavors/odd", {"labels": {"a": None}}, status=200)["labels"] == {}
    admin.send("DELETE", "/v1/flavors/odd", status=204)
    admin.refused("DELETE", "/v1/flavors/odd", status=404, code="not_found")
    admin.send("POST", "/v1/flavors", body, status=201)


def test_images(admin: Caller) -> None:
    [image] = admin.get("/v1/images")["items"]
    assert (image["name"], sorted(image["kinds"]), image["status"]) == ("tiny", ["container", "vm"], "available")
    assert admin.get("/v1/images/tiny") == admin.get(f"/v1/images/{image['id']}") == image
    assert admin.get("/v1/images", status="pending")["items"] == []
    assert admin.send("PATCH", "/v1/images/tiny", {"labels": {"x": "y"}}, status=200)["labels"] == {"x": "y"}


def test_key_pairs(member: Caller) -> None:
    response = member.call("POST", "/v1/key_pairs", json={"name": "me", "labels": {"a": "b"}})
    assert response.status_code == 201
    made = response.json
    assert made["private_key"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert response.headers["Location"] == f"/v1/key_pairs/{made['id']}"
    shown = member.get("/v1/key_pairs/me")
    assert "private_key" not in shown
    assert shown["fingerprint"].startswith("SHA256:")
    given = member.send("POST", "/v1/key_pairs", {"name": "two", "public_key": shown["public_key"]}, status=201)
    assert "private_key" not in given
    assert given["fingerprint"] == shown["fingerprint"]
    member.refused("POST", "/v1/key_pairs", {"name": "me"}, status=409, code="name_taken")
    member.refused("PATCH", "/v1/key_pairs/two", {"name": "me"}, status=409, code="name_taken")
    changed = member.send("PATCH", "/v1/key_pairs/me", {"name": "mine", "labels": {"a": None, "c": "d"}}, status=200)
    assert (changed["name"], changed["labels"]) == ("mine", {"c": "d"})
    member.send("POST", "/v1/key_pairs", {"name": "me"}, status=201)
    member.send("DELETE", "/v1/key_pairs/mine", status=204)
    member.refused("GET", "/v1/key_pairs/mine", status=404, code="not_found")


def test_projects(admin: Caller, cloud: Cloud) -> None:
    response = admin.call("POST", "/v1/projects", json={"name": "p", "description": "d", "labels": {"a": "b"}})
    assert response.status_code == 201
    assert response.headers["Location"] == f"/v1/projects/{response.json['id']}"
    assert admin.get("/v1/projects/p") == response.json
    changed = admin.send("PATCH", "/v1/projects/p", {"name": "q", "description": "", "labels": {"a": None}}, status=200)
    assert (changed["name"], changed["description"], changed["labels"]) == ("q", "", {})
    admin.refused("POST", "/v1/projects", {"name": "q"}, status=409, code="name_taken")
    admin.refused("DELETE", "/v1/projects/default", status=409, code="in_use")
    token = admin.send("POST", "/v1/api_tokens", {"name": "t", "project": "q", "role": "member"}, status=201)["token"]
    headers = {"Authorization": f"Bearer {token}"}
    made = admin.send("POST", "/v1/instances", NEW, status=202, headers=headers)["instance"]
    document = admin.refused("DELETE", "/v1/projects/q", status=409, code="in_use")
    assert document["blockers"] == [{"type": "instance", "id": made["id"]}]
    settle(cloud)
    admin.send("DELETE", f"/v1/instances/{made['id']}", status=202, headers=headers)
    settle(cloud)
    admin.send("DELETE", "/v1/projects/q", status=204)
    admin.refused("GET", "/v1/instances", status=401, code="unauthenticated", headers=headers)
    admin.send("POST", "/v1/projects", {"name": "q"}, status=201)


@pytest.mark.parametrize(("collection", "secret"), [("api_tokens", "token"), ("access_keys", "secret_access_key")])
def test_credentials(admin: Caller, collection: str, secret: str) -> None:
    response = admin.call("POST", f"/v1/{collection}", json={"name": "c", "role": "reader", "labels": {"a": "b"}})
    assert response.status_code == 201
    made = response.json
    assert len(made[secret]) > 30
    assert response.headers["Location"] == f"/v1/{collection}/{made['id']}"
    shown = admin.get(f"/v1/{collection}/{made['id']}")
    assert shown == {key: value for key, value in made.items() if key != secret}
    assert [each["name"] for each in admin.get(f"/v1/{collection}", sort="name", name="c")["items"]] == ["c"]
    assert [each["id"] for each in admin.get(f"/v1/{collection}", label_selector="a=b")["items"]] == [made["id"]]
    changed = admin.send("PATCH", f"/v1/{collection}/{made['id']}", {"name": "d", "labels": {"a": None}}, status=200)
    assert (changed["name"], changed["labels"]) == ("d", {})
    admin.send("DELETE", f"/v1/{collection}/{made['id']}", status=204)
    admin.refused("GET", f"/v1/{collection}/{made['id']}", status=404, code="not_found")


def test_open_pages(nobody: Caller, admin: Caller) -> None:
    capabilities = nobody.get("/v1/capabilities")
    assert (capabilities["backend"], capabilities["zones"]) == ("sim", ["zone-1", "zone-2"])
    assert capabilities["proxy_url"] == "http://127.0.0.1:1"
    assert "exec" in capabilities["compute"]["vm"]
    assert nobody.get("/v1/health") == {"status": "ok", "backend": "sim", "problems": {}}
    assert nobody.get("/v1/openapi.json")["openapi"].startswith("3.1")
    page = nobody.call("GET", "/v1/docs/")
    assert page.status_code == 200
    assert b"swagger" in page.data.lower()
    for path in ("/", "/v1"):
        redirect = nobody.call("GET", path)
        assert (redirect.status_code, redirect.headers["Location"]) == (302, "/v1/docs/")


def test_jobs_and_events(admin: Caller, cloud: Cloud) -> None:
    one, two = make(admin, name="one"), make(admin, name="two")
    settle(cloud)
    jobs = admin.get("/v1/jobs", action="instance.create", sort="created_at")["items"]
    assert {job["resources"][0]["id"] for job in jobs} == {one["id"], two["id"]}
    assert len(admin.get("/v1/jobs", resource_id=one["id"], status="succeeded")["items"]) == 2
    assert admin.get("/v1/jobs", status="failed")["items"] == []
    assert admin.get(f"/v1/jobs/{jobs[0]['id']}", wait=60)["status"] == "succeeded"
    seen: list[str] = []
    cursor = "0"
    while True:
        page = admin.get("/v1/events", after=cursor, limit=1)
        seen += [event["id"] for event in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = page["next_cursor"]
    assert seen == [event["id"] for event in admin.get("/v1/events")["items"]]
    assert seen == sorted(seen, key=int)
    assert len(seen) == 6
    assert admin.get("/v1/events", after=seen[-1])["items"] == []
