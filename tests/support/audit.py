"""What tests do to the audit, whose rows nobody may change (docs/decisions/0035-the-audit-is-append-only.md)."""

_TRIGGER = "ALTER TABLE registration.audit {} TRIGGER audit_is_append_only"
UNPROTECTED, PROTECTED = _TRIGGER.format("DISABLE"), _TRIGGER.format("ENABLE")


def tampering(sql: str) -> str:
    """Statements that may change the audit's rows. Only the table's owner can run them."""
    return f"{UNPROTECTED}; {sql}; {PROTECTED}"
