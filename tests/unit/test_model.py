"""Requests that the domain refuses to build for every caller."""

from uuid import uuid4

import pytest

from orchestrator.batches.model import RetryRequest


def test_a_retry_either_names_items_or_selects_retryable_ones() -> None:
    assert RetryRequest(item_ids=[uuid4()]).only_retryable is False
    assert RetryRequest(only_retryable=True).item_ids is None
    with pytest.raises(ValueError, match="be combined"):
        RetryRequest(item_ids=[], only_retryable=True)
