"""Whether the process is alive or ready."""

from collections.abc import Mapping
from typing import Literal

from schemas.api.base import Response


class HealthCheck(Response):
    """One condition of readiness."""

    ok: bool
    detail: str | None = None


class HealthResponse(Response, title="HealthAnswer"):
    """Whether the process is alive or ready, and if not, why not."""

    status: Literal["ok", "unavailable"]
    checks: Mapping[str, HealthCheck]
