"""The reachability oracle: can this NIC reach that one, and if not, where does the packet die and by which rule?

Pure functions over facts that the caller supplies; no packet is sent and nothing is asked of a driver. The rules are
those that ``iaas.drivers.interface.networks`` promises and that Linux follows in guests and routers.
"""

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from iaas.reachability.oracle import Oracle, answer

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


def __getattr__(name: str) -> Any:
    # The words of questions are in the API's schemas; the rules are for whoever asks, and start-up is short.
    if name in {"Oracle", "answer"}:
        from iaas.reachability import oracle

        return getattr(oracle, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
