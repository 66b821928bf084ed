"""One training loop: it learns one network, stops early, and can be stopped and resumed to the bit on a CPU.

Enters: graphs, targets, row numbers, a member of a recipe. Leaves: a checkpoint folder.
This module does not know datasets, ensembles or campaigns.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from featurize import atoms
from featurize.graphs import Graphs
from models import checkpoint, metrics, registry
from models.batch import Batch
from models.checkpoint import Checkpoint
from models.recipe import MemberSpec, Recipe, Schedule
from models.target import Property
from sources.durable import whole
from sources.elements import SYMBOLS

_STATE = "state.pt"
_LOSSES: dict[str, Any] = {"l1": functional.l1_loss, "huber": functional.huber_loss, "mse": functional.mse_loss}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Material:
    """Everything one member needs to learn: `n` crystals as graphs without angles, with targets and weights."""

    graphs: Graphs
    """The crystals."""
    target: NDArray[np.float64]
    """(n,) in the property's unit; NaN where unknown."""
    weight: NDArray[np.float64]
    """(n,) of each row in the loss and in the validation error."""
    train: NDArray[np.int64]
    """(t,) rows to learn from."""
    validation: NDArray[np.int64]
    """(v,) rows to stop on."""


def member(recipe: Recipe, spec: MemberSpec, material: Material, folder: Path, facts: dict[str, Any]) -> Checkpoint:
    """Train one member into `folder`, or go on where an interrupted run stopped, or return what is finished.

    After every epoch the whole state is on disk, and the best weights so far beside it.

    Raises:
        ValueError: when `folder` holds a run of another recipe.
    """
    fingerprint = _fingerprint(recipe, spec, material)
    if (folder / "model.json").is_file():
        found = checkpoint.read(folder)
        _same_run(str(found.facts.get("fingerprint")), fingerprint, folder)
        return found
    run = _Run(recipe, spec, material, fingerprint)
    run.restore(folder)
    while run.epoch < recipe.schedule.epochs and run.stale < recipe.schedule.patience:
        run.learn()
        run.validate()
        run.save(folder)
    finished = run.finish(facts)
    checkpoint.write(finished, folder)
    (folder / _STATE).unlink(missing_ok=True)
    return finished


class _Run:
    """The state of one training run between two epochs."""

    def __init__(self, recipe: Recipe, spec: MemberSpec, material: Material, fingerprint: str) -> None:
        self.recipe, self.spec, self.material, self.fingerprint = recipe, spec, material, fingerprint
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.property: Property = recipe.property.fit(material.target[material.train])
        torch.manual_seed(spec.seed)
        width = atoms.width(recipe.graph.atom_features)
        self.network = registry.create(spec.network, width, [self.property.name], **spec.sizes).to(self.device)
        schedule = recipe.schedule
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
        )
        self.epoch, self.stale, self.best = 0, 0, math.inf
        self.best_weights: dict[str, Tensor] = {}
        self.history: list[dict[str, float]] = []
        self.steps = math.ceil(len(material.train) / schedule.batch_size)

    def learn(self) -> None:
        """One pass over the training rows, in an order that depends on the seed and the epoch alone."""
        started, total_loss = time.perf_counter(), 0.0
        schedule, material = self.recipe.schedule, self.material
        rows = np.random.default_rng([self.spec.seed, self.epoch]).permutation(material.train)
        self.network.train()
        for step, batch_rows in enumerate(np.array_split(rows, self.steps)):
            rate = learning_rate(schedule, self.epoch * self.steps + step, schedule.epochs * self.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss = self._loss(self._predict(batch_rows), batch_rows)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.network.parameters(), schedule.clip)
            self.optimizer.step()
            total_loss += loss.item()
        self.epoch += 1
        seconds = time.perf_counter() - started
        self.history.append({"epoch": self.epoch, "loss": total_loss / self.steps, "seconds": round(seconds, 2)})

    def validate(self) -> None:
        """Error on all validation rows; remember the weights when it is the smallest so far."""
        material = self.material
        predicted = predict(self.network, material.graphs, material.validation, self.property, self._angles)
        truth, weight = material.target[material.validation], material.weight[material.validation]
        known = np.isfinite(truth)
        mae = metrics.regression(truth[known], predicted[known], weight[known])["mae"]
        self.history[-1]["validation_mae"] = mae
        self.stale += 1
        if mae < self.best:
            self.best, self.stale = mae, 0
            self.best_weights = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        _log.info(
            "%s seed %d epoch %d/%d: loss %.4f, validation MAE %.4f %s (best %.4f), %.0f s",
            *(self.spec.network, self.spec.seed, self.epoch, self.recipe.schedule.epochs, self.history[-1]["loss"]),
            *(mae, self.property.unit, self.best, self.history[-1]["seconds"]),
        )

    def save(self, folder: Path) -> None:
        """Write the whole state as one file, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "fingerprint": self.fingerprint,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "best_weights": self.best_weights,
            "progress": {"epoch": self.epoch, "stale": self.stale, "best": self.best, "history": self.history},
        }
        with whole(folder / _STATE) as file:
            torch.save(state, file)
        log = "".join(json.dumps(row) + "\n" for row in self.history)
        checkpoint.write_whole(folder / "history.jsonl", log.encode())

    def restore(self, folder: Path) -> None:
        """Take up the state in `folder`, if there is one."""
        path = folder / _STATE
        if not path.is_file():
            return
        state = torch.load(path, weights_only=True, map_location=self.device)
        _same_run(state["fingerprint"], self.fingerprint, folder)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"].cpu())
        self.best_weights = state["best_weights"]
        for name, value in state["progress"].items():
            setattr(self, name, value)
        _log.info("resuming %s after epoch %d", folder, self.epoch)

    def finish(self, facts: dict[str, Any]) -> Checkpoint:
        """The best weights as a checkpoint."""
        if not self.best_weights:
            rate = self.recipe.schedule.learning_rate
            raise ValueError(f"no epoch had a finite validation error; lower schedule.learning_rate (now {rate})")
        self.network.load_state_dict(self.best_weights)
        rows = self.material.train
        seen = np.unique(self.material.graphs.select(rows).numbers)
        return Checkpoint(
            network=self.network.cpu().eval(),
            name=self.spec.network,
            sizes=self.spec.sizes,
            spec=replace(self.recipe.graph, angles=self._angles),
            properties=(self.property,),
            elements=tuple(SYMBOLS[z] for z in seen),
            facts={
                **facts,
                "seed": self.spec.seed,
                "fingerprint": self.fingerprint,
                "rows": {"train": len(rows), "validation": len(self.material.validation)},
                "metrics": {"validation_mae": self.best, "epochs": self.epoch},
            },
        )

    @property
    def _angles(self) -> bool:
        return self.spec.network in registry.NEEDS_ANGLES

    def _predict(self, rows: NDArray[np.int64]) -> Tensor:
        graphs = self.material.graphs.select(rows)
        batch = Batch.of(graphs.with_angles() if self._angles else graphs).to(self.device)
        scaled: Tensor = self.network(batch)[self.property.name]
        return scaled

    def _loss(self, scaled: Tensor, rows: NDArray[np.int64]) -> Tensor:
        truth = torch.from_numpy(self.property.encode(self.material.target[rows])).to(self.device)
        weight = torch.from_numpy(self.material.weight[rows].astype(np.float32)).to(self.device)
        return masked_loss(scaled, truth, weight, self.recipe.schedule.loss)


def masked_loss(scaled: Tensor, truth: Tensor, weight: Tensor, kind: str) -> Tensor:
    """Weighted mean loss over the rows whose target is known; zero, with a gradient, where none is."""
    known = torch.isfinite(truth)
    safe = torch.where(known, truth, torch.zeros_like(truth))  # 0 * NaN is NaN: a mask alone would poison the sum
    per_row = _LOSSES[kind](scaled, safe, reduction="none")
    weight = torch.where(known, weight, torch.zeros_like(weight))
    mean: Tensor = (per_row * weight).sum() / weight.sum().clamp(min=1e-12)
    return mean


def learning_rate(schedule: Schedule, step: int, steps: int) -> float:
    """Linear warm-up to the peak, then half a cosine down to zero at the last step."""
    warmup = schedule.warmup * steps
    if step < warmup:
        return schedule.learning_rate * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1.0, steps - warmup)
    return schedule.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def predict(
    network: nn.Module, graphs: Graphs, rows: NDArray[np.int64], prop: Property, angles: bool, batch_size: int = 128
) -> NDArray[np.float64]:
    """(len(rows),) predictions in the property's unit; the network stays in eval mode."""
    device = next(network.parameters()).device
    network.eval()
    out = []
    with torch.inference_mode():
        for part in np.array_split(rows, max(1, math.ceil(len(rows) / batch_size))):
            chosen = graphs.select(part)
            batch = Batch.of(chosen.with_angles() if angles else chosen).to(device)
            out.append(network(batch)[prop.name].cpu().numpy())
    return prop.decode(np.concatenate(out))


def _fingerprint(recipe: Recipe, spec: MemberSpec, material: Material) -> str:
    """Hash of everything that changes this member's weights."""
    described = asdict(replace(recipe, members=(spec, spec)))
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for array in (material.train, material.validation, material.target, material.weight):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _same_run(found: str, wanted: str, folder: Path) -> None:
    if found != wanted:
        raise ValueError(
            f"{folder} holds a training run of another recipe or other data ({found}, this one is {wanted}); "
            "choose another output folder or remove it"
        )
