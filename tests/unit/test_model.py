"""Requests that the domain refuses to build for every caller."""

import pytest

from orchestrator.batches.model import RetryRequest


def test_a_retry_either_names_items_or_selects_retryable_ones() -> None:
    with pytest.raises(ValueError, match="be combined"):
        RetryRequest(item_ids=[], only_retryable=True)
