"""What an operation can refuse. Each exception's docstring says what happened and what the caller can do."""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.mistakes import Mistake


class OperationError(Exception):
    """An operation was refused and nothing was changed. `code` is stable, the message is for people."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class NotFoundError(OperationError):
    """No such batch (or item) that this caller may see. Another organization's and a colleague's answer the same."""

    def __init__(self, what: str = "batch") -> None:
        super().__init__(f"{what}_not_found", f"There is no such {what}.")


class ForbiddenError(OperationError):
    """The caller's role, or who they are, does not allow this."""


class ConflictError(OperationError):
    """The batch's or an item's state does not allow this now. Read the status, then decide."""


class PreconditionError(OperationError):
    """Somebody changed the batch since the caller read it (If-Match). Read it again."""


class InvalidRequestError(OperationError):
    """The request is malformed. `mistakes` names every mistake at once."""

    def __init__(self, mistakes: Sequence[Mistake], code: str = "invalid_request") -> None:
        super().__init__(code, "The request has mistakes; see errors.")
        self.mistakes = tuple(mistakes)


class PreviewUnavailableError(OperationError):
    """An external registration service decides here, and can't be asked beforehand. Submit without a plan."""

    def __init__(self) -> None:
        detail = "An external service decides here, and can't be asked beforehand; submit without a plan."
        super().__init__("preview_unavailable", detail)


class KeyReusedError(OperationError):
    """The Idempotency-Key was used before, for another request. Use a new key for a new request."""

    def __init__(self) -> None:
        super().__init__("idempotency_key_reused", "This Idempotency-Key was used for a different request.")


@dataclass(frozen=True, slots=True)
class PlanDifference:
    """An item that would now end otherwise than its preview said: `success` or an error code."""

    position: int
    mentor_id: str
    planned: str
    now: str


class PlanChangedError(OperationError):
    """Something changed since the preview, so the submission was not accepted. Look at `differences`, preview again, then decide."""

    def __init__(self, differences: Sequence[PlanDifference]) -> None:
        super().__init__("plan_changed", "Something has changed since the preview; see differences.")
        self.differences = tuple(differences)
