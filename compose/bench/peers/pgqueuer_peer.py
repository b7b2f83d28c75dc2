"""pgqueuer: jobs submitted in sets, fetched in sets of 100, over a pool of asyncpg connections on uvloop."""

import asyncio
import json
from datetime import timedelta

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from compose.bench.peers import work

_FETCHED = 100
# Notifications wake a worker sooner. This is for those that arrive while it is starting.
_LOOK_AT_LEAST_EVERY = timedelta(seconds=1)
_CONNECTIONS = 16
_ITEM = work.item_sql("$1", "$2")
_SUBMIT = work.submit_sql("$1", "$2", "$3")


async def _prepare(url: str) -> None:
    connection = await asyncpg.connect(url)
    await Queries.from_asyncpg_connection(connection).install()
    await connection.close()


async def _submit(url: str, items: int) -> None:
    batches = work.Batches(items)
    async with asyncpg.create_pool(url, min_size=work.CLIENTS, max_size=work.CLIENTS) as pool:
        work.begins()

        async def client() -> None:
            while batch := batches.take():
                batch_id, mentors, day = batch
                async with pool.acquire() as connection, connection.transaction():
                    await connection.execute(_SUBMIT, batch_id, mentors, day)
                    payloads = [json.dumps([batch_id, position]).encode() for position in work.positions()]
                    names, priorities = ["item"] * len(payloads), [0] * len(payloads)
                    await Queries.from_asyncpg_connection(connection).enqueue(names, payloads, priorities)

        await asyncio.gather(*(client() for _ in range(work.CLIENTS)))


async def _work(url: str) -> None:
    async with asyncpg.create_pool(url, min_size=_CONNECTIONS, max_size=_CONNECTIONS) as pool:
        queue = PgQueuer.from_asyncpg_pool(pool)

        @queue.entrypoint("item")
        async def register(job: Job) -> None:
            assert job.payload is not None
            await pool.execute(_ITEM, *json.loads(job.payload))

        await queue.run(dequeue_timeout=_LOOK_AT_LEAST_EVERY, batch_size=_FETCHED)


if __name__ == "__main__":
    work.main(
        lambda url: uvloop.run(_prepare(url)),
        lambda url, items: uvloop.run(_submit(url, items)),
        lambda url: uvloop.run(_work(url)),
    )
