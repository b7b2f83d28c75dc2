"""The bodies that the load generator submits. Each item is new. A large body is made so fast that it delays nothing that is timed."""

from datetime import date, timedelta

from compose.bench.target import ACTIVITY_TYPE, COORDINATOR, MENTORS, MENTORS_OF_EACH, NOTES, ORGANIZATION

_ITEMS = [f'{{"mentor_id":"mentor-{number}","activity_date":"'.encode() for number in range(1, MENTORS + 1)]
_REST = f'","activity_type":"{ACTIVITY_TYPE}","duration_minutes":60,"notes":"{NOTES}"}}'.encode()


class Submissions:
    """Makes one body after another. No two of their items have the same mentor and day."""

    def __init__(self, first_day: date) -> None:
        self._first_day = first_day
        self._next = 0

    def body(self, items: int) -> bytes:
        """Returns a submission of this many items."""
        begin, self._next = self._next, self._next + items
        return self._body(ORGANIZATION, begin, items)

    def body_of(self, organization: str, items: int) -> bytes:
        """Returns a submission of this many items, at most 100, of another organization. It can have only one."""
        assert items <= MENTORS_OF_EACH, "each organization has one item for each of its mentors"
        return self._body(organization, 0, items)

    def _body(self, organization: str, begin: int, items: int) -> bytes:
        days: dict[int, bytes] = {}
        parts = []
        for index in range(begin, begin + items):
            number, mentor = divmod(index, MENTORS)
            day = days.get(number) or days.setdefault(number, (self._first_day + timedelta(days=number)).isoformat().encode())
            parts.append(_ITEMS[mentor] + day + _REST)
        begins = f'{{"organization_id":"{organization}","coordinator_id":"{COORDINATOR}","label":"benchmark","items":['
        return begins.encode() + b",".join(parts) + b"]}"
