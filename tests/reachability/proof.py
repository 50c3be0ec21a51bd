"""The oracle against packets: every question answered twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from iaas.reachability import Oracle, Protocol, Question, Reason, Topology, Verdict
from tests.reachability.probes import Prober, probes_for
from tests.reachability.wires import Wires
from tests.reachability.worlds import PORTS

IN_FLIGHT = 250
WINDOW_S = 1.2
PATIENT_WINDOW_S = 5.0  # for those that seem to disagree: the machine is shared, and answers may be late


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
    """Send the packets of all questions, and return where they did not do what the oracle said."""
    probes = dict(zip(verdicts, probes_for(topology, wires, verdicts), strict=True))
    with Prober.of(topology, wires) as prober:

        def differing(questions: Sequence[Question], window_s: float) -> list[Question]:
            seen = prober.send([probes[question] for question in questions], window_s=window_s)
            pairs = zip(questions, seen, strict=True)
            return [question for question, was_answered in pairs if was_answered != verdicts[question].reachable]

        everything = list(verdicts)
        doubtful: list[Question] = []
        for begin in range(0, len(everything), IN_FLIGHT):
            doubtful += differing(everything[begin : begin + IN_FLIGHT], WINDOW_S)
        left = differing(doubtful, PATIENT_WINDOW_S) if doubtful else []
    return [Disagreement(each, verdicts[each], not verdicts[each].reachable) for each in left]
