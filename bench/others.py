"""The same work on two other servers that pretend to be a cloud: moto's and MiniStack, both by EC2's query API.

They live in an environment of their own (``build/bench-others``, or what IAAS_BENCH_OTHERS names), made when it
is not there. Theirs are RunInstances and DescribeInstances; ours the native calls that do the same.
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
from pathlib import Path

from bench.load import Target
from bench.start import TIMEOUT_S

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


@contextlib.contextmanager
def other_server(name: str) -> Iterator[Target]:
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
                    time.sleep(0.05)
            yield target
        finally:
            process.terminate()
            process.communicate(timeout=TIMEOUT_S)


def measure(name: str, *, count: int, clients: int) -> dict[str, float]:
    """Run instances one a call, show one by its id, and list a page of 100."""
    with other_server(name) as target:
        images = _IMAGE.findall(target.ask("POST", "/", _call("DescribeImages")))
        image = images[0].decode() if images else "ami-12345678"
        run = _call("RunInstances", ImageId=image, InstanceType="t3.micro", MinCount="1", MaxCount="1")
        known = _ID.findall(target.ask("POST", "/", run))[0].decode()
        created = target.run([("POST", "/", run)] * count, clients=clients)
        show = _call("DescribeInstances", **{"InstanceId.1": known})
        get = target.run([("POST", "/", show)] * (count // 4))
        page = target.run([("POST", "/", _call("DescribeInstances", MaxResults="100"))] * (count // 20))
    return {
        "accepted_per_s": created.per_s,
        "accept_p50_ms": created.percentile_ms(50),
        "accept_p99_ms": created.percentile_ms(99),
        "get_p50_ms": get.percentile_ms(50),
        "page_p50_ms": page.percentile_ms(50),
    }


def _call(action: str, **parameters: str) -> str:
    return urllib.parse.urlencode({"Action": action, "Version": "2016-11-15", **parameters})
