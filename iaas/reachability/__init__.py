"""The reachability oracle: can this NIC reach that one, and if not, where does the packet die and by which rule?

Pure functions over facts that the caller supplies; no packet is sent and nothing is asked of a driver. The rules are
those that ``iaas.drivers.interface.networks`` promises and that Linux follows in guests and routers.
"""

from iaas.reachability.oracle import Oracle, answer
from iaas.reachability.questions import (
    AddressIn,
    Direction,
    Element,
    Hop,
    Protocol,
    Question,
    Reason,
    Rule,
    Verdict,
)
from iaas.reachability.topology import Guest, Interface, Topology

__all__ = [
    "AddressIn",
    "Direction",
    "Element",
    "Guest",
    "Hop",
    "Interface",
    "Oracle",
    "Protocol",
    "Question",
    "Reason",
    "Rule",
    "Topology",
    "Verdict",
    "answer",
]
