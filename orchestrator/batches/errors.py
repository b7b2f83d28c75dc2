"""Why an operation can be refused. Each exception's docstring says what happened and what the caller can do."""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.mistakes import Mistake


class OperationError(Exception):
    """An operation was refused and nothing was changed. `code` is stable, the message is for people."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class NotFoundError(OperationError):
    """This caller can see no such batch or item. Also raised for batches of another organization or coordinator."""

    def __init__(self, what: str = "batch") -> None:
        super().__init__(f"{what}_not_found", f"There is no such {what}. Check its id and the organization.")


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
    """An external registration service decides, and has no dry run. Submit without a plan."""

    def __init__(self) -> None:
        detail = "Preview is not available with an external registration service; submit without a plan."
        super().__init__("preview_unavailable", detail)


class RevocationUnavailableError(OperationError):
    """An external registration service has the activity, and can't be asked to revoke it in this way. Have it revoked there."""

    def __init__(self) -> None:
        detail = "An external registration service has the activities, so they can't be revoked here; have them revoked there."
        super().__init__("revocation_unavailable", detail)


class KeyReusedError(OperationError):
    """The Idempotency-Key was used before, for another request. Use a new key for a new request."""

    def __init__(self) -> None:
        super().__init__("idempotency_key_reused", "This Idempotency-Key was used for a different request. Use a new key.")


@dataclass(frozen=True, slots=True)
class PlanDifference:
    """An item whose predicted result has changed since the preview. Each result is `success` or an error code."""

    position: int
    mentor_id: str
    planned: str
    now: str


class PlanChangedError(OperationError):
    """Something changed since the preview, so the submission was not accepted. Look at `differences`, preview again, then decide."""

    def __init__(self, differences: Sequence[PlanDifference]) -> None:
        super().__init__(
            "plan_changed", "The result of some items has changed since the preview; see differences, then preview again."
        )
        self.differences = tuple(differences)
