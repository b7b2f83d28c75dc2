"""procrastinate: jobs deferred in sets, ten at a time in each worker, finished jobs deleted, woken by notifications."""

import asyncio
import logging

import uvloop
from procrastinate import App, PsycopgConnector
from psycopg_pool import AsyncConnectionPool

from compose.bench.peers import work

_CONCURRENCY = 10
_ITEM = work.item_sql("%s", "%s").encode()
_SUBMIT = work.submit_sql("%s", "%s", "%s").encode()  # in the order of the text: id, day, mentors


def _app(url: str) -> App:
    return App(connector=PsycopgConnector(conninfo=url, min_size=1, max_size=_CONCURRENCY))


# It warns of an application in the main module, where its other commands would not find it.
logging.getLogger("procrastinate").setLevel(logging.ERROR)


async def _prepare(url: str) -> None:
    async with _app(url).open_async() as app:
        await app.schema_manager.apply_schema_async()


async def _submit(url: str, items: int) -> None:
    batches = work.Batches(items)
    async with (
        _app(url).open_async() as app,
        AsyncConnectionPool(url, min_size=work.CLIENTS, max_size=work.CLIENTS, open=False) as pool,
    ):
        work.begins()

        async def client() -> None:
            while batch := batches.take():
                batch_id, mentors, day = batch
                async with pool.connection() as connection:
                    await connection.execute(_SUBMIT, (batch_id, day, mentors))
                    jobs = [{"batch_id": batch_id, "position": position} for position in work.positions()]
                    await app.configure_task("register", connection=connection).batch_defer_async(*jobs)

        await asyncio.gather(*(client() for _ in range(work.CLIENTS)))


async def _work(url: str) -> None:
    app = _app(url)
    pool = AsyncConnectionPool(url, min_size=_CONCURRENCY, max_size=_CONCURRENCY, open=False)

    @app.task(name="register")
    async def register(batch_id: str, position: int) -> None:
        async with pool.connection() as connection:
            await connection.execute(_ITEM, (batch_id, position))

    async with app.open_async(), pool:
        await app.run_worker_async(concurrency=_CONCURRENCY, delete_jobs="successful", install_signal_handlers=False)


if __name__ == "__main__":
    work.main(
        lambda url: uvloop.run(_prepare(url)),
        lambda url, items: uvloop.run(_submit(url, items)),
        lambda url: uvloop.run(_work(url)),
    )
