"""Predictions on Ray Serve: copies of the model in processes of a cluster, few or many by demand.

Enters: a model and how many copies there may be. Leaves: a `Predictor` that hands each upload to
one of them. HTTP stays with the process of the server: its door has checked token and size before
anything reaches Ray, so Ray Serve opens no port and learns no token. The application has a name of
its own; other applications on the cluster are left alone. Whoever calls this has connected Ray.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.exceptions import RayServeException

from assay.screening.prediction import predict as prediction
from assay.screening.serving.predicting import answers
from assay.screening.serving.predicting.predictor import LocalPredictor, Told, Unanswerable, Upload
from assay.screening.settings.exits import Exit, Failure, one_line
from assay.sources.crystals import Crystals

BUSY = 8
"""Uploads that a replica has at once on the average, before another replica starts."""
MOST = 64
"""Uploads that a replica has at once; those that wait for its model are its next batch."""
TRIES = 2
"""How many replicas may end over one upload."""
PATIENCE_S = 120
"""How long an upload may wait for an answer, for example while replicas start."""
UP_S, DOWN_S = 5, 120
"""How long many or few uploads are seen before the number of replicas changes."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")


class Replica:
    """One copy of the model, in a process of its own."""

    def __init__(self, model: str) -> None:
        self._predictor = LocalPredictor(prediction.load(model))

    async def predict(self, given: Sequence[Upload]) -> Told | Unanswerable:
        """As `Predictor.predict`; a refusal is returned, since Ray would log what is raised."""
        try:
            return await self._predictor.predict(given)
        except Unanswerable as refused:
            return refused

    async def explain(self, crystal: Crystals) -> dict[str, Any] | Unanswerable:
        """As `Predictor.explain`, in the same way."""
        try:
            return await self._predictor.explain(crystal)
        except Unanswerable as refused:
            return refused


class Replicas:
    """A `Predictor` that asks replicas."""

    def __init__(self, handle: Any, model: dict[str, Any]) -> None:
        self.model = model
        self.noted: Callable[[int], Any] = lambda _: None
        self._handle = handle

    async def predict(self, given: Sequence[Upload]) -> Told:
        """As `Predictor.predict`."""
        told: Told = await self._ask("predict", given)
        return told

    async def explain(self, crystal: Crystals) -> dict[str, Any]:
        """As `Predictor.explain`."""
        told: dict[str, Any] = await self._ask("explain", crystal)
        return told

    async def _ask(self, method: str, content: Any) -> Any:
        """Ask a replica, and another one when it ends meanwhile."""
        for _ in range(TRIES):
            try:
                async with asyncio.timeout(PATIENCE_S):
                    told = await getattr(self._handle, method).remote(content)
            except TimeoutError:
                raise Unanswerable(503, f"no replica answered within {PATIENCE_S} s") from None
            except ray.exceptions.RayActorError:
                continue
            except RayServeException as error:
                raise Unanswerable(503, f"no replica can be asked: {one_line(error)[:300]}") from error
            if isinstance(told, Unanswerable):
                raise told
            return told
        raise Unanswerable(503, f"{TRIES} replicas ended over this: was their memory full?")


@contextmanager
def started(model: str, least: int, most: int) -> Iterator[Replicas]:
    """Replicas of a model for the length of a block: `least` to `most`, as the uploads demand.

    `model` is the name of a bundled ensemble or a folder that every node sees. Ray Serve is started
    where it does not run, and then ends with the block.

    Raises:
        Failure: when the model cannot be loaded, here or by a replica.
    """
    described = answers.model(prediction.load(model))
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    ours = all(actor["namespace"] != "serve" for actor in ray.util.list_named_actors(all_namespaces=True))
    name = f"assay-{secrets.token_hex(4)}"
    try:
        serve.start(proxy_location="Disabled", logging_config={"log_level": "WARNING"})
        yield Replicas(_deployed(name, model, least, most), described)
    finally:
        with redirect_stdout(sys.stderr), suppress(RayServeException):  # Ray tells what ends; nothing may run
            serve.delete(name)
            if ours and not serve.status().applications:
                serve.shutdown()  # type: ignore[no-untyped-call]


def _deployed(name: str, model: str, least: int, most: int) -> Any:
    scaling = AutoscalingConfig(
        min_replicas=least,
        max_replicas=most,
        target_ongoing_requests=BUSY,
        upscale_delay_s=UP_S,
        downscale_delay_s=DOWN_S,
    )
    deployment: Any = serve.deployment(
        Replica,
        name="predictor",
        num_replicas=None if least < most else least,
        autoscaling_config=scaling if least < most else None,
        max_ongoing_requests=MOST,
        max_constructor_retry_count=TRIES,
        ray_actor_options={"num_cpus": 1, "runtime_env": {"env_vars": dict.fromkeys(THREADS, "1")}},
    )
    try:
        return serve.run(deployment.bind(model), name=name, route_prefix=None)
    except RuntimeError as error:
        whole = serve.status().applications.get(name)
        told = [] if whole is None else [part.message.strip() for part in whole.deployments.values()]
        why = "; ".join(text.rpartition("\n")[2] for text in told if text) or str(error)  # the last line of a traceback
        raise Failure(Exit.CLUSTER, f"no replica starts: {one_line(why)[:600]}") from error
