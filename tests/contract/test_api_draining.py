"""A process of the API that stops loses no request of the clients that are connected."""

import threading

import httpx

from orchestrator.process.settings import Settings
from tests.support.api_server import running_api
from tests.support.waiting import HELD_S, PATIENCE_S, eventually


def test_a_request_on_an_open_connection_is_served_while_the_process_stops(settings: Settings) -> None:
    may_stop, stopped = threading.Event(), threading.Event()
    urls: list[str] = []

    def serve() -> None:
        with running_api(settings, drain_ms=int(HELD_S * 1000)) as server:
            urls.append(server.url)
            may_stop.wait(HELD_S)
        stopped.set()

    thread = threading.Thread(target=serve)
    thread.start()
    eventually(lambda: urls)
    with httpx.Client(base_url=urls[0]) as kept:
        first = kept.get("/healthz")
        assert (first.status_code, first.headers.get("Connection")) == (200, None)
        may_stop.set()
        eventually(lambda: not accepts(urls[0]))
        last = kept.get("/healthz")
        assert (last.status_code, last.headers.get("Connection")) == (200, "close")
    # With its last connection the process is done, long before its time is over.
    assert stopped.wait(PATIENCE_S)
    thread.join()


def accepts(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.ConnectError:
        return False
