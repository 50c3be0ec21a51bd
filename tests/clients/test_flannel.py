"""Flannel itself, as it is published, on machines of both kinds: by its own tunnel, and by routes of the cloud."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from iaas.client import VPC, AllowedPair, Client, GuestUnavailable, Instance, InstanceSpec, NICSpec, Route
from iaas.client.tunnel import open_tunnel
from tests.e2e.cloud_server import CloudServer, wait_for
from tests.e2e.guests import seen_by, serve_peer_page, shell, wait_inside
from tests.e2e.network_world import READY_TIMEOUT_S, real_server
from tests.real_host import require_real_host

pytestmark = pytest.mark.real

PROGRAMS = {"flanneld": "IAAS_FLANNELD", "etcd": "IAAS_ETCD"}  # program -> the variable that says where it is
ADDRESSES = {"container": "10.30.1.11", "vm": "10.30.1.12"}  # of the nodes, which are called after their kinds
ETCD = f"http://{ADDRESSES['container']}:2379"
POD_NETWORKS = {"vxlan": "10.244.0.0/16", "extension": "10.245.0.0/16"}
CLOUD_ROUTE = Path(__file__).parent / "flannel" / "cloud-route"
UPLOAD_PORT = 9000


@dataclass(frozen=True)
class Cluster:
    """Two nodes in one VPC with all programs, etcd running on the container machine."""

    client: Client
    vpc: VPC
    nodes: dict[str, Instance]


@dataclass(frozen=True)
class Pod:
    """A namespace of a node with an address of the network that Flannel has given to the node."""

    node: Instance
    network: str  # the node's: "10.244.7.0/24"
    address: str


def programs() -> dict[str, Path]:
    """Return the programs by their names; skips the test when they were not built."""
    if missing := [variable for variable in PROGRAMS.values() if not os.environ.get(variable)]:
        pytest.skip(f"Flannel and etcd are fetched and built by make test-clients ({', '.join(missing)} not set)")
    return {name: Path(os.environ[variable]) for name, variable in PROGRAMS.items()}


def send(client: Client, guest: Instance, content: bytes, path: str) -> None:
    """Write a file into the guest through the tunnel; the API's own way is for small ones."""
    shell(guest, f"nc -l -p {UPLOAD_PORT} < /dev/null 2> /dev/null > /tmp/upload.gz & echo $! > /tmp/upload.pid")

    def connected() -> object:
        try:
            return open_tunnel(client, guest, UPLOAD_PORT)
        except GuestUnavailable:  # it does not listen yet
            return None

    tunnel = wait_for(connected, 20, "the guest to listen")
    with tunnel:
        tunnel.sendall(gzip.compress(content, compresslevel=1))
    wait_inside(guest, "! kill -0 $(cat /tmp/upload.pid) 2> /dev/null", 30, "the end of the upload")
    shell(guest, f"gunzip -c /tmp/upload.gz > {path}; chmod 755 {path}; rm /tmp/upload.gz")
    assert shell(guest, f"sha256sum {path}").split()[0] == hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    files = {name: path.read_bytes() for name, path in programs().items()}
    require_real_host()
    with real_server() as server, server.client() as client:
        vpc = client.vpcs.create(cidr="10.30.0.0/16", name="cluster").wait()
        client.subnets.create(name="nodes", vpc="cluster", cidr="10.30.1.0/24").wait()
        nodes = make_nodes(client)
        send(client, nodes["container"], files["etcd"], "/usr/bin/etcd")
        for node in nodes.values():
            send(client, node, files["flanneld"], "/usr/bin/flanneld")
            send(client, node, CLOUD_ROUTE.read_bytes(), "/usr/bin/cloud-route")
            tell_the_cloud(server, vpc, node)
            serve_peer_page(node)
            # What Kubernetes asks of a node, and Flannel looks for.
            shell(node, "[ -e /proc/sys/net/bridge ] || modprobe br_netfilter; echo 1 > /proc/sys/net/ipv4/ip_forward")
        start_etcd(nodes["container"])
        yield Cluster(client, vpc, nodes)


def make_nodes(client: Client) -> dict[str, Instance]:
    """Create the nodes; what the extension backend's pods send is allowed, the tunnel needs no permission."""
    pairs = [AllowedPair(cidr=POD_NETWORKS["extension"])]
    specs = [
        InstanceSpec(
            kind=kind,
            image="tiny",
            vcpus=1,
            memory_mib=512,
            name=kind,
            nesting=True if kind == "container" else None,
            nics=[NICSpec(subnet="nodes", address=address, allowed_pairs=pairs)],
        )
        for kind, address in ADDRESSES.items()
    ]
    made = [action.wait(timeout_s=120) for action in client.instances.create_many(specs)]
    return {str(each.name): each.wait_until_ready(timeout_s=READY_TIMEOUT_S) for each in made}


def tell_the_cloud(server: CloudServer, vpc: VPC, node: Instance) -> None:
    """Write the credentials that cloud-route uses."""
    text = f"VPC={vpc.id}\nTOKEN={server.credentials['api_token']}\n"
    command = "mkdir -p /etc/flannel; umask 077; cat > /etc/flannel/cloud"
    assert node.execute(["sh", "-ec", command], stdin=text).exit_code == 0


def start_etcd(node: Instance) -> None:
    arguments = f"--data-dir /tmp/etcd --listen-client-urls http://0.0.0.0:2379 --advertise-client-urls {ETCD}"
    shell(node, f"etcd {arguments} > /tmp/etcd.log 2>&1 < /dev/null &")
    wait_inside(node, f"wget -q -O - {ETCD}/health | grep -q true", 60, "etcd")


def configure(node: Instance, backend: str) -> None:
    """Put Flannel's configuration where it looks for it: into etcd (by its JSON gateway)."""
    kinds: dict[str, dict[str, object]] = {
        "vxlan": {"Type": "vxlan", "VNI": 7},
        "extension": {"Type": "extension", "PostStartupCommand": "/usr/bin/cloud-route"},
    }
    config = {"Network": POD_NETWORKS[backend], "Backend": kinds[backend]}
    pair = {"key": f"/{backend}/network/config", "value": json.dumps(config)}
    body = json.dumps({name: base64.b64encode(text.encode()).decode() for name, text in pair.items()})
    shell(node, f"wget -q -O - --post-data '{body}' {ETCD}/v3/kv/put")


def start_flannel(node: Instance, backend: str) -> Pod:
    """Start flanneld and, with the network it got, a pod that serves HTTP."""
    arguments = (
        f"--etcd-endpoints={ETCD} --etcd-prefix=/{backend}/network --iface=eth0"
        # For Docker's sake it would set up iptables, which the image does not have.
        f" --iptables-forward-rules=false --subnet-file=/run/flannel/{backend}.env"
    )
    shell(node, f"flanneld {arguments} > /tmp/{backend}.log 2>&1 < /dev/null & echo $! > /tmp/{backend}.pid")
    try:
        wait_inside(node, f"[ -s /run/flannel/{backend}.env ]", 60, "a network from Flannel")
    except AssertionError as error:
        raise AssertionError(f"{error}; flanneld said:\n{shell(node, f'tail -n 20 /tmp/{backend}.log')}") from error
    given = dict(line.split("=", 1) for line in shell(node, f"cat /run/flannel/{backend}.env").split())
    gateway = given["FLANNEL_SUBNET"].split("/")[0]
    prefix = gateway.rpartition(".")[0]
    shell(
        node,
        "ip netns add pod\n"
        f"ip link add pod mtu {given['FLANNEL_MTU']} type veth peer name eth0 netns pod\n"
        f"ip addr add {gateway}/24 dev pod\n"
        "ip link set pod up\n"
        "ip -n pod link set lo up\n"
        f"ip -n pod link set eth0 mtu {given['FLANNEL_MTU']} up\n"
        f"ip -n pod addr add {prefix}.10/24 dev eth0\n"
        f"ip -n pod route add default via {gateway}\n"
        "ip netns exec pod busybox httpd -p 80 -h /var/www",
    )
    return Pod(node, f"{prefix}.0/24", f"{prefix}.10")


@pytest.fixture(params=sorted(POD_NETWORKS))
def pods(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[tuple[str, Pod, Pod]]:
    """The backend's name, and a pod on each node."""
    backend = request.param
    configure(cluster.nodes["container"], backend)
    first, second = (start_flannel(node, backend) for node in cluster.nodes.values())
    yield backend, first, second
    for pod in (first, second):
        shell(pod.node, f"kill $(cat /tmp/{backend}.pid) $(ip netns pids pod); ip netns del pod")
        shell(pod.node, "ip link del flannel.7 2> /dev/null || true")
    cluster.vpc.routes.replace([]).wait()


def routes_in_force(cluster: Cluster) -> list[Route]:
    """Return the VPC's routes when the router has them; none while it has not."""
    vpc = cluster.vpc.refresh()
    return list(vpc.routes.iterate()) if vpc.applied_revision == vpc.revision else []


def test_pods_of_two_nodes_reach_each_other_as_themselves(cluster: Cluster, pods: tuple[str, Pod, Pod]) -> None:
    backend, first, second = pods
    if backend == "extension":
        routes = wait_for(lambda: len(found := routes_in_force(cluster)) == 2 and found, 30, "Flannel's routes")
        assert {route.destination: route.target.id for route in routes} == {
            first.network: first.node.id,
            second.network: second.node.id,
        }
    else:
        for pod, other in ((first, second), (second, first)):
            wait_inside(pod.node, f"ip route show {other.network} | grep -q flannel.7", 30, "the route into the tunnel")
        assert routes_in_force(cluster) == []
    assert seen_by(first.node, second.address, namespace="pod") == first.address
    assert seen_by(second.node, first.address, namespace="pod") == second.address
    tunnel = shell(first.node, "cat /sys/class/net/flannel.7/statistics/rx_packets 2> /dev/null || echo none").strip()
    assert tunnel == "none" if backend == "extension" else int(tunnel) > 0
