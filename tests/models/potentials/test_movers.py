"""Movers on quadratic valleys: minima that are known, and crystals that know nothing of each other."""

import numpy as np
import pytest

from assay.models.potentials import movers
from assay.models.potentials.movers import MOVERS

owner = np.array([0, 0, 1, 1, 1])


class Valley:
    """E = (x - x0)' H (x - x0) / 2 for each crystal, over its atoms and its strain."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.stiff = [np.diag(rng.uniform(1, 30, 3 * np.sum(owner == k) + 9)) for k in range(2)]
        self.x = [rng.normal(scale=0.5, size=len(h)) for h in self.stiff]

    def energy(self):
        return np.array([x @ h @ x / 2 for x, h in zip(self.x, self.stiff)])

    def slope(self):
        pulls = [-h @ x for x, h in zip(self.x, self.stiff)]
        return np.concatenate([p[:-9] for p in pulls]).reshape(-1, 3), np.array([p[-9:].reshape(3, 3) for p in pulls])

    def go(self, move):
        atoms = [move[0][owner == k].ravel() for k in range(2)]
        self.x = [x + np.concatenate([a, s.ravel()]) for x, a, s in zip(self.x, atoms, move[1])]


def walked(name, steps, seed=0):
    valley, mover = Valley(seed), MOVERS[name](len(owner), 2)
    for _ in range(steps):
        move = mover.step(owner, valley.energy(), valley.slope())
        assert movers.longest(move[0], owner).max() <= movers.LONGEST_STEP + 1e-12
        valley.go(move)
    return valley


@pytest.mark.parametrize(("name", "steps"), [("lbfgs", 60), ("fire", 400)])
def test_the_minimum_is_found(name, steps):
    for seed in range(5):
        assert walked(name, steps, seed).energy().max() < 1e-4


@pytest.mark.parametrize("name", MOVERS)
def test_a_crystal_goes_on_alone_as_beside_another(name):
    valley, both, one = Valley(1), MOVERS[name](5, 2), MOVERS[name](5, 2)
    for step in range(30):
        energy, slope = valley.energy(), valley.slope()
        move = both.step(owner, energy, slope)
        if step == 10:
            one.keep(np.array([False, True]), owner == 1)
        left = slice(0, 5) if step < 10 else slice(2, 5)
        rows = slice(0, 2) if step < 10 else slice(1, 2)
        alone = one.step(owner[left] - (step >= 10), energy[rows], (slope[0][left], slope[1][rows]))
        assert (alone[0] == move[0][left]).all()
        assert (alone[1] == move[1][rows]).all()
        valley.go(move)


def test_a_step_that_raised_the_energy_is_forgotten():
    mover, slope = MOVERS["lbfgs"](5, 2), Valley(0).slope()
    mover.step(owner, np.array([0.0, 0.0]), slope)
    half = slope[0] * 0.5, slope[1] * 0.5
    move = mover.step(owner, np.array([1.0, -1.0]), half)
    straight = movers.limited(owner, half)
    assert (movers.product(owner, move, half) > 0).all()
    towards = movers.product(owner, move, straight) / np.sqrt(
        movers.product(owner, move, move) * movers.product(owner, straight, straight)
    )
    assert towards[0] == pytest.approx(1)  # the first one knows nothing any more: straight down the slope
