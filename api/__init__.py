"""The HTTP API: submitting and polling."""
