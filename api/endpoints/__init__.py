"""One function per endpoint, and the conversion of the domain's views to JSON."""
