"""How many requests a caller may send (docs/http.md). Off unless the settings set it for the caller's role."""

import time
from collections.abc import Callable, Mapping

from api.access.identity import Identity
from api.http.problems import ProblemError, retry_after
from orchestrator.batches.model import Role

_MINUTE_S = 60.0

# How many callers are remembered. Beyond that, callers whose account is empty are dropped.
_MAX_REMEMBERED = 10_000


class RateLimits:
    """The limits of one API process; several processes count separately. Only the event loop's thread uses it.

    Each request charges the caller's account a share of a minute. The account may run one minute ahead, so bursts are allowed.
    """

    def __init__(self, per_minute: Mapping[Role, int], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._paid_until: dict[tuple[str, ...], float] = {}

    def check(self, identity: Identity) -> None:
        """Charges a request. Raises ProblemError `too_many_requests` with a Retry-After."""
        limit = self._per_minute.get(identity.role)
        if limit is None:
            return
        now = self._clock()
        caller = (identity.subject, *identity.organizations)
        paid_until = max(now, self._paid_until.get(caller, now)) + _MINUTE_S / limit
        ahead = paid_until - now - _MINUTE_S
        # The sum of many shares is a minute but for rounding.
        if ahead > 1e-6:
            raise ProblemError(
                "too_many_requests",
                f"The limit is {limit:,} requests a minute. Retry later.",
                headers=retry_after(ahead),
            )
        self._paid_until[caller] = paid_until
        if len(self._paid_until) > _MAX_REMEMBERED:
            self._paid_until = {caller: until for caller, until in self._paid_until.items() if until > now}
