"""The load generator as a process: `python -m compose.bench.load` reads jobs and writes results, one line of JSON each.

It also measures its own CPU time: a generator that is the bottleneck would measure itself.
"""

import asyncio
import resource
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from datetime import date

import aiohttp
import orjson
import uvloop

from compose.bench.jobs import (
    MEDIUM_ITEMS,
    SMALL_ITEMS,
    Beside,
    CancelRunning,
    Closed,
    Job,
    Open,
    Scattered,
    Seen,
    SeenCancel,
    Steady,
    most_items,
    pairs,
)
from compose.bench.load_client import LoadClient
from compose.bench.submissions import Submissions
from compose.bench.target import ORGANIZATION, ORGANIZATIONS, other_organization

_GIVE_UP_S = 600.0
JOBS: dict[str, type[Job]] = {kind.__name__: kind for kind in (Closed, Scattered, Open, Steady, Beside, CancelRunning)}


async def perform(session: aiohttp.ClientSession, job: Job, first_day: date) -> Seen | SeenCancel:
    """Runs one job. Raises UnexpectedResponseError, alone or in a group, and TimeoutError after ten minutes."""
    submissions = Submissions(first_day)
    client = LoadClient(session, ORGANIZATION)
    async with asyncio.timeout(_GIVE_UP_S):
        match job:
            case Closed():
                return await _closed([(client, submissions.body(job.batch_items)) for _ in range(job.batches)], job)
            case Scattered():
                assert job.batches <= ORGANIZATIONS, "each batch is of another organization"
                names = [other_organization(number) for number in range(job.batches)]
                return await _closed(
                    [(LoadClient(session, name), submissions.body_of(name, job.batch_items)) for name in names], job
                )
            case Open():
                return await _open(client, job, submissions)
            case Steady():
                return await _steady(client, job, submissions)
            case Beside():
                return await _beside(client, job, submissions)
            case CancelRunning():
                return await _cancel(client, job, submissions)


async def _closed(batches: list[tuple[LoadClient, bytes]], job: Closed | Scattered) -> Seen:
    accepted: list[float] = []
    found: list[float] = []
    finished: list[float] = []

    async def work() -> None:
        while batches:
            (client, body), began = batches.pop(), time.perf_counter()
            batch_id = await client.submit(body)
            answered = time.perf_counter()
            accepted.append(answered - began)
            seen = await client.look(batch_id)
            found.append(time.perf_counter() - answered)
            await client.finished(batch_id, seen)
            finished.append(time.perf_counter() - began)

    cpu, began = time.process_time(), time.perf_counter()
    async with asyncio.TaskGroup() as clients:
        for _ in range(job.clients):
            clients.create_task(work())
    total_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    return Seen(most_items(job), total_s, cpu_s, accepted, found, finished)


async def _open(client: LoadClient, job: Open, submissions: Submissions) -> Seen:
    bodies = [submissions.body(job.batch_items) for _ in range(job.batches)]
    accepted: list[float] = []
    last = ""

    async def work() -> None:
        nonlocal last
        while bodies:
            body, began = bodies.pop(), time.perf_counter()
            last = await client.submit(body)
            accepted.append(time.perf_counter() - began)

    cpu, began = time.process_time(), time.perf_counter()
    async with asyncio.TaskGroup() as clients:
        for _ in range(job.clients):
            clients.create_task(work())
    # Most other batches end before the last. If each client waited for its own, that took 3 % of the result; a listing every 20 ms took 7 %.
    await client.finished(last)
    await client.all_finished()
    total_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    await client.check_none_failed()
    return Seen(most_items(job), total_s, cpu_s, accepted)


async def _steady(client: LoadClient, job: Steady, submissions: Submissions) -> Seen:
    number = pairs(job)
    bodies = [(submissions.body(SMALL_ITEMS), submissions.body(MEDIUM_ITEMS)) for _ in range(number)]
    accepted: list[float] = []
    found: list[float] = []
    finished: list[float] = []

    async def watch(body: bytes, due: float) -> None:
        await client.finished(await client.submit(body))
        finished.append(time.perf_counter() - due)

    async def look_up(body: bytes, due: float) -> None:
        batch_id = await client.submit(body)
        answered = time.perf_counter()
        accepted.append(answered - due)
        await client.find(batch_id)
        found.append(time.perf_counter() - answered)

    step_s = (SMALL_ITEMS + MEDIUM_ITEMS) / job.items_per_s / 2
    cpu, began = time.process_time(), time.perf_counter()
    async with asyncio.TaskGroup() as requests:
        for index, pair in enumerate(bodies):
            for half, (act, body) in enumerate(zip((watch, look_up), pair, strict=True)):
                due = began + (2 * index + half) * step_s
                await asyncio.sleep(due - time.perf_counter())
                requests.create_task(act(body, due))
    await client.all_finished()
    total_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    await client.check_none_failed()
    return Seen(most_items(job), total_s, cpu_s, accepted, found, finished)


async def _beside(client: LoadClient, job: Beside, submissions: Submissions) -> Seen:
    finished: list[float] = []
    is_running = asyncio.Event()
    larges = 0

    async def keep_running() -> None:
        nonlocal larges
        while len(finished) < job.batches:
            batch_id = await client.submit(submissions.body(job.large_items))
            larges += 1
            is_running.set()
            await client.finished(batch_id)
            is_running.clear()

    async def work() -> None:
        while len(finished) < job.batches:
            await is_running.wait()
            body, began = submissions.body(SMALL_ITEMS), time.perf_counter()
            await client.finished(await client.submit(body))
            finished.append(time.perf_counter() - began)

    cpu, began = time.process_time(), time.perf_counter()
    async with asyncio.TaskGroup() as clients:
        clients.create_task(keep_running())
        clients.create_task(work())
    total_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    return Seen(len(finished) * SMALL_ITEMS + larges * job.large_items, total_s, cpu_s, finished_s=finished)


async def _cancel(client: LoadClient, job: CancelRunning, submissions: Submissions) -> SeenCancel:
    batch_id = await client.submit(submissions.body(job.items))
    await client.begun(batch_id)
    began = time.perf_counter()
    counts = await client.cancel(batch_id)
    answered_s = time.perf_counter() - began
    return SeenCancel(batch_id, answered_s, counts["pending"], counts["completed"], counts["failed"], counts["cancelled"])


async def serve(api: str, token: str, read: Callable[[], Coroutine[None, None, bytes]]) -> None:
    """Runs the jobs that it reads, until an empty line."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=0)  # as many connections as clients
    async with aiohttp.ClientSession(api, headers=headers, connector=connector) as session:
        while line := await read():
            asked = orjson.loads(line)
            job = JOBS[asked["kind"]](**asked["job"])
            seen = await perform(session, job, date.fromisoformat(asked["first_day"]))
            sys.stdout.buffer.write(orjson.dumps(asdict(seen)) + b"\n")
            sys.stdout.buffer.flush()


def main() -> None:
    """Reads from the first line where the product is, then serves."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    where = orjson.loads(sys.stdin.buffer.readline())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(where["api"], where["token"], lambda: asyncio.to_thread(sys.stdin.buffer.readline)))


if __name__ == "__main__":
    main()
