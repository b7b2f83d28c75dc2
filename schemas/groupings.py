"""What activities can be summed by."""

from enum import StrEnum


class Grouping(StrEnum):
    """One way to group activities; several together make smaller groups."""

    ACTIVITY_TYPE = "activity_type"
    MONTH = "month"
    CHAPTER = "chapter"
    COORDINATOR = "coordinator"
