"""A node of a cluster whose pods are processes of this machine, so that hooks, probes, rollouts and drains meet the real product.

It does what the kubelet does for the pods of the chart: their commands, environments and secrets, startup and readiness probes, restarts,
preStop, SIGTERM and the time until SIGKILL. Each image is a folder of code. There is no isolation: each pod has a loopback address and
a host name of its own, and nothing else.
"""

import base64
import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.waiting import PATIENCE_S

Object = Mapping[str, Any]
PAUSE_S = 0.2
"""Between two looks at the cluster or at a process: polling delays what the node does, and decides nothing."""
# A pod's host is called like the pod. The product counts the starts of a role by host.
OWN_NAME = ("unshare", "--map-root-user", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"')
TAINT = "bulkreg-test"
"""Keeps pods away that do not tolerate it."""
# What the controllers know, and where it is. They take no loopback address for a pod.
PODS, HERE = "10.77.0.", "127.77.0."


def address_here(pod_ip: str) -> str:
    return pod_ip.replace(PODS, HERE, 1)


class Cluster:
    """The API server that a kubeconfig names, while it is open."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())

        def named(kind: str, name: str) -> Object:
            [found] = [each[kind] for each in config[f"{kind}s"] if each["name"] == name]
            return dict(found)

        context = named("context", config["current-context"])
        cluster, user = named("cluster", context["cluster"]), named("user", context["user"])
        tls = ssl.create_default_context()
        if cluster.get("insecure-skip-tls-verify"):
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        elif "certificate-authority-data" in cluster:
            tls.load_verify_locations(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        self._http = httpx.Client(base_url=cluster["server"], headers=headers, verify=tls, timeout=PATIENCE_S, trust_env=False)

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(self, method: str, path: str, *, fine: Sequence[int] = (), body: Object | None = None, **query: str) -> Any:
        """The object of the response. Raises AssertionError for an error that is not fine."""
        kind = "application/strategic-merge-patch+json" if method == "PATCH" else "application/json"
        content = None if body is None else json.dumps(body)
        response = self._http.request(method, path, content=content, params=query, headers={"Content-Type": kind})
        assert response.is_success or response.status_code in fine, f"{method} {path}: {response.text}"
        return response.json() if response.is_success else None

    def endpoints(self, namespace: str, service: str, port: int) -> list[str]:
        """Where the Service would send a new connection now."""
        slices = self.ask(
            "GET",
            f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
            labelSelector=f"kubernetes.io/service-name={service}",
        )
        return [
            f"http://{address_here(address)}:{port}"
            for each in slices["items"]
            for endpoint in each.get("endpoints") or ()
            if endpoint["conditions"].get("ready")
            for address in endpoint["addresses"]
        ]


class Pod:
    """A pod and its process. Its thread ends with the pod."""

    def __init__(self, node: "Node", pod: Object, number: int) -> None:
        self._node, self._cluster = node, node.cluster
        self._path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
        self._pod, [self._container] = pod, pod["spec"]["containers"]
        self._ip = f"{PODS}{number}"
        self._restarts = 0
        self._thread = threading.Thread(target=self._run)
        self.deletion_s: float | None = None
        """The seconds that a pod has to end once it is deleted."""
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                code = self._live_once()
                if self.deletion_s is not None:
                    uid = {"preconditions": {"uid": self._pod["metadata"]["uid"]}, "gracePeriodSeconds": 0}
                    self._cluster.ask("DELETE", self._path, body=uid, fine=(404, 409))
                    return
                if self._pod["spec"]["restartPolicy"] == "Never":
                    ended = {"terminated": {"exitCode": code, "finishedAt": _now()}}
                    self._report("Failed" if code else "Succeeded", ended, ready=False)
                    return
                self._restarts += 1
                if self._node.is_closed:
                    return
        except Exception as error:
            self._node.raised.append(error)

    def _live_once(self) -> int:
        """Runs the process until it ends by itself or with the pod. Returns its exit code."""
        words = [*self._container.get("command", ["bulkreg"]), *self._container.get("args", ())]
        log = self._node.logs / f"{self._pod['metadata']['name']}.log"
        with log.open("ab") as file:
            named = [*OWN_NAME, self._pod["metadata"]["name"], *words]
            process = subprocess.Popen(named, env=self._environment(), cwd="/", stdout=file, stderr=file)
        running = {"running": {"startedAt": _now()}}
        try:
            self._report("Running", running, ready=False)
            ready, failures = False, 0
            is_started = "startupProbe" not in self._container
            while process.poll() is None and self.deletion_s is None and not self._node.is_closed:
                probe = self._container.get("readinessProbe" if is_started else "startupProbe")
                if probe is None:
                    time.sleep(PAUSE_S)
                    continue
                passed = self._passes(probe)
                failures = 0 if passed else failures + 1
                if passed and not is_started:
                    is_started = True
                    continue
                if not is_started and failures >= probe["failureThreshold"]:
                    break  # and is started again
                if is_started and ready != passed and (passed or failures >= probe["failureThreshold"]):
                    ready = passed
                    self._report("Running", running, ready=ready)
                self._pause(process, probe["periodSeconds"])
            self._end(process)
        finally:
            process.kill()
            process.wait(PATIENCE_S)
        return process.returncode

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is not None:
            return
        until_s = time.monotonic() + (PATIENCE_S if self.deletion_s is None else self.deletion_s)
        hook = self._container.get("lifecycle", {}).get("preStop")
        if hook and self.deletion_s is not None:
            subprocess.run(hook["exec"]["command"], check=True, timeout=PATIENCE_S)
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(max(until_s - time.monotonic(), 0))
            self._node.ended[self._pod["metadata"]["name"]] = code
            return
        self._node.ended[self._pod["metadata"]["name"]] = -signal.SIGKILL

    def _pause(self, process: subprocess.Popen[bytes], period_s: float) -> None:
        until_s = time.monotonic() + period_s
        while time.monotonic() < until_s and process.poll() is None and self.deletion_s is None and not self._node.is_closed:
            time.sleep(PAUSE_S)

    def _passes(self, probe: Object) -> bool:
        [port] = [each["containerPort"] for each in self._container["ports"] if each["name"] == probe["httpGet"]["port"]]
        url = f"http://{address_here(self._ip)}:{port}{probe['httpGet']['path']}"
        try:
            return httpx.get(url, timeout=probe.get("timeoutSeconds", 1), trust_env=False).is_success
        except httpx.TransportError:
            return False

    def _environment(self) -> Mapping[str, str]:
        """That of the container alone."""
        image = self._node.images[self._container["image"]]
        given = {"PATH": f"{image}/bin:{os.environ['PATH']}", "BULKREG_HEALTH_PORT": "8081", "LANG": "C.UTF-8"}
        for source in self._container.get("envFrom", ()):
            given |= self._secret(source["secretRef"]["name"])
        for variable in self._container["env"]:
            if "value" in variable:
                given[variable["name"]] = variable["value"]
            else:
                wanted = variable["valueFrom"]["secretKeyRef"]
                value = self._secret(wanted["name"]).get(wanted["key"])
                assert value is not None or wanted["optional"], wanted
                given |= {} if value is None else {variable["name"]: value}
        # All addresses of a container are its own.
        return given | {"BULKREG_API_HOST": address_here(self._ip)}

    def _secret(self, name: str) -> dict[str, str]:
        namespace = self._pod["metadata"]["namespace"]
        data = self._cluster.ask("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}").get("data", {})
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def _report(self, phase: str, state: Object, *, ready: bool) -> None:
        conditions = [
            {"type": kind, "status": str(is_so), "lastTransitionTime": _now()}
            for kind, is_so in (("Initialized", True), ("ContainersReady", ready), ("Ready", ready))
        ]
        status = {
            "name": self._container["name"],
            "image": self._container["image"],
            "imageID": "",
            "ready": ready,
            "restartCount": self._restarts,
            "state": state,
        }
        told = {"phase": phase, "podIP": self._ip, "podIPs": [{"ip": self._ip}], "conditions": conditions, "startTime": _now()}
        self._cluster.ask("PATCH", f"{self._path}/status", body={"status": {**told, "containerStatuses": [status]}}, fine=(404,))


class Node:
    """The node and its pods, while it is open."""

    def __init__(self, cluster: Cluster, name: str, images: Mapping[str, Path], logs: Path) -> None:
        self.cluster, self.name, self.logs = cluster, name, logs
        self.images: dict[str, Path] = {}
        """The image's folder, which has a program `bin/bulkreg`."""
        self.raised: list[BaseException] = []
        self.ended: dict[str, int] = {}
        """The exit code of each process that was told to end."""
        self.is_closed = False
        self._pods: dict[str, Pod] = {}
        self._numbers = count(2)
        self._thread = threading.Thread(target=self._run)
        for image, code in images.items():
            self.images[image] = _made_image(logs / f"image-{len(self.images)}", code)

    def __enter__(self) -> "Node":
        labels = {"kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux"}
        taint = {"key": TAINT, "effect": "NoSchedule"}
        node = {"metadata": {"name": self.name, "labels": labels}, "spec": {"taints": [taint]}}
        self.cluster.ask("POST", "/api/v1/nodes", body=node)
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closed = True
        self._thread.join()
        for pod in self._pods.values():
            pod.join()
        self.cluster.ask("DELETE", f"/api/v1/nodes/{self.name}")

    def _run(self) -> None:
        beat_s = time.monotonic()
        try:
            while not self.is_closed:
                if time.monotonic() > beat_s + 5:
                    self._beat()
                    beat_s = time.monotonic()
                for pod in self.cluster.ask("GET", "/api/v1/pods", fieldSelector=f"spec.nodeName={self.name}")["items"]:
                    self._look_at(pod)
                time.sleep(PAUSE_S)
        except Exception as error:
            self.raised.append(error)

    def _look_at(self, pod: Object) -> None:
        uid, metadata = pod["metadata"]["uid"], pod["metadata"]
        if uid not in self._pods:
            if pod["status"]["phase"] != "Pending":
                raise AssertionError("something else runs the pods of this node: let kwok manage nodes by their annotation")
            self._pods[uid] = Pod(self, pod, next(self._numbers))
        if "deletionTimestamp" in metadata:
            self._pods[uid].deletion_s = metadata["deletionGracePeriodSeconds"]

    def _beat(self) -> None:
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": _now()}
        room = {"cpu": "64", "memory": "64Gi", "pods": "100"}
        status = {"conditions": [ready], "capacity": room, "allocatable": room}
        self.cluster.ask("PATCH", f"/api/v1/nodes/{self.name}/status", body={"status": status})


def _made_image(folder: Path, code: Path) -> Path:
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin" / "bulkreg"
    program.write_text(f'#!/bin/sh\ncd "{code}" && exec "{sys.executable}" -m cli "$@"\n')
    program.chmod(0o755)
    return folder


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextlib.contextmanager
def following(cluster: Cluster, namespace: str, service: str, port: int, urls: list[str]) -> Iterator[None]:
    """Meanwhile the list has the Service's ready endpoints, as the proxy of a node knows them."""
    stopping = threading.Event()
    raised: list[BaseException] = []

    def follow() -> None:
        try:
            while not stopping.wait(PAUSE_S):
                # Without one a connection fails. The clients then try the last that was known.
                urls[:] = cluster.endpoints(namespace, service, port) or urls
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
        assert not raised, raised
