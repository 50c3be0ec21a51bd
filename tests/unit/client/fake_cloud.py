"""A server as docs/api.md describes it, as small as the tests of SDK and CLI need; behind ``httpx.MockTransport``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import httpx

ENDPOINT = "http://cloud.test"
TOKEN = "tok-secret"
NOW = "2026-01-31T12:00:00.123Z"

Json = dict[str, Any]


def problem(status: int, code: str, detail: str = "no", **extra: Any) -> httpx.Response:
    headers = {"content-type": "application/problem+json", **extra.pop("headers", {})}
    body = {"type": "about:blank", "title": code, "status": status, "detail": detail, "code": code, **extra}
    return httpx.Response(status, json=body, headers=headers)


class FakeCloud:
    """Answers requests; ``requests`` keeps them. A job is through after ``polls_per_job`` reads of it."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.instances: dict[str, Json] = {}
        self.jobs: dict[str, Json] = {}
        self.plain: dict[str, list[Json]] = {
            "images": [{"id": "img-00000001", "name": "tiny", "status": "available", "kinds": ["vm", "container"]}],
            "flavors": [{"id": "flv-00000001", "name": "small", "vcpus": 1, "memory_mib": 256, "root_disk_gib": 1}],
            "zones": [{"id": "zone-0001", "name": "zone-a", "status": "up"}],
            "hosts": [],
            "vpcs": [{"id": "vpc-00000001", "name": "shop", "status": "active", "cidr": "10.0.0.0/16"}],
            "subnets": [{"id": "net-00000001", "name": "web", "status": "active", "cidr": "10.0.1.0/24"}],
            "nics": [],
            "address_reservations": [],
            "projects": [],
            "api_tokens": [],
            "access_keys": [],
            "key_pairs": [],
            "events": [],
        }
        self.proxy_url: str | None = None
        self.polls_per_job = 2
        self.job_error: Json | None = None
        self.exec_result: Json = {"exit_code": 0, "stdout": "", "stderr": "", "truncated": False}
        self.overrides: list[Callable[[httpx.Request], httpx.Response | None]] = []
        self._serial = 0

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.handle)

    def answer_next(self, *answers: httpx.Response | Exception) -> None:
        """Give these answers, in their order, to the next requests whatever they are."""
        queue = list(answers)

        def take(_: httpx.Request) -> httpx.Response | None:
            if not queue:
                return None
            answer = queue.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        self.overrides.append(take)

    def body(self, index: int = -1) -> Any:
        return json.loads(self.requests[index].content)

    def add_instance(self, name: str, **fields: Any) -> Json:
        self._serial += 1
        instance: Json = {
            "id": f"i-{self._serial:08d}",
            "name": name,
            "labels": {},
            "kind": "vm",
            "status": "running",
            "transition": None,
            "failure": None,
            "generation": 3,
            "flavor": "small",
            "vcpus": 1,
            "memory_mib": 256,
            "image": "tiny",
            "key_pairs": [],
            "nics": [
                {
                    "id": "nic-1",
                    "subnet_id": "net-1",
                    "vpc_id": "vpc-1",
                    "mac": "52:54:00:00:00:01",
                    "address": "10.128.0.9",
                }
            ],
            "address": "10.128.0.9",
            "guest_ready_at": NOW,
            "created_at": NOW,
            "updated_at": NOW,
            "new_in_version_9": {"a": 1},
            **fields,
        }
        self.instances[instance["id"]] = instance
        return instance

    def add_job(self, instance: Json, action: str, after: Json) -> Json:
        self._serial += 1
        job: Json = {
            "id": f"job-{self._serial:08d}",
            "action": action,
            "status": "queued",
            "progress": {"step": 0, "steps": 2, "name": "wait", "message": ""},
            "resources": [{"type": "instance", "id": instance["id"]}],
            "error": None,
            "created_at": NOW,
            "finished_at": None,
        }
        self.jobs[job["id"]] = {"public": job, "polls": 0, "instance": instance["id"], "after": after}
        return job

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        for override in self.overrides:
            answer = override(request)
            if answer is not None:
                return answer
        path = request.url.raw_path.decode().partition("?")[0]
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts == ["v1", "capabilities"]:
            compute = {"vm": ["exec", "console"], "container": ["exec"]}
            meta = {"version": "0.1.0", "backend": "sim", "dialects": ["v1"], "zones": ["zone-a"]}
            return httpx.Response(200, json={**meta, "proxy_url": self.proxy_url, "compute": compute, "networks": []})
        if parts == ["v1", "health"]:
            return httpx.Response(200, json={"status": "ok", "backend": "sim"})
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return problem(401, "unauthenticated", "the token is not known")
        if parts[1] in ("instances", "instances:batch"):
            return self._instances(request, parts[1:])
        if parts[1] == "jobs":
            return self._job(parts[2]) if len(parts) > 2 else self._list(request, self._public_jobs())
        return self._plain(request, parts[1:])

    def _public_jobs(self) -> list[Json]:
        return [each["public"] for each in self.jobs.values()]

    def _job(self, job_id: str) -> httpx.Response:
        if job_id not in self.jobs:
            return problem(404, "not_found", "there is no such job")
        entry = self.jobs[job_id]
        job = entry["public"]
        entry["polls"] += 1
        job.update(status="running", progress={"step": 1, "steps": 2, "name": "start_machine", "message": ""})
        if entry["polls"] >= self.polls_per_job:
            job.update(status="failed" if self.job_error else "succeeded", error=self.job_error, finished_at=NOW)
            if entry["after"].get("status") == "deleted":
                self.instances.pop(entry["instance"], None)
            elif not self.job_error:
                self.instances[entry["instance"]].update(entry["after"])
        return httpx.Response(200, json=job)

    def _list(self, request: httpx.Request, items: list[Json]) -> httpx.Response:
        query = dict(request.url.params)
        known = ("limit", "cursor", "name", "status", "label_selector", "sort", "after", "resource_id")
        unknown = sorted(set(query) - set(known))
        if unknown:
            errors = [{"field": unknown[0], "code": "unknown", "message": "unknown parameter"}]
            return problem(422, "invalid_input", "the request is not valid", errors=errors)
        items = [each for each in items if query.get("name") in (None, each.get("name"))]
        start, limit = int(query.get("cursor", query.get("after", 0))), int(query.get("limit", 100))
        following = str(start + limit) if start + limit < len(items) else None
        return httpx.Response(200, json={"items": items[start : start + limit], "next_cursor": following})

    def _plain(self, request: httpx.Request, parts: list[str]) -> httpx.Response:
        items = self.plain.get(parts[0])
        if items is None:
            return problem(404, "not_found", "there is no such page")
        if len(parts) == 1 and request.method == "POST":
            self._serial += 1
            item = {"id": f"x-{self._serial:08d}", "labels": {}, "created_at": NOW, **json.loads(request.content)}
            if parts[0] == "key_pairs" and "public_key" not in item:
                item["private_key"] = "PRIVATE\n"
            if parts[0] == "api_tokens":
                item["token"] = "fresh-token"
            items.append(item)
            return httpx.Response(201, json=item)
        if len(parts) == 1:
            return self._list(request, items)
        has_own_name = parts[0] not in ("api_tokens", "access_keys")  # names of credentials need not be unique
        item = next((each for each in items if parts[1] in (each["id"], has_own_name and each.get("name"))), {})
        if not item:
            return problem(404, "not_found", f"there is no {parts[0]} {parts[1]}")
        if request.method == "DELETE":
            items.remove(item)
            return httpx.Response(204)
        if request.method == "PATCH":
            item.update(json.loads(request.content))
        return httpx.Response(200, json=item)

    def _instances(self, request: httpx.Request, parts: list[str]) -> httpx.Response:
        if parts == ["instances:batch"]:
            made = [self._new_instance(each) for each in json.loads(request.content)["instances"]]
            instances, jobs = [each[0] for each in made], [each[1] for each in made]
            return httpx.Response(202, json={"instances": instances, "jobs": jobs[::-1]})
        if len(parts) == 1 and request.method == "POST":
            instance, job = self._new_instance(json.loads(request.content))
            return httpx.Response(202, json={"instance": instance, "job": job})
        if len(parts) == 1:
            return self._list(request, list(self.instances.values()))
        instance = next((each for each in self.instances.values() if parts[1] in (each["id"], each["name"])), {})
        if not instance:
            return problem(404, "not_found", f"there is no instance {parts[1]}")
        if parts[2:] == ["console"]:
            return httpx.Response(200, json={"output": "login: "})
        if parts[2:] == ["actions", "exec"]:
            return httpx.Response(200, json=self.exec_result)
        if request.method == "GET":
            return httpx.Response(200, json=instance)
        if request.method == "PATCH":
            instance.update({k: v for k, v in json.loads(request.content).items() if k != "labels"})
            return httpx.Response(200, json=instance)
        if request.method == "DELETE":
            return self._accepted(instance, "delete", "deleting", {"status": "deleted"})
        verb = parts[3]
        if verb == "start" and instance["status"] == "running":
            return problem(409, "invalid_state", "instance is running", resource={"type": "instance", "id": "i-1"})
        after = {"status": "stopped" if verb in ("stop", "resize") else "running", "transition": None}
        return self._accepted(instance, verb, f"{verb}ing", after)

    def _new_instance(self, spec: Json) -> tuple[Json, Json]:
        if spec.get("flavor") == "huge":
            raise AssertionError("tests that want a refusal use answer_next")
        fields = {**spec, "status": "pending", "transition": "creating", "guest_ready_at": None}
        instance = self.add_instance(fields.pop("name", None), **fields)
        after = {"status": "running", "transition": None, "guest_ready_at": NOW}
        return dict(instance), self.add_job(instance, "instance.create", after)

    def _accepted(self, instance: Json, action: str, transition: str, after: Json) -> httpx.Response:
        instance["transition"] = transition
        job = self.add_job(instance, f"instance.{action}", after)
        return httpx.Response(202, json={"instance": instance, "job": job})
