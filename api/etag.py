"""Entity tags (specification, 6, ETag): weak, of the batch's version and the query; If-Match looks at the edit version in them."""

import hashlib
import re
from collections.abc import Mapping

import orjson

from orchestrator.model import BatchView

# version . edit version . query
_TAG = re.compile(r'W/"(\d{1,18})\.(\d{1,9})\.([0-9a-f]{8})"', re.ASCII)


def query_hash(query: Mapping[str, object]) -> str:
    """Tells the representations of one batch apart. `query` is the query as understood, defaults filled in."""
    return hashlib.sha256(orjson.dumps(query, option=orjson.OPT_SORT_KEYS)).hexdigest()[:8]


def etag(batch: BatchView, query: str) -> str:
    """The tag of a batch's representation. Progress is not part of it, and so may differ under the same tag: it is weak."""
    return f'W/"{batch.version}.{batch.edit_version}.{query}"'


def none_matches(if_none_match: str | None, tag: str) -> bool:
    """Whether a client that sent If-None-Match has to be sent the representation (RFC 9110, 13.1.2)."""
    if if_none_match is None:
        return True
    given = [part.strip() for part in if_none_match.split(",")]
    return "*" not in given and tag.removeprefix("W/") not in [part.removeprefix("W/") for part in given]


def edit_versions(if_match: str | None) -> frozenset[int] | None:
    """The edit versions that If-Match allows, none for tags that are not ours; None when it allows any.

    RFC 9110, 13.1.1 compares strongly, so that a weak tag never matches; the specification asks for what a person edits instead.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    return frozenset(int(edit_version) for _, edit_version, _ in _TAG.findall(if_match))
