"""The command `assay serve`.

Enters: campaign folders and a model. Leaves: a server, until it is stopped. The server does not
know how Ray is connected: this module does that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.screening.commands.arguments import On
from assay.screening.commands.terminal import say
from assay.screening.prediction import predict as prediction
from assay.screening.runners import connection
from assay.screening.settings.exits import Exit, Failure

with suppress(ModuleNotFoundError):  # `serve` says what is missing
    from assay.screening.serving import run
    from assay.screening.serving.predicting.predictor import LocalPredictor

if TYPE_CHECKING:
    from assay.screening.serving.predicting.predictor import Predictor

NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "mongomock")
"""Modules of the extra."""
NEEDED_ON_RAY = ("ray", "grpc_reflection", "mmh3")
"""Modules of the extra for `--on ray`."""
Folders = Annotated[list[Path] | None, typer.Argument(help="Campaign folders, ranked ones.")]
Where = Annotated[On, typer.Option("--on", help="auto: Ray with an address, else this process.")]
Address = Annotated[str | None, typer.Option(help="Address of a running Ray cluster.")]
Replicas = Annotated[
    str | None, typer.Option(metavar="N|N-M", help="Copies of the model on Ray; default: 1 to one per CPU.")
]


def serve(
    folders: Folders = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Ensemble for uploads: a folder or a bundled one.")
    ] = "tc",
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine a token is needed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 8000,
    url: Annotated[str | None, typer.Option(help="Begin of the URLs that clients see, behind a proxy.")] = None,
    max_upload: Annotated[float, typer.Option(min=0.001, max=256, help="Largest upload, MiB.")] = 2,
    waiting: Annotated[int, typer.Option(min=1, help="Uploads that wait at once; more get 429.")] = 128,
    store: Annotated[Path | None, typer.Option(help="Folder that keeps predictions of uploads over a restart.")] = None,
    on: Where = On.AUTO,
    address: Address = None,
    replicas: Replicas = None,
) -> None:
    """Serve campaigns as pages, REST, OPTIMADE; predict uploads.

    Without folders uploads are predicted. Beyond this machine a client must know a token: that of
    the environment variable ASSAY_SERVE_TOKEN, else a new one, which is printed. With --on ray the
    model has copies in processes of Ray Serve, as many as --replicas says.
    """
    on_ray = on is On.RAY or (on is On.AUTO and bool(address or os.environ.get("RAY_ADDRESS")))
    _require(NEEDED, "assay serve", "serve")
    if on_ray:
        _require(NEEDED_ON_RAY, "assay serve --on ray", "serve-ray")
    elif replicas or address:
        raise Failure(Exit.USAGE, "--replicas and --address say where Ray runs the model; add --on ray")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept, most = store or cache / "assay" / "served", round(max_upload * 2**20)
    place = run.Address(host, port, None if url is None else url.rstrip("/"))
    predictor = partial(_on_ray, model, address, _range(replicas)) if on_ray else partial(_here, model)
    run.serve(folders or [], predictor, place, kept, say, most_bytes=most, waiting=waiting)


def _range(text: str | None) -> tuple[int, int] | None:
    """`2` or `1-8` as the fewest and the most."""
    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,3})(?:-([1-9]\d{0,3}))?", text)
    least, most = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if least > most:
        raise Failure(Exit.USAGE, f"--replicas {text!r:.40}: expected a number such as 2, or a range such as 1-8")
    return least, most


def _require(modules: Sequence[str], what: str, extra: str) -> None:
    if missing := [name for name in modules if find_spec(name) is None]:
        raise Failure(Exit.USAGE, f"{what} needs {', '.join(missing)}: pip install 'assay[{extra}]'")


@contextmanager
def _here(model: str) -> Iterator[Predictor]:
    with closing(LocalPredictor(prediction.load(model))) as predictor:
        yield predictor


@contextmanager
def _on_ray(model: str, address: str | None, asked: tuple[int, int] | None) -> Iterator[Predictor]:
    """Replicas on the cluster at an address, else on a Ray here that ends with the server."""
    folder = Path(model)
    with connection.joined(address, asked and asked[1]) as ray:
        connection.require(ray, 1, 0, "a replica")
        cpus = int(ray.cluster_resources().get("CPU", 0))
        least, most = asked or (1, max(cpus, 1))
        if least > cpus and not connection.grows():
            has = connection.describe(ray)
            raise Failure(Exit.CONFIG, f"{least} replicas need {least} CPUs, and the cluster has {has}; ask for fewer")
        replicas = import_module("assay.screening.serving.predicting.replicas")  # Ray is configured by now
        with replicas.started(str(folder.resolve()) if folder.is_dir() else model, least, most) as predictor:
            many = f"{least} to {most} replicas" if least < most else f"{least} replicas"
            say(f"{many} on Ray, which has {connection.describe(ray)}", err=True)
            yield predictor
