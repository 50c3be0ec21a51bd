"""The oracle against packets: every question answered twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from iaas.reachability import Element, Oracle, Protocol, Question, Reason, Topology, Verdict
from tests.reachability.probes import Prober, probes_for
from tests.reachability.wires import Wires
from tests.reachability.worlds import PORTS

IN_FLIGHT = 400
WINDOW_S = 1.2
PATIENT_WINDOW_S = 4.0
ENOUGH = 10  # disagreements tell what is wrong; more of them only take longer


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One question, what the oracle says, and what the packets did."""

    question: Question
    verdict: Verdict
    was_answered: bool

    def __str__(self) -> str:
        packets = "came back" if self.was_answered else "did not come back"
        return f"{self.question}\npackets: {packets}\noracle: {self.verdict.explain()}"


def answered(topology: Topology, questions: Iterable[Question]) -> dict[Question, Verdict]:
    """Return the oracle's verdicts on what packets can decide.

    Left out is what hangs on chance. Where somebody else would answer the echo request, the question is put by UDP:
    the answer to that says who gave it.
    """
    oracle = Oracle(topology)
    found: dict[Question, Verdict] = {}
    for question in questions:
        verdict = oracle.answer(question)
        if question.protocol == Protocol.ICMP and verdict.reason in {Reason.OTHER_GUEST, Reason.OTHER_VPC}:
            question = replace(question, protocol=Protocol.UDP, port=PORTS[0])
            verdict = oracle.answer(question)
        if question.target_address is None and isinstance(question.target, str):
            continue  # a NIC without address: no packet can be made for it
        if not any(hop.rule == Reason.CLAIMED_TWICE for hop in verdict.path):
            found[question] = verdict
    return found


def disagreements(topology: Topology, wires: Wires, verdicts: dict[Question, Verdict]) -> list[Disagreement]:
    """Send the packets of all questions, and return where they did not do what the oracle said.

    Those that seem to differ are sent once more, the last ones one by one: answers may be late on a machine that is
    shared, and in a guest an honest packet waits behind a spoofed one for the same neighbour, whom nobody may ask
    for then.
    """
    probes = dict(zip(verdicts, probes_for(topology, wires, verdicts), strict=True))
    with Prober.of(topology, wires) as prober:

        def differing(questions: Sequence[Question], *, at_once: int, window_s: float) -> Iterator[Question]:
            for begin in range(0, len(questions), at_once):
                group = questions[begin : begin + at_once]
                seen = prober.send([probes[question] for question in group], window_s=window_s)
                # The kernel has room for some thousand neighbours (gc_thresh3), in all its namespaces together.
                forget(group)
                pairs = zip(group, seen, strict=True)
                yield from (
                    question for question, was_answered in pairs if was_answered != verdicts[question].reachable
                )

        def forget(questions: Sequence[Question]) -> None:
            hops = [hop for question in questions for hop in verdicts[question].path]
            wires.forget_neighbours({hop.id for hop in hops if hop.element == Element.INSTANCE})

        doubtful = list(differing(_by_vpc(topology, verdicts), at_once=IN_FLIGHT, window_s=WINDOW_S))
        doubtful = list(differing(doubtful, at_once=IN_FLIGHT, window_s=PATIENT_WINDOW_S))
        found: list[Question] = []
        for question in doubtful:
            found += differing([question], at_once=1, window_s=PATIENT_WINDOW_S)
            if len(found) == ENOUGH:
                break
    return [Disagreement(each, verdicts[each], not verdicts[each].reachable) for each in found]


def _by_vpc(topology: Topology, questions: Iterable[Question]) -> list[Question]:
    """Return the questions in an order in which few guests are concerned at once."""
    subnets = {port.nic_id: port.subnet_id for port in topology.ports}
    vpcs = {subnet.subnet_id: subnet.vpc_id or "" for subnet in topology.subnets}
    return sorted(questions, key=lambda question: vpcs[subnets[str(question.source)]])
