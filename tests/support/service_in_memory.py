"""What is outside the database while the states of an item are searched: the service in memory, and what each step chooses that it does with a
request."""

from dataclasses import dataclass, replace
from uuid import UUID, uuid5

import httpx

from orchestrator.registration.external import Question, Settled
from orchestrator.registration.external_revoking import RevocationQuestion, RevocationSettled

# What happens to a request. In the first two, the service decides and its response arrives. In the next two, it decides and the response is
# lost.
REGISTERS, REFUSES, REGISTERS_UNHEARD, REFUSES_UNHEARD, LOST, LATE = (
    "registers",
    "refuses",
    "registers?",
    "refuses?",
    "lost",
    "late",
)
WITHDRAWS = "withdraws"
# The same for a request to revoke.
REVOKES, REVOKES_UNHEARD = "revokes", "revokes?"
# For a cancelled item: the service's response arrives, or is lost, or a late request reaches the service between the two questions.
HEARD, UNHEARD, LANDS_BETWEEN = "heard", "unheard", "lands between"

_ACTIVITIES = UUID("5b0e6f0d-5c1f-5b0e-9d6c-3d7c1a1f7a10")


@dataclass(frozen=True, slots=True)
class Outside:
    """The state outside the database. `answers`: by key, the service's final response; `wire`: keys of requests that may still arrive;
    `holds`: what a registration process is about to ask, and the response that it has not stored yet."""

    is_external: bool = True
    answers: tuple[tuple[str, str], ...] = ()
    wire: frozenset[str] = frozenset()
    holds: tuple[tuple[Question | RevocationQuestion, Settled | RevocationSettled | None], ...] = ()

    def answered(self, key: str, answer: str) -> "Outside":
        return (
            self
            if key in dict(self.answers)
            else replace(self, answers=tuple(sorted({**dict(self.answers), key: answer}.items())))
        )

    @property
    def registered(self) -> list[str]:
        return [key for key, answer in self.answers if answer == "registered"]

    @property
    def revoked(self) -> list[str]:
        return [key for key, answer in self.answers if answer == "revoked"]


class Service(httpx.AsyncBaseTransport):
    """Keeps its promises about keys. `does` decides what happens to the next request."""

    def __init__(self) -> None:
        self.outside = Outside()
        self.does = HEARD
        self.bodies: dict[str, bytes] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/revoke"):
            return self._revoke(request.headers["Idempotency-Key"], request.content)
        if request.method == "POST":
            return self._post(request.headers["Idempotency-Key"], request.content)
        key = request.url.path.rsplit("/", 1)[1]
        if self.does == UNHEARD:
            raise httpx.ReadTimeout("nobody answers")
        if request.method == "DELETE":
            if self.does == LANDS_BETWEEN and key in self.outside.wire:
                self.outside = self.outside.answered(key, "registered")
            self.outside = self.outside.answered(key, "withdrawn")
        return self._told(key)

    def _post(self, key: str, body: bytes) -> httpx.Response:
        assert self.bodies.setdefault(key, body) == body, f"{key} was sent with another body"
        item_id, refusals = key.split(":")
        answers = dict(self.outside.answers)
        before = [answers.get(f"{item_id}:{number}") for number in range(int(refusals))]
        assert set(before) <= {"refused", "withdrawn"}, f"{key} is used, although the earlier keys have the responses {before}"
        if self.does == LATE:
            self.outside = replace(self.outside, wire=self.outside.wire | {key})
        elif self.does != LOST:
            answer = {REGISTERS: "registered", REGISTERS_UNHEARD: "registered", WITHDRAWS: "withdrawn"}.get(self.does, "refused")
            self.outside = self.outside.answered(key, answer)
        if self.does in (LOST, LATE, REGISTERS_UNHEARD, REFUSES_UNHEARD):
            raise httpx.ReadTimeout("nobody answers")
        return self._told(key)

    def _revoke(self, key: str, body: bytes) -> httpx.Response:
        assert self.bodies.setdefault(key, body) == body, f"{key} came with another body"
        item_id, request = key.split(":revoke:")
        answers = dict(self.outside.answers)
        before = [answers.get(f"{item_id}:revoke:{number}") for number in range(1, int(request))]
        assert set(before) <= {"refused"}, f"{key} is used, and the keys before it were answered {before}"
        assert self.outside.registered, "nothing is registered that could be revoked"
        if self.does == LATE:
            self.outside = replace(self.outside, wire=self.outside.wire | {key})
        elif self.does != LOST:
            self.outside = self.outside.answered(key, "revoked" if self.does in (REVOKES, REVOKES_UNHEARD) else "refused")
        if self.does not in (REVOKES, REFUSES):
            raise httpx.ReadTimeout("nobody answers")
        return self._told(key)

    def _told(self, key: str) -> httpx.Response:
        answer = dict(self.outside.answers).get(key)
        if answer is None:
            return httpx.Response(404)
        said = {"key": key, "status": answer}
        if answer == "registered":
            said["activity_id"] = activity_of(key)
        if answer == "refused":
            said["code"] = "period_closed" if ":revoke:" in key else "mentor_not_found"
            return httpx.Response(422, json=said)
        return httpx.Response(200, json=said)


def activity_of(key: str) -> str:
    return str(uuid5(_ACTIVITIES, key))
