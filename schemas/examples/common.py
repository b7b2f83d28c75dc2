"""What several examples share."""

from typing import Any

Json = dict[str, Any]
BATCH_ID = "01a20651-14d3-7a55-8b41-6a1a3bd2c0f1"
ITEM_ID = "01a20651-14d3-8a55-8b41-6a1a3bd00002"
TIME = "2026-03-26T10:00:00.000000Z"
IDENTITY: Json = {"organization_id": "nordlys", "coordinator_id": "ingrid", "submitted_by": "ingrid"}
VISIT: Json = {"activity_type": "hospital_visit", "activity_date": "2025-04-01"}
