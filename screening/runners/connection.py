"""Ray, for the length of a block: a cluster that is there, or a local one that is started here.

Enters: an address, or none. Leaves: the package ray, connected; or a `Failure` that names the cause
within `KNOCK_S` + `JOIN_S` + 60 s (Ray's own search for the node of this machine). It knows no
campaign and no worker.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from assay.screening.settings.exits import Exit, Failure, Stopped, one_line

STORE_BYTES = 256 << 20
"""Object store of a cluster that is started here; it holds the tables on their way."""
KNOCK_S = 5.0
"""How long a machine may take to accept a connection."""
JOIN_S = 40.0
"""How long Ray itself then takes to give up a server that does not answer; a fact, not a choice."""
STATUS_S = 12.0
"""How long after its start a cluster may take to say for the first time whether it can grow."""
TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
"""Variables that say whether Ray asks for a token, and where it is; else in ~/.ray/auth_token."""


@contextmanager
def joined(address: str | None, workers: int | None) -> Iterator[Any]:
    """Ray at an address or RAY_ADDRESS, else a local one with `workers` CPUs (unset: all).

    A cluster that was started here ends with the block, and one that was joined is left. If this
    process is connected already, it stays so.

    Raises:
        Failure: CLUSTER, when there is no cluster; CONFIG, when it refuses the token, or when a
            local one cannot be started in the temporary folder.
        Stopped: when SIGTERM came while Ray started.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    # before the import: no uv environment for workers, no usage reports
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield ray
    elif address and address != "local":
        with _stoppable():
            _join(ray, address)
        try:
            yield ray
        finally:
            ray.shutdown()
    else:
        with _own_token():
            try:
                with _stoppable():
                    _start(ray, workers)
                yield ray
            finally:
                ray.shutdown()


@contextmanager
def _stoppable() -> Iterator[None]:
    """The handler of SIGTERM as it was: Ray sets one of its own, which ends with another exit code.

    Raises:
        Stopped: when a signal met Ray's handler, which has ended what Ray had started.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:
        raise Stopped from error
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _start(ray: Any, workers: int | None) -> None:
    try:
        with _umask(0o077):
            ray.init(
                address="local",
                include_dashboard=False,
                num_cpus=workers,
                object_store_memory=STORE_BYTES,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    except Exception as error:  # Ray raises Exception itself
        name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
        if "AF_UNIX" in str(error):
            why = f"the path of its sockets is above 107 bytes in {name}={os.environ.get(name, '')}"
            advice = f"set {name} to a short folder, such as /tmp"
            raise Failure(Exit.CONFIG, f"Ray cannot start: {why}; {advice}") from error
        if isinstance(error, OSError):
            raise
        why = one_line(error)[:300]
        raise Failure(
            Exit.CLUSTER, f"a local Ray did not start: {why}; is this machine very busy? run again, or without --on ray"
        ) from error


@contextmanager
def _own_token() -> Iterator[None]:
    """A token for the cluster that is started here, in a private folder, unless one is named.

    Left alone, Ray writes one into the home folder. From then on `ray start` there asks for tokens.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "token").lower()
    if mode != "token" or {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        yield
        return
    with tempfile.TemporaryDirectory(prefix="assay-ray-") as folder:  # mode 0700
        path = Path(folder) / "token"
        with _umask(0o077):
            path.write_text(secrets.token_hex(32))
        with _environment({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}):
            _read_token_again()
            yield
    _read_token_again()


def _read_token_again() -> None:
    """Let the compiled part of Ray, which keeps what it once read, read mode and token again."""
    from ray import _raylet

    compiled: Any = _raylet
    compiled.Config.initialize("")
    compiled.AuthenticationTokenLoader.instance().reset_cache()


def _join(ray: Any, address: str) -> None:
    place = re.fullmatch(r"(?:ray://)?\[?([^/\[\]]+)\]?:(\d{1,5})", address)
    if place:
        try:
            socket.create_connection((place[1], int(place[2])), KNOCK_S).close()
        except (OSError, OverflowError) as error:
            raise _absent(address, one_line(error)) from error
    try:
        # one attempt: Ray's own count is 20, of 40 s each
        with _environment({"RAY_gcs_server_port_wait_time_s": "1"} | dict(os.environ)):
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ray.exceptions.AuthenticationError) as error:
        with suppress(Exception):
            ray.shutdown()
        if _is_about_the_token(error):
            raise Failure(Exit.CONFIG, f"the Ray cluster at {address} asks for a token: {_remedy()}") from error
        raise _absent(address, one_line(error)[:200]) from error


def _absent(address: str, why: str) -> Failure:
    advice = (
        "start it (`ray start --head`), or correct --address or RAY_ADDRESS; a driver runs on a node of its cluster"
    )
    return Failure(Exit.CLUSTER, f"there is no Ray cluster at {address} ({why}); {advice}")


def _is_about_the_token(error: BaseException | None) -> bool:
    while error is not None:
        if re.search("AuthenticationError|Unauthenticated|InvalidAuthToken|authentication token", f"{error!r}"):
            return True
        error = error.__cause__ or error.__context__
    return False


def _remedy() -> str:
    """What to do about a token that is missing, not sent, or another one."""
    named = next((f"${name}" for name in TOKEN[1:] if name in os.environ), "")
    where = named or ("~/.ray/auth_token" if (Path.home() / ".ray" / "auth_token").is_file() else "")
    if not where:
        return (
            "there is none here; copy that of the cluster to ~/.ray/auth_token or name it in RAY_AUTH_TOKEN_PATH, "
            "and set RAY_AUTH_MODE=token"
        )
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return f"set RAY_AUTH_MODE=token, so that the one in {where} is sent"
    return f"the one in {where} is another; copy that of the cluster, or name its file in RAY_AUTH_TOKEN_PATH"


def require(ray: Any, cpus: float, gpus: float, what: str) -> None:
    """Refuse what no node can ever run: Ray would wait for ever and say nothing.

    Raises:
        Failure: CONFIG, when no node has so many CPUs and GPUs and the cluster cannot grow.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes) or grows():
        return
    most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in ("CPU", "GPU")}
    raise Failure(
        Exit.CONFIG,
        f"no node has {cpus:g} CPUs and {gpus:g} GPUs for {what}: the cluster has {describe(ray)}, at most "
        f"{most['CPU']:g} CPUs and {most['GPU']:g} GPUs on one node, and cannot grow; ask for less, or add nodes first",
    )


def describe(ray: Any) -> str:
    """What the cluster has."""
    nodes, have = sum(node["Alive"] for node in ray.nodes()), ray.cluster_resources()
    return f"{nodes} nodes, {have.get('CPU', 0):g} CPUs and {have.get('GPU', 0):g} GPUs"


def grows() -> bool:
    """Whether the cluster has an autoscaler that may add nodes, as far as it says.

    A cluster without one lists each node as a type of its own, called `node_<id>`.
    """
    import ray
    from ray import _raylet

    compiled: Any = _raylet
    # A client of its own: a process loses Ray's own one when any cluster in it is shut down.
    head = compiled.GcsClient(address=ray.get_runtime_context().gcs_address)
    deadline = time.monotonic() + STATUS_S
    while time.monotonic() < deadline:
        told = head.internal_kv_get(b"__autoscaling_status", None)
        report = json.loads(told).get("autoscaler_report") if told else None
        if report and report.get("active_nodes"):
            return not all(kind.startswith("node_") for kind in report["active_nodes"])
        time.sleep(0.5)
    return True


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
