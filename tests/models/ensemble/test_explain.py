"""Attributions add up, go to the atom they belong to and respect symmetry; attention is what timm computes."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from assay.featurize import atoms, graphs
from assay.featurize.graphs import GraphSpec
from assay.featurize.pictures import raster, raster_torch, scene
from assay.featurize.pictures.scene import ViewSpec
from assay.models.ensemble import explain
from assay.models.ensemble.ensemble import Ensemble
from assay.models.networks import registry, torchvision_ops
from assay.models.networks.batch import Batch
from assay.models.networks.inputs import GraphInputs, PictureInputs
from assay.models.networks.layers import Network, PropertyHeads
from assay.sources import files
from tests.featurize.cells import crystal
from tests.featurize.pictures.test_raster import balls
from tests.featurize.pictures.test_scene import SALT
from tests.models.networks.test_networks import SMALL

torchvision_ops.register()
DATA = Path(__file__).resolve().parents[2] / "data"
CUPRATE = files.read_many([DATA / "La1.85Sr0.15CuO4.cif"])[0]
VIEW = ViewSpec(size=32, supercells=((1, 1, 1),), random=1)
TINY = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


def vit(waves: int = 0, **options: Any) -> Any:
    pytest.importorskip("timm", reason="needs timm: pip install assay[vision]")
    torch.manual_seed(0)
    net = registry.create("vit", (3, 32), ["tc"], options={**TINY, **options}, waves=waves, head=[16]).eval()
    with torch.no_grad():
        for value in net.parameters():
            value.add_(0.05 * torch.randn_like(value))  # timm starts from attention that is nearly uniform
    return net


def pictures(view: ViewSpec = VIEW) -> PictureInputs:
    return PictureInputs(CUPRATE, scene.build(CUPRATE, view), view)


def assert_complete(found: explain.Attribution, within: float = 0.02) -> None:
    assert abs(found.error) <= within * abs(found.prediction - found.baseline)


# Graphs.


def test_what_atoms_add_is_the_whole_prediction_of_the_bundled_ensemble(zoo: Path) -> None:
    ensemble = Ensemble.load(zoo / "tc-graphs")
    predicted = ensemble.predict(CUPRATE)[0].values["tc"].members[0]
    for member, value in list(zip(ensemble.members, predicted, strict=True))[1:3]:  # one of either family
        found = explain.attribute(member.network, explain.read(member, CUPRATE), "tc")
        assert_complete(found)
        assert member.properties[0].decode(np.array([found.prediction])) == pytest.approx(value, abs=1e-3)
        copper = [CUPRATE.numbers[CUPRATE.species_ptr[s]] == 29 for s in range(14)]
        np.testing.assert_allclose(np.ptp(found.sites[copper]), 0, atol=1e-4)
        assert found.rest == 0
    assert {member.name for member in ensemble.members[1:3]} == {"alignn", "cgcnn"}


@pytest.mark.parametrize("name", SMALL)
def test_equal_atoms_add_as_much_in_every_network(name: str) -> None:
    torch.manual_seed(1)
    spec = GraphSpec(angles=registry.MODELS[name].reads.angles)
    net = registry.create(name, atoms.width(spec.atom_features), ["tc", "gap"], **SMALL[name]).eval()
    inputs = GraphInputs(graphs.build(SALT, spec))
    for prop in ("tc", "gap"):
        found = explain.attribute(net, inputs, prop, steps=64)
        assert_complete(found)
        for kind in (found.sites[:4], found.sites[4:]):
            np.testing.assert_allclose(kind, kind.mean(), rtol=1e-3)
        assert found.sites[0] != pytest.approx(found.sites[4], rel=0.1)


class Single(Network):
    """Reads one atom, without its neighbours."""

    def __init__(self, site: int) -> None:
        super().__init__()
        self.site = site
        self.heads = PropertyHeads(2, 4, ["tc"], 0.0)

    def encode(self, batch: Batch) -> torch.Tensor:
        first = torch.searchsorted(batch.crystal, torch.arange(len(batch)))
        return torch.tanh(batch.x[first + self.site][:, :2])


@pytest.mark.parametrize("copies", [1, 10**9])
def test_what_one_atom_decides_is_said_of_that_atom(copies: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "STATES_AT_ONCE", copies)
    inputs = GraphInputs(graphs.build(CUPRATE, GraphSpec()))
    found = explain.attribute(Single(5).eval(), inputs, "tc")
    assert found.sites[5] != 0
    assert np.delete(found.sites, 5).tolist() == [0.0] * 13
    assert_complete(found)


def test_a_finer_path_leaves_less_over() -> None:
    torch.manual_seed(2)
    net = registry.create("cgcnn", atoms.width(GraphSpec().atom_features), ["tc"]).eval()
    inputs = GraphInputs(graphs.build(CUPRATE, GraphSpec()))
    errors = [abs(explain.attribute(net, inputs, "tc", steps=steps).error) for steps in (1, 4, 32)]
    assert errors[0] > errors[1] > errors[2]


def test_what_cannot_be_explained_is_told() -> None:
    inputs = GraphInputs(graphs.build(SALT, GraphSpec()))
    net = Single(0)
    with pytest.raises(ValueError, match="in training mode"):
        explain.attribute(net, inputs, "tc")
    with pytest.raises(ValueError, match="steps is 0, expected at least 1"):
        explain.attribute(net.eval(), inputs, "tc", steps=0)
    with pytest.raises(ValueError, match=r"'gap' is not predicted, expected one of \['tc'\]"):
        explain.attribute(net, inputs, "gap")
    with pytest.raises(ValueError, match="Single reads no pictures"):
        explain.attribute(net, pictures(), "tc")
    with pytest.raises(ValueError, match="Single reads no pictures"):
        explain.attention(net, torch.zeros(1, 3, 32, 32))


# Pictures.


def test_what_pixels_add_is_the_whole_prediction() -> None:
    net, inputs = vit(), pictures()
    found = explain.attribute(net, inputs, "tc")
    assert_complete(found)
    with torch.no_grad():
        expected = net(inputs.batch(np.zeros(1, np.int64), net))["tc"].item()
    assert found.prediction == pytest.approx(expected, abs=1e-5)
    assert abs(found.rest) < 1e-3 * abs(found.sites).sum()  # every pixel that is not background shows an atom
    told = np.unique(inputs.scenes.site)
    assert (found.sites[told] != 0).all()
    assert np.delete(found.sites, told).tolist() == [0.0] * (14 - len(told))


class Brightness(torch.nn.Module):
    """In place of a transformer: one number per view, the mean of its pixels."""

    num_features = 1

    def forward_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean(dim=(1, 2, 3))[:, None]

    def forward_head(self, state: torch.Tensor, *, pre_logits: bool) -> torch.Tensor:
        assert pre_logits
        return state


def test_a_linear_network_says_how_much_of_the_picture_each_atom_is() -> None:
    """Views count by their weight, and the background is no atom, whatever its colour."""
    net = vit()
    net.vit, net.heads.heads["tc"] = Brightness(), torch.nn.Identity()
    for background in (0.0, 0.4):
        inputs = pictures(replace(VIEW, background=background))
        found = explain.attribute(net, inputs, "tc", steps=2)
        drawn = raster.images(inputs.scenes, inputs.spec)
        scale = net.std.numpy()[None, :, None, None]
        each = ((drawn - background) / scale).mean(axis=1)
        shown = raster_torch.sites(inputs.scenes, inputs.spec).numpy()
        weight = inputs.scenes.weight / inputs.scenes.weight.sum()
        assert len(set(weight.tolist())) > 1
        for site in np.unique(inputs.scenes.site):
            wanted = (weight[:, None, None] * each * (shown == site)).sum() / 32**2
            assert found.sites[site] == pytest.approx(wanted, rel=1e-3)
        assert abs(found.rest) < 1e-5


# Which site a pixel shows.


def test_sites_are_those_that_rays_hit() -> None:
    """Three spheres, two of them one behind the other; away from outlines, where a pixel shows more than one."""
    centre, radius = np.array([[-0.5, 0, 1.0], [0.3, 0.2, -1.0], [0.6, -0.8, 0.0]]), np.array([0.6, 0.9, 0.5])
    scenes = replace(balls(centre, radius, np.ones((3, 3)), 1.6), site=np.array([4, 7, 2], np.int32))
    spec = ViewSpec(encoding="elements", size=48)
    axis = ((np.arange(48) + 0.5) / 48 * 2 - 1) * 1.6
    x, y = np.meshgrid(axis, -axis)
    apart = np.hypot(x[..., None] - centre[:, 0], y[..., None] - centre[:, 1])
    with np.errstate(invalid="ignore"):
        depth = np.nan_to_num(centre[:, 2] + np.sqrt(radius**2 - apart**2), nan=-np.inf)
    hit = np.where(np.isfinite(depth).any(axis=2), scenes.site[depth.argmax(axis=2)], -1)
    clear = (abs(apart - radius) > 0.75 * 2 * 1.6 / 48).all(axis=2)
    shown = raster_torch.sites(scenes, spec)[0].numpy()
    assert clear.mean() > 0.7
    np.testing.assert_array_equal(shown[clear], hit[clear])
    assert set(shown.ravel().tolist()) == {-1, 2, 4, 7}


def test_sites_are_where_something_is_drawn_and_have_its_colour() -> None:
    spec = ViewSpec(encoding="elements", size=64, supercells=((2, 2, 1),), random=2, shading=0.0)
    scenes = scene.build(CUPRATE, spec)
    drawn = raster.images(scenes, spec)
    shown = raster_torch.sites(scenes, spec).numpy()
    assert (shown.shape, shown.dtype) == ((len(scenes), 64, 64), np.int64)
    assert ((shown < 0) == (drawn.max(axis=1) == 0)).mean() > 0.999
    colour = {site: scenes.colour[scenes.site == site][0] for site in np.unique(scenes.site)}
    wanted = np.array([colour.get(site, np.zeros(3)) for site in shown.ravel().tolist()])
    seen = drawn.transpose(0, 2, 3, 1).reshape(-1, 3)
    assert (abs(seen - wanted).max(axis=1) < 1e-5).mean() > 0.6  # the others are outlines, which are mixed
    lengths = np.linalg.norm(seen, axis=1) * np.linalg.norm(wanted, axis=1)
    likeness = ((seen * wanted).sum(axis=1) / np.maximum(lengths, 1e-9))[lengths > 0]
    assert (likeness > 0.85).mean() > 0.99  # mostly of the colour of the site


def test_nothing_drawn_shows_no_site() -> None:
    scenes = pictures().scenes
    nothing = {part: np.zeros_like(getattr(scenes, part)) for part in ("sphere_ptr", "stick_ptr")}
    assert (raster_torch.sites(replace(scenes, **nothing), VIEW) == -1).all()


# Attention.


@pytest.mark.parametrize("options", [{}, {"qk_norm": True}, {"reg_tokens": 3}, {"class_token": False,
                                     "global_pool": "avg"}])  # fmt: skip
def test_attention_is_what_timm_computes(options: dict[str, Any]) -> None:
    net, batch = vit(**options), torch.randn(3, 3, 32, 32)
    found = explain.attention_weights(net, batch)
    kept: list[torch.Tensor] = []
    for block in net.vit.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _module, _given, out: kept.append(out))
    with torch.no_grad():
        net.vit.forward_features(batch)
    assert len(found) == len(kept) == 2
    for mine, theirs in zip(found, kept, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
        assert theirs.std() > 1e-3


def test_a_network_that_is_given_waves_is_explained_too() -> None:
    net, read = vit(waves=2), pictures()
    assert_complete(explain.attribute(net, read, "tc", steps=64), within=0.05)
    seen = explain.attention(net, read.batch(np.zeros(1, np.int64), net).pixels)
    assert seen.last.shape[1:] == (4, 4)
    assert torch.isfinite(seen.rollout).all()


def test_maps_follow_the_attention_of_the_class_token() -> None:
    net, batch = vit(), torch.randn(6, 3, 32, 32)  # more views than are held at once
    first, last = (heads.mean(dim=1) for heads in explain.attention_weights(net, batch))
    looked = explain.attention(net, batch)
    assert looked.last.shape == looked.rollout.shape == (6, 4, 4)
    torch.testing.assert_close(looked.last.flatten(1), last[:, 0, 1:])
    same = torch.eye(17)
    rolled = (0.5 * last + 0.5 * same) @ (0.5 * first + 0.5 * same)
    torch.testing.assert_close(looked.rollout.flatten(1), rolled[:, 0, 1:])
    torch.testing.assert_close(rolled.sum(dim=2), torch.ones(6, 17))


def test_without_a_class_token_the_patches_are_the_reader() -> None:
    net, batch = vit(class_token=False, global_pool="avg"), torch.randn(2, 3, 32, 32)
    looked = explain.attention(net, batch)
    last = explain.attention_weights(net, batch)[-1].mean(dim=1)
    torch.testing.assert_close(looked.last.flatten(1), last.mean(dim=1))
    with pytest.raises(ValueError, match="pools its tokens by 'max', expected 'token' or 'avg'"):
        explain.attention(vit(class_token=False, global_pool="max"), batch)


def test_rotary_positions_are_refused_and_no_hook_stays() -> None:
    pytest.importorskip("timm", reason="needs timm: pip install assay[vision]")
    options = {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    backbone = "vit_small_patch16_dinov3"
    eva = registry.create("vit", (3, 32), ["tc"], backbone=backbone, options=options, head=[16]).eval()
    with pytest.raises(ValueError, match="attention of the kind EvaAttention cannot be computed again"):
        explain.attention(eva, torch.zeros(1, 3, 32, 32))
    assert_complete(explain.attribute(eva, pictures(replace(VIEW, random=0)), "tc"), 0.05)
    net = vit()
    explain.attention(net, torch.zeros(1, 3, 32, 32))
    assert pickle.loads(pickle.dumps(net)).stages()  # a hook that stayed could not be pickled


def test_one_crystal_at_a_time(zoo: Path) -> None:
    member = Ensemble.load(zoo / "tc-graphs").members[0]
    with pytest.raises(ValueError, match="2 crystals, expected 1"):
        explain.read(member, CUPRATE.select([0, 0]))
    iron = crystal(2.87 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [26, 26])
    built = explain.read(member, iron)
    assert isinstance(built, GraphInputs)
    assert built.graphs.weights is None
    assert len(built.batch(np.zeros(1, np.int64), member.network).triplet_edge) > 0
