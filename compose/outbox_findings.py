"""Checks whether events leave the outbox: which of them are held, and which relays own its slots."""

from collections.abc import Iterator

from sqlalchemy import Connection

from compose.findings import Finding, State
from orchestrator.process.settings import Settings
from orchestrator.storage.outbox import REFUSED, SLOTS, Outbox, outbox_now
from orchestrator.storage.slots import slot_holders

_OUTBOX, _RELAYS = "outbox", "relays"


def outbox_findings(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Yields the present findings about the outbox and its relays. Needs the worker's or the owner's rights."""
    outbox = outbox_now(connection)
    yield from _set_aside(outbox)
    yield from _relays(connection, settings, outbox)


def _set_aside(outbox: Outbox) -> Iterator[Finding]:
    for held in outbox.held:
        since = f"{held.rows:,} events for {held.topic} are set aside, the first since {held.since:%Y-%m-%d %H:%M:%S} UTC"
        if held.held_for == REFUSED:
            fix = (
                "compare the topic's max.message.bytes with the plan (bulkreg doctor names a topic that differs), correct it, then restart"
                " the relays: each retries these events once"
            )
            yield Finding(_OUTBOX, State.UNSAFE, f"{since}: Kafka refuses them as they are ({held.why})", fix)
        else:
            fix = f"check the topic, its leaders and its access rights; once {held.held_for} accepts events, they are sent automatically"
            yield Finding(_OUTBOX, State.ADVICE, f"{since}: {held.held_for} accepts no events ({held.why})", fix)
    if not outbox.held:
        yield Finding(_OUTBOX, State.OK, f"{outbox.rows:,} events wait, none is set aside")


def _relays(connection: Connection, settings: Settings, outbox: Outbox) -> Iterator[Finding]:
    holders = slot_holders(connection)
    lease_s = settings.relay_lease_ms / 1000
    for holder in holders:
        who = f"the relay with the database session {holder.pid} ({holder.address or 'this machine'})"
        if holder.silent_s > lease_s:
            detail = f"{who} holds {holder.slots} of {SLOTS} slots and has been silent for {holder.silent_s:.0f} s; its lease is {lease_s:g} s"
            fix = "resume or end that process; another running relay takes over its slots automatically"
            yield Finding(_RELAYS, State.UNSAFE, detail, fix)
        else:
            yield Finding(_RELAYS, State.OK, f"{who} holds {holder.slots} of {SLOTS} slots")
    if not holders and outbox.oldest is not None:
        is_late = outbox.waited_s * 1000 > settings.trouble_after_ms
        detail = (
            f"no relay holds a slot; events that wait: {outbox.rows:,}, the first since {outbox.oldest:%Y-%m-%d %H:%M:%S} UTC"
        )
        fix = "start one (bulkreg run relay), or see its log for why it ends"
        yield Finding(_RELAYS, State.UNSAFE if is_late else State.ADVICE, detail, fix)
    elif not holders:
        yield Finding(_RELAYS, State.OK, "no relay holds a slot, and no event waits")
