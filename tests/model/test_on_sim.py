"""The instance API against the model, on the simulated backend."""

from __future__ import annotations

from tests.model.profiles import chosen
from tests.model.rules import InstanceRules
from tests.model.subject import SimSubject, Subject


class OnSim(InstanceRules):
    def make_subject(self) -> Subject:
        return SimSubject()


TestInstancesOnSim = OnSim.TestCase
TestInstancesOnSim.settings = chosen()
