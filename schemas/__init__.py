"""Wire formats, and nothing else: events, API bodies, the CloudEvents envelope."""
