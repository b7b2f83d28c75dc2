"""Webhooks: what an organization is told of by HTTP, with what signature, and what became of each delivery (docs/webhooks.md)."""
