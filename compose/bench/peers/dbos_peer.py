"""DBOS: a workflow for each item with one transaction of a datasource, enqueued in sets, from a queue that is polled every 0.1 s."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy
from dbos import DBOS, DBOSClient, DBOSConfig, SQLAlchemyDatasource

from compose.bench.peers import work

_CONCURRENCY = 32
_POLL_S = 0.1
# Of each process, besides those of the library itself. The product, on the same server, leaves about 75 connections.
_POOL = {"pool_size": 8, "max_overflow": 0}
_QUEUE = "items"
_VERSION = "bench"
_ITEM = sqlalchemy.text(work.item_sql(":batch_id", ":position"))
_SUBMIT = sqlalchemy.text(work.submit_sql(":batch_id", ":mentors", ":day"))


def _config(url: str, name: str) -> DBOSConfig:
    return {
        "name": "bench",
        "system_database_url": url,
        "sys_db_pool_size": _CONCURRENCY // 2,
        "executor_id": name,
        "application_version": _VERSION,
        "console_log_level": "ERROR",
    }


def _prepare(url: str) -> None:
    SQLAlchemyDatasource.create(url)
    DBOS(config=_config(url, "prepare"))
    DBOS.launch()
    DBOS.register_queue(_QUEUE, worker_concurrency=_CONCURRENCY, polling_interval_sec=_POLL_S)
    DBOS.destroy()


def _submit(url: str, items: int) -> None:
    batches = work.Batches(items)
    lock = threading.Lock()
    engine = sqlalchemy.create_engine(url, **_POOL)
    client = DBOSClient(system_database_url=url)
    work.begins()

    def submit() -> None:
        while True:
            with lock:
                batch = batches.take()
            if batch is None:
                return
            batch_id, mentors, day = batch
            with engine.begin() as connection:
                connection.execute(_SUBMIT, {"batch_id": batch_id, "mentors": mentors, "day": day})
                for position in work.positions():
                    client.enqueue_in_transaction(
                        connection,
                        {"queue_name": _QUEUE, "workflow_name": "register", "app_version": _VERSION, "application_name": "bench"},
                        batch_id,
                        position,
                    )

    with ThreadPoolExecutor(work.CLIENTS) as threads:
        for future in [threads.submit(submit) for _ in range(work.CLIENTS)]:
            future.result()


def _work(url: str) -> None:
    source = SQLAlchemyDatasource.create(url, engine_kwargs=_POOL, run_migrations=False)
    DBOS(config=_config(url, f"worker-{os.getpid()}"))

    @source.transaction(isolation_level="READ COMMITTED")
    def write(batch_id: str, position: int) -> None:
        source.sql_session().execute(_ITEM, {"batch_id": batch_id, "position": position})

    @DBOS.workflow(name="register")
    def register(batch_id: str, position: int) -> None:
        write(batch_id, position)

    DBOS.launch()
    threading.Event().wait()


if __name__ == "__main__":
    work.main(_prepare, _submit, _work)
