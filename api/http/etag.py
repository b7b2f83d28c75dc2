"""Entity tags (docs/http.md), all weak. A batch's tag has its version and the query, and If-Match compares the edit version in it. Other
tags are hashes of the content."""

import hashlib
import re
from collections.abc import Mapping

import orjson

from orchestrator.batches.model import BatchView

# version . edit version . query, in quotes. A proxy that compresses puts `-gzip` behind it (Apache; Jetty `--gzip`), and some drop the W/.
_TAG = re.compile(r'(?:W/)?"((\d{1,18})\.(\d{1,9})\.([0-9a-f]{8}))(?:[-;]{1,2}[A-Za-z0-9]{1,10})?"', re.ASCII)


# A hash of what is shown.
_CONTENT_TAG = re.compile(r'(?:W/)?"([0-9a-f]{32})(?:[-;]{1,2}[A-Za-z0-9]{1,10})?"', re.ASCII)


def content_etag(content: bytes) -> str:
    """The tag of a representation without a version."""
    return f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'


def query_hash(query: Mapping[str, object]) -> str:
    """Tells the representations of one batch apart. `query` is the query as understood, defaults filled in."""
    return hashlib.sha256(orjson.dumps(query, option=orjson.OPT_SORT_KEYS)).hexdigest()[:8]


def etag(batch: BatchView, query: str) -> str:
    """The tag of a batch's representation. It is weak, because progress is not part of it and may differ under the same tag."""
    return f'W/"{batch.version}.{batch.edit_version}.{query}"'


def version_etag(version: int, **shown: object) -> str:
    """The tag of something that has only one version, which `edit_versions` reads from it. `shown`: what else a representation depends on."""
    return f'W/"{version}.{version}.{query_hash(shown)}"'


def none_matches(if_none_match: str | None, tag: str) -> bool:
    """Whether the representation has to be sent to a client that sent If-None-Match (RFC 9110, 13.1.2)."""
    if if_none_match is None:
        return True
    given = [f'W/"{found[1]}"' for kind in (_TAG, _CONTENT_TAG) for found in kind.finditer(if_none_match)]
    return not _is_any(if_none_match) and tag not in given


def _is_any(tags: str) -> bool:
    return "*" in [part.strip() for part in tags.split(",")]


def edit_versions(if_match: str | None) -> frozenset[int] | None:
    """Returns the edit versions that If-Match allows: none for tags of another origin, None when it allows any.

    With the strong comparison of RFC 9110, 13.1.1 a weak tag never matches, so the edit version in the tag is compared instead.
    """
    if if_match is None or _is_any(if_match):
        return None
    return frozenset(int(given[3]) for given in _TAG.finditer(if_match))
