"""Values of events, and others that differ from them."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

BATCH, OTHER = (UUID(f"01997f00-0000-7000-8000-00000000000{digit}") for digit in "12")
TIME = datetime(2026, 3, 26, 10, 0, 0, 5, tzinfo=UTC)
LATER = TIME + timedelta(microseconds=1)
TRACE, OTHER_TRACE = "0af7651916cd43dd8448eb211c80319c", "1bf7651916cd43dd8448eb211c80319c"
ITEM = {"position": 0, "mentor_id": "m", "activity_type": "x", "activity_date": "2026-03-25", "duration_minutes": 60}
