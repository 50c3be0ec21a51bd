"""The instance API against the model, on the simulated backend."""

from __future__ import annotations

from hypothesis.stateful import run_state_machine_as_test

from tests.model.profiles import chosen
from tests.model.rules import InstanceRules
from tests.model.subject import SimSubject, Subject


class OnSim(InstanceRules):
    def make_subject(self) -> Subject:
        return SimSubject()


def test_both_kinds_do_what_the_model_says() -> None:
    run_state_machine_as_test(OnSim, settings=chosen())
