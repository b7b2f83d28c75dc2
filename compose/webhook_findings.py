"""What doctor finds about webhooks: disabled ones, and secrets that the keys of the settings don't open."""

from collections.abc import Iterator

from sqlalchemy import Connection

from compose.findings import Finding, State
from orchestrator.process.settings import Settings
from orchestrator.webhooks.deliveries import disabled_webhooks, unreadable_secrets
from orchestrator.webhooks.secrets import Sealer

_SUBJECT = "webhooks"


def webhook_findings(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Nothing if all is well."""
    keys = settings.webhook_key_list
    unreadable = unreadable_secrets(connection, Sealer(keys) if keys else None)
    if unreadable:
        yield Finding(
            _SUBJECT,
            State.UNSAFE,
            f"the secrets of {len(unreadable)} webhooks are encrypted under a key that is missing, so nothing is sent to them: {unreadable[0]}…",
            "add the key to BULKREG_WEBHOOK_KEYS, behind the first",
        )
    for webhook in disabled_webhooks(connection):
        yield Finding(
            _SUBJECT,
            State.ADVICE,
            f"the notifier has disabled webhook {webhook.webhook_id} of {webhook.organization_id} at {webhook.disabled_at:%Y-%m-%d %H:%M}:"
            f" {webhook.because}",
            "tell its administrator, who enables it when its receiver works again, or deletes it",
        )
