"""What tests do to tables whose rows nobody may change: the audit (docs/decisions/0035-the-audit-is-append-only.md), the history of periods,
the erasures of notes, and the changes of webhooks."""

_TRIGGERS = (
    "ALTER TABLE registration.audit {0} TRIGGER audit_is_append_only;"
    " ALTER TABLE registration.period_change {0} TRIGGER period_changes_are_append_only;"
    " ALTER TABLE registration.notes_erasure {0} TRIGGER notes_erasures_are_append_only;"
    " ALTER TABLE orchestrator.webhook_change {0} TRIGGER webhook_changes_are_append_only"
)
UNPROTECTED, PROTECTED = _TRIGGERS.format("DISABLE"), _TRIGGERS.format("ENABLE")


def tampering(sql: str) -> str:
    """Statements that may change the audit's rows. Only the table's owner can run them."""
    return f"{UNPROTECTED}; {sql}; {PROTECTED}"
