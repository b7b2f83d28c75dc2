"""Everything that may happen, at random. Hypothesis chooses the steps, and shrinks a failing history to the shortest that still fails."""

from typing import Any

import orjson
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from schemas.envelope import CONTENT_TYPE_JSON, OutgoingEvent, Topic
from schemas.events import BATCH_SUBMITTED
from tests.simulation.broker import Fetch, Outage, Stored
from tests.simulation.clients import CLOSINGS, Clients
from tests.simulation.example import (
    codes,
    consumer_fates,
    fates,
    indexes,
    notary_fates,
    operation,
    overriding,
    relay_fates,
    some_operation,
    words,
)
from tests.simulation.forgery import FORGERIES, forged
from tests.simulation.model import COORDINATOR, ORGANIZATIONS, Asked, items_of
from tests.simulation.processes import places_of
from tests.simulation.snapshot import Values
from tests.simulation.world import Fate

ROLES = ("splitter", "registration", "aggregator")
LOSABLE = (Topic.COMMANDS, Topic.COMMANDS_BULK, Topic.RESULTS)
CONSUMED = (Topic.BATCHES, *LOSABLE)
CHANGES = ("south_in_scope", "newcomer_known", "leaver_left", "talks_known")
UPSTREAM = "/services/attendance"


class Simulation(Clients):
    """All steps: those of clients, of upstream services, of the product's processes, and trouble."""

    @initialize(codes=codes, organization=st.sampled_from(ORGANIZATIONS), parts=st.none() | st.integers(1, 3))
    def begin(self, codes: list[int], organization: str, parts: int | None) -> None:
        """A history without a batch would find nothing."""
        items = items_of(codes)
        if parts is None:
            self._submit(Asked(str(self._new_id()), organization, [items], key=f"key-{self._numbers}"), None)
        else:
            self._send_batch(Asked(str(self._new_id()), organization, [items], parts=min(parts, len(items))))

    # --- Upstream services -----------------------------------------------------------------------------------------------------

    @operation(
        6, codes=codes, overriding=overriding, organization=st.sampled_from(ORGANIZATIONS), parts=st.integers(1, 3), flaw=indexes
    )
    def upstream_batch(self, codes: list[int], overriding: list[bool], organization: str, parts: int, flaw: int) -> None:
        items = items_of(codes, overriding=overriding)
        asked = Asked(str(self._new_id()), organization, [items], parts=min(parts, len(items)))
        # One in twenty has one item too many, so its positions are not 0 to total - 1.
        asked.is_wrong = flaw % 20 == 19
        self._send_batch(asked)

    def _send_batch(self, asked: Asked) -> None:
        self.world.model.asked[asked.batch_id] = asked
        with self.step(f"an upstream batch {asked.batch_id} in {asked.parts} parts: {words(asked.variants[0])}"):
            self.send_part(asked, 1)

    @operation(5, index=indexes, part=st.integers(1, 3))
    def upstream_part(self, index: int, part: int) -> None:
        asked = self._pick(index)
        if asked.parts is not None:
            number = 1 + part % asked.parts
            with self.step(f"upstream sends part {number} of {asked.batch_id}"):
                self.send_part(asked, number)

    @operation(3, index=indexes)
    def upstream_contradicts(self, index: int) -> None:
        """Reuses the id of an existing batch with another item, or for another organization. The batch must continue unchanged."""
        asked = self._pick(index)
        if asked.batch_id in self.world.snapshot.batches and len(asked.variants) == 1:
            other = next(o for o in ORGANIZATIONS if o != asked.organization_id) if index % 2 else asked.organization_id
            values = asked.variants[0][0]._replace(duration_minutes=77)
            if other == asked.organization_id and asked.parts is not None:
                # The batch may be forgotten before this arrives. Then this is the batch.
                asked.variants.append((values, *asked.variants[0][1:]))
            elif self.world.snapshot.batches[asked.batch_id].status == "pending":
                return
            with self.step(f"upstream contradicts {asked.batch_id} for {other}"):
                self._send(asked, other, 1, asked.parts or 1, [(0, values)], len(asked.variants[0]))

    def send_part(self, asked: Asked, part: int) -> None:
        """Writes a part of an upstream batch to the topic, as its sender does."""
        assert asked.parts is not None
        numbered = list(enumerate(asked.variants[0]))
        rows = [row for row in numbered if row[0] % asked.parts == part - 1]
        if asked.is_wrong and part == 1:
            rows.append((len(numbered) + 3, rows[0][1]))
        asked.parts_sent.add(part)
        self._send(asked, asked.organization_id, part, asked.parts, rows, len(numbered))

    def _send(self, asked: Asked, organization: str, part: int, parts: int, rows: list[tuple[int, Values]], total: int) -> None:
        self._numbers += 1
        override = asked.variants[0][0].override_duplicates
        # An item says whether it overrides duplicates where the batch says otherwise.
        items = [
            {"position": position}
            | {name: v for name, v in values._asdict().items() if name != "override_duplicates" or v != override}
            for position, values in rows
        ]
        data = {
            "batch_id": asked.batch_id,
            "organization_id": organization,
            "coordinator_id": COORDINATOR,
            "override_duplicates": override,
            "part": part,
            "parts": parts,
            "total_items": total,
            "items": items,
        }
        headers = (
            ("ce_specversion", b"1.0"),
            ("ce_id", f"upstream-{self._numbers}".encode()),
            ("ce_source", UPSTREAM.encode()),
            ("ce_type", BATCH_SUBMITTED.encode()),
            ("content-type", CONTENT_TYPE_JSON),
        )
        self.world.broker.append(OutgoingEvent(Topic.BATCHES, asked.batch_id, headers, orjson.dumps(data)))

    # --- Processes --------------------------------------------------------------------------------------------------------------

    @operation(
        12,
        relay=st.integers(0, 1),
        acknowledged=st.none() | st.integers(0, 3),
        stored=st.integers(0, 2),
        silent=st.booleans(),
        fate=relay_fates,
    )
    def relay(self, relay: int, acknowledged: int | None, stored: int, silent: bool, fate: Fate | None) -> None:
        outage = None if acknowledged is None else Outage(acknowledged, acknowledged + stored, silent)
        process = self.world.relays[relay]
        if self.world.snapshot.outbox:
            self._do(self.world.relay(process, outage), fate, f"{process.name}{'' if outage is None else f', {outage}'}")

    def _consume(self, role: str, member: int, records: int, seed: int, fate: Fate | None, *, refused: bool = False) -> None:
        busy = self.world.busy(role)
        if not busy:
            return
        process = busy[member % len(busy)]
        action = self.world.consume(process, Fetch(records, seed), commit_refused=refused)
        self._do(action, fate, f"{process.name} takes {records} records{', its commits are refused' if refused else ''}")

    @operation(8, member=st.integers(0, 1), records=st.integers(1, 4), seed=indexes, fate=consumer_fates)
    def splitter(self, member: int, records: int, seed: int, fate: Fate | None) -> None:
        self._consume("splitter", member, records, seed, fate)

    @operation(12, member=st.integers(0, 1), records=st.integers(1, 8), seed=indexes, fate=consumer_fates)
    def registration(self, member: int, records: int, seed: int, fate: Fate | None) -> None:
        self._consume("registration", member, records, seed, fate)

    @operation(10, member=st.integers(0, 1), records=st.integers(1, 8), seed=indexes, fate=consumer_fates)
    def aggregator(self, member: int, records: int, seed: int, fate: Fate | None) -> None:
        self._consume("aggregator", member, records, seed, fate)

    @operation(3, role=indexes, member=st.integers(0, 1), seed=indexes)
    def commit_is_refused(self, role: int, member: int, seed: int) -> None:
        busy = [each for each in ROLES if self.world.busy(each)]
        if busy:
            self._consume(busy[role % len(busy)], member, 4, seed, None, refused=True)

    @operation(8, records=st.integers(1, 8), seed=indexes, victim=indexes, fate=consumer_fates | relay_fates)
    def everybody(self, records: int, seed: int, victim: int, fate: Fate | None) -> None:
        """A turn of each. One of them has a fate."""
        if self.world.is_idle:
            return
        with self.step(f"everybody takes {records} records") as told:
            actions = self.world.everybody(Fetch(records, seed))
            for number, action in enumerate(actions):
                what = self.world.perform(action, fate if number == victim % len(actions) else None)
                told.append(f"; {action.name}{what}" if what else "")

    @operation(4, patience=st.booleans(), parts=st.integers(0, 9), fate=fates)
    def sweep(self, patience: bool, parts: int, fate: Fate | None) -> None:
        action = self.world.sweep(patience=patience, parts_patience=parts < 9)
        self._do(action, fate, f"the sweeper, patience {patience}, with parts {parts < 9}")

    @operation(5, fate=notary_fates)
    def notary(self, fate: Fate | None) -> None:
        self._do(self.world.notary(), fate, "the notary")

    @operation(3, fate=fates)
    def purge(self, fate: Fate | None) -> None:
        if any(batch.is_deleted for batch in self.world.snapshot.batches.values()):
            self._do(self.world.purge(), fate, "the purge")

    @operation(2, fate=fates)
    def replay(self, fate: Fate | None) -> None:
        self._do(self.world.replay([]), fate, "the replay")

    @operation(
        15,
        what=st.sampled_from(["cancel", "cancel", "retry", "delete", "revoke", "close", "registration", "aggregator"]),
        index=indexes,
    )
    def rival(self, what: str, index: int) -> None:
        """One run waits inside its work, and another one comes that may want the same rows."""
        if not self.world.somebody_waits:
            return
        if what == "cancel":
            self.cancel(index, None)
        elif what == "retry":
            self.retry(index, None, [], None)
        elif what == "delete":
            self.delete(index, None)
        elif what == "revoke":
            self.revoke(index, None, None)
        elif what == "close":
            self.close_period(ORGANIZATIONS[index % 2], CLOSINGS[index % len(CLOSINGS)], None)
        else:
            self._consume(what, index, 8, index, None)

    @operation(5, crash=st.booleans())
    def go_on(self, crash: bool) -> None:
        if self.world.somebody_waits:
            with self.step("go on: ") as told:
                told.append(self.world.resume(crash=crash))

    # --- Trouble ----------------------------------------------------------------------------------------------------------------

    @operation(3, role=st.sampled_from(ROLES), place=indexes, member=st.integers(0, 1), announced=st.booleans())
    def partition_moves(self, role: str, place: int, member: int, announced: bool) -> None:
        process = self.world.roles[role][member]
        places = places_of(process.handler)
        moved = places[place % len(places)]
        with self.step(f"{moved[0]}/{moved[1]} moves to {process.name}{'' if announced else ', and the last owner is not told'}"):
            self.world.broker.give(moved, process.consumer, announced=announced)

    @operation(3, role=st.sampled_from(ROLES), member=st.integers(0, 1))
    def consumer_is_killed(self, role: str, member: int) -> None:
        process = self.world.roles[role][member]
        with self.step(f"{process.name} is killed"):
            self.world.die(process)
            process.restart()

    @operation(2, relay=st.integers(0, 1), notices=st.booleans())
    def relay_loses_its_session(self, relay: int, notices: bool) -> None:
        process = self.world.relays[relay]
        with self.step(f"{process.name} {'is killed' if notices else 'loses its session'}"):
            if notices:
                self.world.die(process)
                process.stop()
            else:
                process.cut()

    @operation(2)
    def late_copies_arrive(self) -> None:
        if self.world.broker.late:
            with self.step("what a producer had in hand arrives late"):
                self.world.broker.late_copies_arrive()

    @operation(2, index=indexes)
    def offsets_expire(self, index: int) -> None:
        groups = sorted({group for (group, _), offset in self.world.broker.committed.items() if offset})
        if groups:
            role = groups[index % len(groups)]
            with self.step(f"the offsets of {role} expire"):
                for process in self.world.roles[role]:
                    self.world.die(process)
                self.world.forget_offsets(role)

    def _stored(self, *topics: Topic) -> list[Stored]:
        return [record for topic in topics for record in self.world.broker.stored(topic)]

    @operation(3, index=indexes)
    def record_is_doubled(self, index: int) -> None:
        stored = self._stored(*CONSUMED)
        if stored:
            record = stored[-1 - index % len(stored)]
            with self.step(f"{record.topic}/{record.partition}@{record.offset} is sent once more"):
                self.world.broker.append(record.event)

    @operation(3, index=indexes, kind=st.sampled_from(sorted(FORGERIES)), another=st.booleans())
    def event_is_forged(self, index: int, kind: str, another: bool) -> None:
        """Another writer of the batches topic claims that the product has written this."""
        asked = self._pick(index)
        organization = next(o for o in ORGANIZATIONS if o != asked.organization_id) if another else asked.organization_id
        batch = self.world.snapshot.batches.get(asked.batch_id)
        self._numbers += 1
        version = batch.version if batch else 1
        with self.step(f"{kind} of {asked.batch_id} is forged for {organization}"):
            self.world.forge(forged(kind, self._numbers, asked.batch_id, organization, len(asked.variants[0]), version))

    @operation(1, index=indexes)
    def record_is_lost(self, index: int) -> None:
        """Rare, because only the sweeper can drive on what was lost, and the other promises are about what was not."""
        stored = self._stored(*LOSABLE)
        if stored:
            record = stored[-1 - index % len(stored)]
            with self.step(f"{record.topic}/{record.partition}@{record.offset} is lost"):
                self.world.broker.lost.add(record.place)
                self.world.model.lost |= {attempt[:2] for attempt in self.world.ledger.named(record.event).attempts}

    @operation(
        4,
        organization=st.sampled_from(ORGANIZATIONS),
        change=st.sampled_from(CHANGES),
    )
    def directory_changes(self, organization: str, change: str) -> None:
        with self.step(f"the directory of {organization}: {change} turns round"):
            self.world.change_directory(organization, change)

    # --- Chance -----------------------------------------------------------------------------------------------------------------

    @rule(what=some_operation())
    def happens(self, what: tuple[str, dict[str, Any]]) -> None:
        """One of all these."""
        name, arguments = what
        getattr(self, name)(**arguments)
