"""An example of each body of the HTTP contract, for its documentation. The responses are those of docs/http.md, which a test compares with a
running product; other tests validate the rest against the models."""

import json
from collections.abc import Mapping, Sequence

from pydantic import BaseModel

from schemas.api.batches import BatchEvent
from schemas.examples import batches, organizations, records
from schemas.examples.batches import ITEMS
from schemas.examples.common import BATCH_ID, TIME, Json
from schemas.examples.records import ACTIVITY
from schemas.mistakes import COORDINATOR_UNKNOWN, Mistake

EXAMPLES: Mapping[type[BaseModel], Json] = {**batches.EXAMPLES, **records.EXAMPLES, **organizations.EXAMPLES}

# The mistakes in the examples of problems, by code.
MISTAKES: Mapping[str, Sequence[Mistake]] = {
    "invalid_request": [
        Mistake("/items/0/activity_date", "not_a_date", "must be a valid date, like 2026-03-25"),
        Mistake("/items/1/mentor_id", "empty", "must not be empty"),
        Mistake("/items/1/duration_minutes", "wrong_type", "must be an integer"),
    ],
    "coordinator_unknown": [COORDINATOR_UNKNOWN],
    "organization_required": [Mistake("/organization_id", "organization_required", "The token is for several organizations.")],
    "organization_differs": [Mistake("/organization_id", "organization_differs", "Two organizations are named.")],
}
MEMBERS: Mapping[str, Json] = {
    "plan_changed": {
        "differences": [{"position": 0, "mentor_id": "cecilie-03", "planned": "success", "now": "duplicate_activity"}]
    },
}

# Examples that are not JSON, by operation. They show the first item of the batch.
TEXTS: Mapping[str, str] = {
    "readFile": "Navn;Dato;Minutter;Rom\nAstrid Moe;25.03.2026;60;4\nBjørn Haugen;25/03/2026;1,5 h;4\n",
    "downloadCsv": (
        '"position","item_id","client_reference","mentor_id","activity_type","activity_date","duration_minutes","status","attempt",'
        '"activity_id","error_code","error_message","error_field","conflicting_activity_id",'
        '"revoked_at","revoked_by","revocation_reason"\r\n'
        '0,"01a20651-14d3-8a55-8b41-6a1a3bd00000","","astrid-01","hospital_visit","2025-04-01",60,"success",1,'
        '"01a20651-14d3-8a55-9b41-6a1a3bd00000","","","","","","",""\r\n'
    ),
    "downloadNdjson": f"{json.dumps(ITEMS[0])}\n",
    "downloadActivitiesCsv": (
        '"activity_id","mentor_id","coordinator_id","chapter_id","activity_type","activity_date","duration_minutes","overrides_duplicate",'
        '"registered_at","revoked_at","revoked_by","revocation_reason","batch_id","item_id"\r\n'
        f'"{ACTIVITY["activity_id"]}","astrid-01","ingrid","bergen","hospital_visit","2025-04-01",60,"false","{TIME}","","","",'
        f'"{BATCH_ID}","{ACTIVITY["item_id"]}"\r\n'
    ),
    "downloadActivitiesNdjson": f"{json.dumps(ACTIVITY)}\n",
    "followBatch": f"retry: 2000\n\nid: 3\nevent: batch\ndata: {json.dumps(EXAMPLES[BatchEvent])}\n\n",
}
