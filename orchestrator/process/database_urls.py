"""The URL of a database: one host, or several of which one accepts changes."""

import re
from collections.abc import Sequence

from sqlalchemy import URL, make_url

# The hosts of a URL in the form of libpq and psql: postgresql://user:password@first:5432,second:5432/database
_SEVERAL = re.compile(r"^(?P<start>[^:/?#]+://(?:[^@/?#]*@)?)(?P<hosts>[^@/?#]*,[^@/?#]*)(?P<rest>(?:[/?#].*)?)$", re.DOTALL)


def database_url(text: str) -> URL:
    """Reads a URL. Several hosts may be given as libpq takes them, or as SQLAlchemy does (`?host=first:5432&host=second:5432`).

    Raises ValueError and ArgumentError for text that is neither.
    """
    several = _SEVERAL.match(text)
    if several is None:
        return make_url(text).set(drivername="postgresql+psycopg2")
    url = make_url(several["start"] + several["rest"]).set(drivername="postgresql+psycopg2")
    return url.update_query_dict({"host": several["hosts"].split(",")})


def hosts_of(url: URL) -> Sequence[str]:
    """Returns the hosts of a URL, without their ports. A URL without a host names a socket on this machine."""
    if url.host:
        return [url.host]
    given = url.query.get("host", ())
    hosts = given.split(",") if isinstance(given, str) else given
    return [host.partition(":")[0] for host in hosts if host]
