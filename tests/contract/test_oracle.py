"""The reachability oracle against packets: random clouds made of the real driver's networks and light guests.

``HYPOTHESIS_PROFILE=long`` tries other clouds in each run, and many more of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from iaas.drivers.interface import NetworkDriver
from iaas.drivers.linux import names
from iaas.drivers.linux.namespaces import list_namespaces
from iaas.drivers.linux.network import LinuxNetworkDriver
from iaas.reachability import Topology
from tests.contract.wire_guest import WireGuest
from tests.reachability.probes import NotInside, inside
from tests.reachability.proof import answered, disagreements
from tests.reachability.wires import wired
from tests.reachability.worlds import random_world
from tests.real_host import RealHost

pytestmark = pytest.mark.real

VPCS, QUESTIONS = 6, 160  # of one cloud
LEAST_VPCS, LEAST_PAIRS = 20, 500  # of one run
IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
CHOSEN = settings(
    max_examples=100 if IS_LONG else 4,
    derandomize=not IS_LONG,
    deadline=None,  # the machine that runs it is shared
    database=None,
    phases=[Phase.generate],  # a smaller cloud would have to be made anew for each attempt
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def driver(real_host: RealHost) -> Iterator[NetworkDriver]:
    made = LinuxNetworkDriver(real_host.fabric, real_host.tag, real_host.state_dir)
    yield made
    made.close()


@pytest.mark.timeout(3600 if IS_LONG else 300)
def test_packets_do_what_the_oracle_says(real_host: RealHost, driver: NetworkDriver) -> None:
    vpcs = pairs = 0

    @CHOSEN
    @given(st.integers(0, 2**32))
    def prove(seed: int) -> None:
        nonlocal vpcs, pairs
        world = random_world(seed, vpcs=VPCS, questions=QUESTIONS)
        verdicts = answered(world.topology, world.questions)
        with wired(real_host, driver, world.topology) as wires:
            found = disagreements(world.topology, wires, verdicts)
        assert not found, f"the cloud of seed {seed}:\n" + "\n\n".join(map(str, found))
        vpcs, pairs = vpcs + len(world.topology.vpcs), pairs + len(verdicts)

    prove()
    assert vpcs >= LEAST_VPCS
    assert pairs >= LEAST_PAIRS


def tamed(topology: Topology) -> Topology:
    """Return the topology as somebody would see it who does not know of reservations, pairs and routes."""
    return replace(
        topology,
        vpcs=tuple(replace(vpc, routes=()) for vpc in topology.vpcs),
        subnets=tuple(replace(subnet, reservations=()) for subnet in topology.subnets),
        ports=tuple(replace(port, allowed_pairs=()) for port in topology.ports),
    )


def test_an_oracle_that_is_wrong_is_found_out(real_host: RealHost, driver: NetworkDriver) -> None:
    world = random_world(7, vpcs=2, questions=120)
    verdicts = answered(tamed(world.topology), world.questions)
    with wired(real_host, driver, world.topology) as wires:
        found = disagreements(world.topology, wires, verdicts)
    assert found
    assert all("oracle: " in str(each) for each in found)


def test_nothing_of_a_cloud_is_left(real_host: RealHost, driver: NetworkDriver) -> None:
    before = list_namespaces(names.fabric_namespace(real_host.tag))
    topology = random_world(3, vpcs=2, questions=1).topology
    with wired(real_host, driver, topology) as wires:
        assert set(list_namespaces(names.fabric_namespace(real_host.tag))) > set(before)
        assert wires.namespaces
    assert list_namespaces(names.fabric_namespace(real_host.tag)) == before
    assert not {state.vpc_id for state in driver.vpcs()} & {vpc.vpc_id for vpc in topology.vpcs}


def test_a_probe_refuses_to_leave_from_where_it_is(real_host: RealHost) -> None:
    with (
        WireGuest(real_host, "inside") as guest,
        inside(guest.namespace),
        pytest.raises(NotInside),
        inside(guest.namespace),
    ):
        pytest.fail("the thread was there already")
