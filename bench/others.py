"""The same work on two other servers that pretend to be a cloud: moto's and MiniStack, both by EC2's query API.

They live in an environment of their own (``build/bench-others``, or what IAAS_BENCH_OTHERS names), made when it
is not there. Both keep everything in memory and answer RunInstances when the instances are there.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.load import Request, Target
from bench.start import POLL_S, TIMEOUT_S, pss_mib

PACKAGES = ("moto[server]", "ministack")
_SCOPE = "AKIAIOSFODNN7EXAMPLE/20260131/us-east-1/ec2/aws4_request"
HEADERS = {
    # Neither checks a signature; both read the service and the region out of it.
    "Authorization": f"AWS4-HMAC-SHA256 Credential={_SCOPE}, SignedHeaders=host, Signature=00",
    "Content-Type": "application/x-www-form-urlencoded",
}
_ID = re.compile(rb"<instanceId>([^<]+)</instanceId>")
_IMAGE = re.compile(rb"<imageId>([^<]+)</imageId>")


def environment() -> Path:
    """Return the folder of programs of the others' environment, made when absent."""
    folder = Path(os.environ.get("IAAS_BENCH_OTHERS") or "build/bench-others").absolute()
    if not (folder / "bin" / "moto_server").exists():
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "-q", "--clear", str(folder)], check=True, timeout=300)
        subprocess.run(
            [uv, "pip", "install", "-q", "-p", str(folder / "bin" / "python"), *PACKAGES], check=True, timeout=900
        )
    return folder / "bin"


@dataclass(frozen=True, slots=True)
class Other:
    """A running server of theirs; ``pss_mib`` as it was after the first answer."""

    target: Target
    answer_s: float
    pss_mib: float | None


@contextlib.contextmanager
def other_server(name: str) -> Iterator[Other]:
    """Give a running ``moto`` or ``ministack``."""
    programs = environment()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = {
        "moto": [str(programs / "moto_server"), "-H", "127.0.0.1", "-p", str(port)],
        "ministack": [str(programs / "ministack")],
    }[name]
    variables = {**os.environ, "GATEWAY_PORT": str(port), "GATEWAY_LISTEN": "127.0.0.1"}
    with tempfile.TemporaryDirectory(prefix="iaas-bench-") as folder:
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            target = Target(port=port, headers=HEADERS)
            give_up_at = time.monotonic() + TIMEOUT_S
            while True:
                try:
                    target.ask("POST", "/", _call("DescribeRegions"))
                    break
                except (OSError, RuntimeError):
                    if process.poll() is not None or time.monotonic() > give_up_at:
                        raise RuntimeError(f"{name} did not start") from None
                    time.sleep(POLL_S)
            answer_s = time.monotonic() - began
            yield Other(target, answer_s, pss_mib(process.pid))
        finally:
            process.terminate()
            process.communicate(timeout=TIMEOUT_S)


class EC2Calls:
    """The questions of :mod:`bench.compare` in EC2's words."""

    def __init__(self, target: Target) -> None:
        images = _IMAGE.findall(target.ask("POST", "/", _call("DescribeImages")))
        self._image = images[0].decode() if images else "ami-12345678"

    def create(self, count: int = 1, label: tuple[str, str] | None = None) -> Request:
        """Return the request that makes instances."""
        tags = {}
        if label is not None:
            names = ("ResourceType", "Tag.1.Key", "Tag.1.Value")
            tags = {
                f"TagSpecification.1.{name}": value for name, value in zip(names, ("instance", *label), strict=True)
            }
        number = {"MinCount": str(count), "MaxCount": str(count)}
        return "POST", "/", _call("RunInstances", ImageId=self._image, InstanceType="t3.micro", **number, **tags)

    def show(self, instance_id: str) -> Request:
        return "POST", "/", _call("DescribeInstances", **{"InstanceId.1": instance_id})

    def page(self) -> Request:
        return "POST", "/", _call("DescribeInstances", MaxResults="100")

    def labelled(self, key: str, value: str) -> Request:
        filters = {"Filter.1.Name": f"tag:{key}", "Filter.1.Value.1": value}
        return "POST", "/", _call("DescribeInstances", MaxResults="100", **filters)

    def ids(self, answer: bytes) -> list[str]:
        """Return the instances of an answer."""
        return [each.decode() for each in _ID.findall(answer)]

    def settle(self) -> None:
        """They run as soon as they are made."""


def _call(action: str, **parameters: str) -> str:
    return urllib.parse.urlencode({"Action": action, "Version": "2016-11-15", **parameters})
