"""Who is told how jobs get on; the metrics are. Called by the thread that decides, so it must be quick."""

from __future__ import annotations

from typing import Literal, Protocol

StepOutcome = Literal["done", "failed"]


class JobObserver(Protocol):
    def step_ended(self, action: str, step: str, outcome: StepOutcome, seconds: float) -> None:
        """A step was done, or failed for good, ``seconds`` of the cloud clock after it began."""
        ...

    def step_retried(self, action: str, step: str) -> None:
        """A step failed in a way that may pass, and will be tried again."""
        ...

    def job_ended(self, action: str, status: str) -> None: ...


class NobodyLooks:
    """Implements JobObserver."""

    def step_ended(self, action: str, step: str, outcome: StepOutcome, seconds: float) -> None:
        pass

    def step_retried(self, action: str, step: str) -> None:
        pass

    def job_ended(self, action: str, status: str) -> None:
        pass
