"""One training loop: early stopping, and on a CPU it can be resumed to the bit.

Enters: inputs of networks, targets, row numbers, a member of a recipe. Leaves: a checkpoint folder.
This module does not know datasets, ensembles or campaigns.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from assay.models import memory
from assay.models.ensemble import checkpoint
from assay.models.ensemble.checkpoint import Checkpoint
from assay.models.networks import kinds, registry
from assay.models.networks.inputs import Inputs
from assay.models.networks.layers import Network
from assay.models.target import Property
from assay.models.training import budget, fingerprints, forests, lora, optimise, start
from assay.models.training.budget import Budget
from assay.models.training.recipe import MemberSpec, Recipe
from assay.models.training.start import Source
from assay.sources.durable import whole
from assay.sources.elements import SYMBOLS

_STATE = "state.pt"
_GUARD_EVERY = 50
"""Steps between two looks at the free memory."""

_log = logging.getLogger(__name__)

Progress = Callable[[dict[str, float]], None]
"""Called with the row of the log after every epoch; what it raises ends the training, which can be
resumed."""


@dataclass(frozen=True)
class Material:
    """Everything a member needs to learn: `n` crystals as it reads them, targets, weights."""

    inputs: Inputs
    """The crystals: graphs, full or quotients, or pictures."""
    target: NDArray[np.float64]
    """(n, p) one column per task of the recipe, in the property's unit; NaN where unknown."""
    weight: NDArray[np.float64]
    """(n,) of each row in the loss and in the validation error."""
    train: NDArray[np.int64]
    """(t,) rows to learn from; a row may occur several times."""
    validation: NDArray[np.int64]
    """(v,) rows to stop on."""

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Everything but the inputs."""
        return self.train, self.validation, self.target, self.weight


def member(
    recipe: Recipe,
    number: int,
    material: Material,
    folder: Path,
    facts: dict[str, Any],
    progress: Progress | None = None,
) -> Checkpoint:
    """Train member `number` of the recipe into `folder`, or resume it, or return a finished one.

    After every epoch the whole state is on disk, and the best weights so far beside it.

    Raises:
        ValueError: when `folder` holds a run of another recipe, or no epoch had a finite validation
            error.
    """
    spec = recipe.members[number]
    begun = recipe.start_of(spec)
    source = start.find(begun, spec, recipe.reads(spec), number) if begun else None
    fingerprint = fingerprints.of(recipe, spec, material.arrays, source)
    if (folder / "model.json").is_file():
        found = checkpoint.read(folder)
        fingerprints.same_run(str(found.facts.get("fingerprint")), fingerprint, folder)
        fingerprints.same_data(found.facts.get("data"), facts.get("data"), folder)
        return found
    memory.keep()
    if not registry.MODELS[spec.network].gradients:
        finished = _fitted(recipe, spec, material, {**facts, "fingerprint": fingerprint})
        checkpoint.write(finished, folder)
        if progress is not None:
            progress({"epoch": 1, "validation_mae": finished.facts["metrics"].get("validation_mae", math.nan)})
        return finished
    run = _Run(recipe, spec, material, fingerprint, source)
    run.restore(folder, facts.get("data"))
    while run.epoch < run.schedule.epochs and run.stale < run.schedule.patience:
        run.learn()
        run.validate()
        run.save(folder, facts.get("data"))
        if progress is not None:
            progress(run.history[-1])
    run.warn_of_early_end()
    finished = run.finish(facts)
    checkpoint.write(finished, folder)
    (folder / _STATE).unlink(missing_ok=True)
    return finished


def _fitted(recipe: Recipe, spec: MemberSpec, material: Material, facts: dict[str, Any]) -> Checkpoint:
    """A member that learns at once, without epochs."""
    started, properties = time.perf_counter(), _scaled(recipe, material)
    columns = material.target[material.train].T
    targets = {p.name: p.encode(column) for p, column in zip(properties, columns, strict=True)}
    table: Any = material.inputs.batch(material.train, Network())
    network = forests.fit(table.x.numpy(), targets, material.weight[material.train], spec.sizes, spec.seed)
    rows, measured = material.validation, {}
    if len(rows):
        predicted, learned = predict(network, material.inputs, rows, properties), np.flatnonzero(recipe.shares())
        truth, weight = material.target[rows], material.weight[rows]
        measured["validation_mae"] = optimise.errors(properties, truth, predicted, weight, learned)[0]
    seconds = time.perf_counter() - started
    _log.info("%s seed %d: %s, %.0f s", spec.network, spec.seed, measured, seconds)
    described = {**facts, "metrics": {**measured, "epochs": 0}}
    made = network, {**spec.sizes, "counts": network.heads.counts()}, properties
    return _checkpoint(recipe, spec, material, *made, described, seconds)


def _checkpoint(
    recipe: Recipe,
    spec: MemberSpec,
    material: Material,
    network: Network,
    sizes: dict[str, Any],
    properties: tuple[Property, ...],
    facts: dict[str, Any],
    seconds: float,
) -> Checkpoint:
    """What a member has learned, with what is known of how."""
    rows = np.unique(material.train)
    counts = {"rows": {"train": len(rows), "validation": len(material.validation)}, "seconds": round(seconds, 1)}
    return Checkpoint(
        network=network.eval(),
        name=spec.network,
        sizes=sizes,
        spec=recipe.reads(spec),
        properties=properties,
        elements=tuple(SYMBOLS[z] for z in material.inputs.numbers(rows)),
        facts={**facts, "seed": spec.seed, **counts},
    )


class _Run:
    """The state of one training run between two epochs."""

    def __init__(
        self, recipe: Recipe, spec: MemberSpec, material: Material, fingerprint: str, source: Source | None
    ) -> None:
        labelled = registry.MODELS[spec.network].labelled
        if not labelled:  # its own loss is what it predicts
            material = replace(material, target=np.zeros_like(material.target))
        self.recipe, self.spec, self.material, self.fingerprint = recipe, spec, material, fingerprint
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.schedule = schedule = recipe.schedule_of(spec)
        self.start = recipe.start_of(spec)
        self.properties = _scaled(recipe, material) if labelled else tuple(task.property for task in recipe.tasks)
        torch.manual_seed(spec.seed)
        self.sizes = {**spec.sizes, "variance": True} if schedule.loss == "nll" else spec.sizes
        shape, names = kinds.shape(recipe.reads(spec)), [p.name for p in self.properties]
        self.network = registry.create(spec.network, shape, names, **self.sizes)
        if self.start and source:
            start.begin(self.network, self.start, source)
        self.network.to(self.device)
        if schedule.precision == "bfloat16" and self.device.type == "cpu":
            self.network.learn_lowered()
        _log.info(
            "%s seed %d: %d of %d numbers learn, from %s",
            spec.network,
            spec.seed,
            *_numbers(self.network),
            self.start.folder if self.start else "random weights",
        )
        self.optimizers = start.optimizers(self.network, self.start, schedule)
        self.average = optimise.MovingAverage(self.network.state_dict(), schedule.ema) if schedule.ema else None
        self.epoch, self.stale, self.best, self.lowered = 0, 0, math.inf, 1.0
        self.best_weights: dict[str, Tensor] = {}
        self.history: list[dict[str, float]] = []
        self.cost = material.inputs.cost
        self.budget: Budget | None = None

    def learn(self) -> None:
        """One pass over the training rows, in an order that depends on seed and epoch alone."""
        started, total_loss = time.perf_counter(), 0.0
        adapted = self.start is not None and self.start.lora is not None
        schedule, material = self.schedule, self.material
        rows = epoch_rows(material, np.random.default_rng([self.spec.seed, self.epoch]), self.recipe.shares())
        steps = math.ceil(len(rows) / schedule.batch_size)
        self.network.train()
        lora.rest(self.network)
        if self.budget is None:
            every = np.unique(material.train)
            self.budget = budget.probe(self.network, self._work(every), self.cost[every], schedule.batch_size)
        for step, chosen in enumerate(np.array_split(rows, steps)):
            factor = optimise.rate_factor(schedule, self.epoch * steps + step, schedule.epochs * steps)
            for group in self._groups():
                group["lr"] = group["peak"] * factor * self.lowered
            total_loss += budget.in_parts(self.network, self.budget, self.cost[chosen], self._work(chosen))
            if adapted and self.epoch == step == 0:
                lora.check_gradients(self.network)
            if self.device.type == "cpu" and step % _GUARD_EVERY == 0:
                self.budget.guard(self.cost[chosen])
            nn.utils.clip_grad_norm_(self.network.parameters(), schedule.clip)
            for optimizer in self.optimizers:
                optimizer.step()
            if self.average is not None:
                self.average.update(self.network.state_dict())
        self.epoch += 1
        seconds = time.perf_counter() - started
        row = {"epoch": self.epoch, "loss": total_loss / steps, "seconds": round(seconds, 2)}
        self.history.append({**row, "structures_per_s": round(len(rows) / seconds, 1)})

    def validate(self) -> None:
        """Error on all validation rows; remember the weights when it is the smallest so far."""
        material, weights = self.material, self.average.state if self.average else None
        rows = material.validation
        predicted = predict(self.network, material.inputs, rows, self.properties, weights=weights)
        learned = np.flatnonzero(self.recipe.shares())
        error, errors = optimise.errors(
            self.properties, material.target[rows], predicted, material.weight[rows], learned
        )
        alone = len(errors) == 1
        self.history[-1]["validation_mae"] = error
        if not alone:
            self.history[-1] |= {f"validation_mae_{p.name}": e for p, e in zip(self.properties, errors, strict=True)}
        self.stale += 1
        if error < self.best:
            self.best, self.stale = error, 0
            kept = self.network.state_dict() if weights is None else weights
            self.best_weights = {name: tensor.detach().clone() for name, tensor in kept.items()}
        schedule = self.schedule
        if schedule.kind == "plateau" and self.stale and self.stale % max(1, schedule.patience // 4) == 0:
            self.lowered *= 0.5
        _log.info(
            "%s seed %d epoch %d/%d: loss %.4f, validation MAE %.4f %s (best %.4f), %.0f s",
            *(self.spec.network, self.spec.seed, self.epoch, schedule.epochs, self.history[-1]["loss"]),
            *(error, self.properties[0].unit if alone else "of a standard deviation", self.best),
            self.history[-1]["seconds"],
        )

    def warn_of_early_end(self) -> None:
        """Say that the run stopped at rates from which a schedule of fixed length falls to zero."""
        ended, planned = self.epoch, self.schedule.epochs
        if ended < planned and self.schedule.kind != "plateau":
            kept = f"keeps its weights of epoch {ended - self.stale}, stopped after {ended} of {planned}"
            advice = f"its learning rate had yet to fall; with schedule.patience: {planned} it learns to the end"
            _log.warning("%s seed %d %s: %s", self.spec.network, self.spec.seed, kept, advice)

    def save(self, folder: Path, data: Any) -> None:
        """Write the state as one file, whole or not at all; `data` names the training files."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "fingerprint": self.fingerprint,
            "data": data,
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "random": torch.get_rng_state(),
            "average": (self.average.steps, self.average.state) if self.average else None,
            "best_weights": self.best_weights,
            "budget": self.budget.to_state() if self.budget else None,
            "progress": {name: getattr(self, name) for name in ("epoch", "stale", "best", "lowered", "history")},
        }
        with whole(folder / _STATE) as file:
            torch.save(state, file)
        self._tell(folder)

    def _tell(self, folder: Path) -> None:
        """Write a line for each epoch of the state."""
        log = "".join(json.dumps(row) + "\n" for row in self.history)
        checkpoint.write_whole(folder / "history.jsonl", log.encode())

    def restore(self, folder: Path, data: Any) -> None:
        """Take up the state in `folder`, if there is one, of a run on the same `data`."""
        path = folder / _STATE
        if not path.is_file():
            return
        state = torch.load(path, weights_only=True, map_location=self.device)
        fingerprints.same_run(state["fingerprint"], self.fingerprint, folder)
        fingerprints.same_data(state.get("data"), data, folder)
        self.network.load_state_dict(state["network"])
        for optimizer, kept in zip(self.optimizers, state.get("optimizers") or [state["optimizer"]], strict=True):
            optimizer.load_state_dict(kept)
        torch.set_rng_state(state["random"].cpu())
        if self.average:
            self.average.steps, self.average.state = state["average"]
        self.best_weights = state["best_weights"]
        self.budget = Budget.from_state(state["budget"]) if state["budget"] else None
        for name, value in state["progress"].items():
            setattr(self, name, value)
        self._tell(folder)  # a process that died between state and log had not
        _log.info("resuming %s after epoch %d", folder, self.epoch)

    def finish(self, facts: dict[str, Any]) -> Checkpoint:
        """The best weights as a checkpoint."""
        if not self.best_weights:
            rates = sorted({group["peak"] for group in self._groups()})
            raise ValueError(f"no epoch had a finite validation error; lower the learning rate (now {rates})")
        self.network.load_state_dict(self.best_weights)
        if self.start and self.start.lora:
            lora.merge(self.network)
        described = {
            **facts,
            "fingerprint": self.fingerprint,
            "metrics": {"validation_mae": self.best, "epochs": self.epoch},
            "budget": self.budget.to_state() if self.budget else None,
        }
        seconds = sum(row["seconds"] for row in self.history)
        made = self.network.cpu(), self.sizes, self.properties
        return _checkpoint(self.recipe, self.spec, self.material, *made, described, seconds)

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def _work(self, rows: NDArray[np.int64]) -> Callable[[NDArray[np.int64]], float]:
        """A function that takes a part of a step on `rows`, and returns its share of the loss."""
        truth = {
            p.name: torch.from_numpy(p.encode(self.material.target[rows, k])).to(self.device)
            for k, p in enumerate(self.properties)
        }
        weight = torch.from_numpy(self.material.weight[rows].astype(np.float32)).to(self.device)
        share = {name: (weight * torch.isfinite(values)).sum() for name, values in truth.items()}
        kind = self.schedule.loss

        def work(part: NDArray[np.int64]) -> float:
            there = torch.from_numpy(part).to(self.device)
            with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
                batch = self.material.inputs.batch(rows[part], self.network, (self.spec.seed, self.epoch))
                predicted = self.network(batch.to(self.device))
            predicted = {name: values.float() for name, values in predicted.items()}
            known = {name: values[there] for name, values in truth.items()}
            loss = optimise.masked_loss(predicted, known, weight[there], share, kind)
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.item())

        return work


def predict(
    network: Network,
    inputs: Inputs,
    rows: NDArray[np.int64],
    properties: Sequence[Property],
    batch_size: int = 128,
    weights: dict[str, Tensor] | None = None,
) -> NDArray[np.float64]:
    """(len(rows), p) predictions in the properties' units; the network stays in eval mode.

    With `weights`, the network predicts as if it had them.
    """
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    network.eval()
    out = []
    with torch.inference_mode():
        for part in inputs.portions(rows, batch_size):
            batch = inputs.batch(part, network).to(device)
            scaled = network(batch) if weights is None else functional_call(network, weights, (batch,))
            out.append(np.stack([p.decode(scaled[p.name].cpu().numpy()) for p in properties], axis=1))
    return np.concatenate(out)


def _scaled(recipe: Recipe, material: Material) -> tuple[Property, ...]:
    """The properties, on the scales of the training rows."""
    columns = material.target[material.train].T
    return tuple(task.property.fit(column) for task, column in zip(recipe.tasks, columns, strict=True))


def _numbers(network: Network) -> tuple[int, int]:
    """Parameters that learn, and all of them."""
    every = list(network.parameters())
    return sum(p.numel() for p in every if p.requires_grad), sum(p.numel() for p in every)


def epoch_rows(material: Material, rng: np.random.Generator, shares: Sequence[float]) -> NDArray[np.int64]:
    """The rows of one epoch: as many as there are training rows, by the shares of the tasks."""
    known = np.isfinite(material.target[material.train])
    if known.shape[1] == 1:
        return rng.permutation(material.train)
    drawn = []
    for column, share in zip(known.T, shares, strict=True):
        each, rows = math.ceil(len(material.train) * share / sum(shares)), material.train[column]
        passes = [rng.permutation(rows) for _ in range(math.ceil(each / len(rows)))]
        drawn.append(np.concatenate([*passes, rows[:0]])[:each])
    return rng.permutation(np.concatenate(drawn))
