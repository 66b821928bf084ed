"""Vision transformers: what they see, what they start from, how they are adapted, how they learn and resume."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from assay.featurize.pictures.augment import Augment
from assay.featurize.pictures.scene import ViewSpec
from assay.models.ensemble import checkpoint, stored
from assay.models.ensemble.calibration import Calibration
from assay.models.ensemble.checkpoint import Checkpoint
from assay.models.ensemble.ensemble import Ensemble
from assay.models.networks import registry, torchvision_ops
from assay.models.networks.batch import Images
from assay.models.networks.inputs import PictureInputs
from assay.models.networks.linear import multiplies_bfloat16
from assay.models.target import LOG_VARIANCE, VIEWS, Property
from assay.models.training import lora, optimise, start, train
from assay.models.training.prepare import inputs
from assay.models.training.recipe import Lora, MemberSpec, Recipe, Schedule, Start, Task
from assay.sources.crystals import Crystals, concat
from assay.sources.quarantine import Reason, Stage
from tests.featurize.pictures.test_scene import described_anew
from tests.models.ensemble.test_checkpoint_ensemble import TC, untrained

torchvision_ops.register()
pytest.importorskip("timm", reason="needs timm: pip install assay[vision]")

from assay.models.networks import vision  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
VIEW = ViewSpec(size=32, supercells=((1, 1, 1),), random=1)
TINY = {"options": {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}, "head": [16]}
BACKBONE = {"backbone": "vit_tiny_patch16_224", "options": TINY["options"]}


def network(view: ViewSpec = VIEW, properties: tuple[str, ...] = ("tc",), **sizes: Any) -> vision.ViT:
    torch.manual_seed(0)
    found = registry.create("vit", view.shape, properties, **{**TINY, **sizes})
    assert isinstance(found, vision.ViT)
    return found.eval()


def small(crystals: Crystals, n: int) -> Crystals:
    return crystals.select(np.flatnonzero(np.diff(crystals.site_ptr) <= 10)[:n])


def seen(crystals: Crystals, view: ViewSpec = VIEW, augment: Augment | None = None) -> PictureInputs:
    found = inputs(crystals, view, 0.0)
    assert isinstance(found, PictureInputs)
    return replace(found, augment=augment)


# What a network says of a crystal.


def test_mean_over_the_views_each_as_often_as_it_counts(crystals: Crystals) -> None:
    read, net = seen(small(crystals, 6)), network(properties=("tc", "gap"), variance=True)
    batch = read.batch(np.arange(6), net)
    assert isinstance(batch, Images)
    assert (batch.weight > 1).any(), "no merged views among these crystals"
    out = net(batch)
    assert set(out) == {p + kind for p in ("tc", "gap") for kind in ("", LOG_VARIANCE, VIEWS, LOG_VARIANCE + VIEWS)}
    for row in range(6):
        mine = batch.crystal == row
        wanted = np.average(out["tc" + VIEWS][mine].detach(), weights=batch.weight[mine])
        assert out["tc"][row].item() == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    assert net.encode(batch).shape == (6, 32)
    torch.testing.assert_close(net.look(batch)[0], net.encode(batch))


def test_neighbours_in_a_batch_do_not_matter(crystals: Crystals) -> None:
    read, net = seen(small(crystals, 8)), network()
    together = net(read.batch(np.arange(8), net))["tc"]
    alone = torch.cat([net(read.batch(np.array([row]), net))["tc"] for row in range(8)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_another_description_of_a_crystal_is_the_same_crystal(crystals: Crystals, disordered: Crystals) -> None:
    net = network()
    for few in (small(crystals, 8), small(disordered, 8)):
        others = concat([described_anew(few[row : row + 1], np.random.default_rng(row)) for row in range(8)])
        found = [net(seen(one).batch(np.arange(8), net))["tc"] for one in (few, others)]
        assert found[0].std() > 1e-4
        torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)


def test_an_encoding_of_any_number_of_channels_has_a_network(crystals: Crystals) -> None:
    deep = replace(VIEW, encoding="deep")
    net = network(deep)
    assert net.vit.patch_embed.proj.weight.shape[1] == 13
    assert net.mean.shape == net.std.shape == (13,)
    assert torch.isfinite(net(seen(small(crystals, 3), deep).batch(np.arange(3), net))["tc"]).all()


def test_waves_are_sines_and_cosines_of_every_octave_and_channel() -> None:
    pixels = torch.rand(2, 3, 4, 4) * 2 - 1
    assert torch.equal(vision.ripple(pixels, 0), pixels)
    found = vision.ripple(pixels, 3)
    wanted = [pixels]
    for k in range(3):
        angle = torch.pi * 2**k * pixels.double()
        wanted += [torch.sin(angle).float(), torch.cos(angle).float()]
    torch.testing.assert_close(found, torch.cat(wanted, dim=1), rtol=0, atol=1e-5)
    net = network(waves=3)
    assert net.vit.patch_embed.proj.weight.shape == (32, 21, 8, 8)


def test_what_all_pictures_share_is_taken_away_before_the_heads(crystals: Crystals) -> None:
    read, net = seen(small(crystals, 8)), network()
    batch = read.batch(np.arange(8), net)
    plain = net.vit.forward_head(net.vit.forward_features(batch.pixels), pre_logits=True).detach()
    assert (plain.std(dim=0) / plain.abs().mean()).median() < 0.25  # untrained, all look alike
    net.train()
    for _ in range(160):
        states = net.states(batch).detach()
    assert states.mean(dim=0).abs().max() < 1e-3
    assert states.std(dim=0).median() == pytest.approx(1.0, abs=0.05)
    torch.testing.assert_close(net.eval().states(batch).detach(), states, rtol=0, atol=0.05)


def test_pictures_come_normalised_as_the_backbone_wants_them(crystals: Crystals) -> None:
    few = small(crystals, 2)
    plain, colours = network(), network(backbone="vit_small_patch14_dinov2.lvd142m", options={
        "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2})  # fmt: skip
    assert plain.mean.tolist() == [0.5] * 3
    assert colours.mean.tolist() == pytest.approx([0.485, 0.456, 0.406])
    first, second = (seen(few).batch(np.arange(2), net).pixels for net in (plain, colours))
    back = second * colours.std.view(1, 3, 1, 1) + colours.mean.view(1, 3, 1, 1)
    torch.testing.assert_close(back, first * 0.5 + 0.5, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"backbone": "vit_tinny_patch16_224"}, "did you mean 'vit_tiny_patch16_224'"),
        ({"backbone": "resnet18", "options": {}}, "refuses its sizes|no vision transformer"),
        ({"options": {"patch_size": 7}}, "32 pixels do not divide into patches of 7"),
        ({"options": {"depht": 3}}, "refuses its sizes"),
        ({"options": {"pretrained": True}}, "asked for with start"),
    ],
)
def test_what_is_no_network_is_named(sizes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        network(**sizes)


# Published weights.


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of another, larger-sighted network of three channels, as timm writes them."""
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("hub") / "model.safetensors"
    made = vision.transformer(BACKBONE["backbone"], (3, 64), TINY["options"])  # type: ignore[arg-type]
    save_file({name: value + 0.01 * torch.randn_like(value) for name, value in made.state_dict().items()}, path)
    return path


def test_a_local_file_gives_its_weights(published: Path) -> None:
    weights = vision.published(str(published), **BACKBONE, features=(3, 64))  # type: ignore[arg-type]
    stored = load_file(published)
    assert {name: value.shape for name, value in weights.items()} == {f"vit.{n}": v.shape for n, v in stored.items()}
    assert all(torch.equal(weights[f"vit.{name}"], value) for name, value in stored.items())


def test_positions_and_channels_are_adapted(published: Path) -> None:
    weights = vision.published(str(published), **BACKBONE, features=(13, 32))  # type: ignore[arg-type]
    stored = load_file(published)
    assert weights["vit.pos_embed"].shape == (1, 17, 32)
    kernel = weights["vit.patch_embed.proj.weight"]
    torch.testing.assert_close(kernel[:, 3:6], stored["patch_embed.proj.weight"] * 3 / 13)
    assert torch.equal(weights["vit.blocks.1.attn.qkv.weight"], stored["blocks.1.attn.qkv.weight"])


def test_weights_that_do_not_fit_or_are_not_all_there_are_refused(published: Path, tmp_path: Path) -> None:
    stored = load_file(published)
    save_file({name: value for name, value in stored.items() if "blocks.1" not in name}, tmp_path / "half.safetensors")
    save_file({f"model.{name}": value for name, value in stored.items()}, tmp_path / "named.safetensors")
    classes = {"head.weight": torch.randn(1000, 32), "head.bias": torch.randn(1000)}  # timm loads less strictly then
    lacking = {name: value for name, value in stored.items() if name != "blocks.1.norm1.weight"}
    save_file({**lacking, **classes}, tmp_path / "lacking.safetensors")
    for name in ("half", "named", "lacking"):
        with pytest.raises(ValueError, match=rf"{name}\.safetensors (do not fit|leave)"):
            vision.published(str(tmp_path / f"{name}.safetensors"), **BACKBONE, features=(3, 64))  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors is missing"):
        vision.published(str(tmp_path / "nowhere.safetensors"), **BACKBONE, features=(3, 64))  # type: ignore[arg-type]


def test_offline_without_a_cache_is_an_error_and_never_random_weights(tmp_path: Path) -> None:
    script = """
from assay.models.networks import vision
for name in ("vit_small_patch14_reg4_dinov2.lvd142m", "vit_tiny_patch16_224"):
    try:
        vision.published(vision.HUB, name, (3, 28 if "14" in name else 32), {"depth": 1})
    except FileNotFoundError as error:
        print(error)
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert len(lines) == 2
    assert all("not in the cache and cannot be fetched" in line and "start.folder" in line for line in lines), lines


# Adapters.


def test_adapters_of_vit_b_are_as_many_as_published() -> None:
    """Rank 16 on attn.qkv, and a head 768-512-256-1."""
    net = registry.create("vit", (3, 32), ["tc"], backbone="vit_base_patch16_224", options={}, head=[512, 256])
    lora.adapt(net, Lora(rank=16, alpha=32.0, dropout=0.1, layers=("attn.qkv",)))
    learning = {name: p.numel() for name, p in net.named_parameters() if p.requires_grad}
    assert sum(n for name, n in learning.items() if "lora_" in name) == 589_824
    assert sum(n for name, n in learning.items() if name.startswith("heads.")) == 525_313
    assert sum(learning.values()) == 1_115_137


def test_adapters_start_as_nothing_learn_and_fold_into_the_weights(crystals: Crystals) -> None:
    read, net, plain = seen(small(crystals, 6)), network(), network()
    batch = read.batch(np.arange(6), net)
    lora.adapt(net, Lora(rank=4, alpha=8.0, layers=("attn.qkv",)))
    assert torch.equal(net.eval()(batch)["tc"], plain(batch)["tc"])
    optimizer = torch.optim.AdamW((p for p in net.parameters() if p.requires_grad), lr=1e-2)
    for _ in range(3):
        net.train()
        (net(batch)["tc"] ** 2).sum().backward()
        lora.check_gradients(net)
        optimizer.step()
    adapted = net.eval()(batch)["tc"]
    assert not torch.allclose(adapted, plain(batch)["tc"], atol=1e-3)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    again = network()
    lora.adapt(again, Lora(rank=4, alpha=8.0, layers=("attn.qkv",)))
    again.load_state_dict(state)
    assert torch.equal(again.eval()(batch)["tc"], adapted)
    lora.merge(net)
    assert net.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(net(batch)["tc"], adapted, rtol=1e-5, atol=1e-6)


def test_adapters_that_a_backbone_goes_round_are_noticed() -> None:
    """timm's Eva with separate biases reads qkv.weight instead of calling the layer (notes/models.md, section 7)."""
    tiny = {"embed_dim": 32, "depth": 1, "num_heads": 2}
    net = registry.create("vit", (3, 32), ["tc"], backbone="vit_small_patch16_dinov3_qkvb", options=tiny, head=[8])
    lora.adapt(net, Lora(rank=2, layers=("attn.qkv",)))
    images = Images(torch.randn(2, 3, 32, 32), torch.arange(2), torch.ones(2), 2)
    net.train()(images)["tc"].sum().backward()
    with pytest.raises(ValueError, match=r"1 of 1 adapters got no gradient: vit\.blocks\.0\.attn\.qkv"):
        lora.check_gradients(net)


# Learning.

VIT = MemberSpec("vit", 1, {**TINY, "dropout": 0.1})


def recipe(member: MemberSpec = VIT, **schedule: Any) -> Recipe:
    return Recipe(
        name="t",
        tasks=(Task("mp-formation-energy", Property("formation_energy", "eV/atom")),),
        members=(member, member),
        view=VIEW,
        augment=Augment(views=2),
        schedule=Schedule(**{"batch_size": 8, "epochs": 4, "learning_rate": 1e-3, **schedule}),
    )


def material(plan: Recipe, crystals: Crystals, train_rows: int, rows: int) -> train.Material:
    few = small(crystals, rows)
    target = few.columns["e_form"].astype(np.float64)[:, None]
    read = seen(few, plan.view, plan.augment)
    return train.Material(read, target, np.ones(rows), np.arange(train_rows), np.arange(train_rows, rows))


def test_memorises_eight_crystals(crystals: Crystals, tmp_path: Path) -> None:
    sizes = {**TINY, "dropout": 0.0}
    plan = recipe(MemberSpec("vit", 1, sizes), epochs=250, patience=250, learning_rate=3e-3, weight_decay=0.0)
    plan = replace(plan, augment=Augment(views=0, turn="none", flip=False, zoom=0.0))
    data = material(plan, crystals, 8, 8)
    found = train.member(plan, 0, replace(data, validation=data.train), tmp_path, {})
    assert found.facts["metrics"]["validation_mae"] < 0.05 * data.target.std()


class Stop(Exception):
    """Raised in place of a kill."""


STARTS: dict[str, Start | None] = {
    "scratch": None,
    "fine-tuned": Start("", backbone_rate=1e-3),
    "frozen embeddings": Start("", freeze="embeddings", backbone_rate=1e-3),
    "frozen first layer": Start("", freeze="first", backbone_rate=1e-3),
    "head only": Start("", freeze="head-only"),
    "adapters": Start("", backbone_rate=1e-3, lora=Lora(rank=2, dropout=0.1, layers=("attn.qkv",))),
}


@pytest.mark.parametrize("kind", STARTS)
def test_stopped_and_resumed_equals_unbroken(kind: str, crystals: Crystals, tmp_path: Path) -> None:
    plan, begun = recipe(ema=0.9), STARTS[kind]
    data = material(plan, crystals, 24, 32)
    if begun:
        if begun.lora:
            pytest.importorskip("peft", reason="needs peft: pip install assay[lora]")
        train.member(recipe(epochs=1), 0, data, tmp_path / "begun", {})
        plan = replace(plan, start=replace(begun, folder=str(tmp_path / "begun")))
    train.member(plan, 0, data, tmp_path / "whole", {})

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise Stop

    with pytest.raises(Stop):
        train.member(plan, 0, data, tmp_path / "broken", {}, progress=stop)
    torch.manual_seed(12345)
    train.member(plan, 0, data, tmp_path / "broken", {})
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "broken")]
    assert weights[0] == weights[1]
    if begun and begun.freeze == "embeddings":
        before, after = (checkpoint.read(tmp_path / name).network.state_dict() for name in ("begun", "whole"))
        kept = [name for name in before if torch.equal(before[name], after[name])]
        assert {"vit.pos_embed", "vit.cls_token", "vit.patch_embed.proj.weight", "mean", "std"} <= set(kept)
        assert not any(".attn.qkv.weight" in name for name in kept)


def test_published_weights_have_seen_no_waves(published: Path) -> None:
    with pytest.raises(ValueError, match=r"sizes\.waves is 2; published weights have seen none"):
        start.find(Start(str(published)), replace(VIT, sizes={**TINY, "waves": 2}), VIEW, 0)


def test_starts_from_a_published_file(published: Path, crystals: Crystals, tmp_path: Path) -> None:
    plan = replace(recipe(epochs=1), start=Start(str(published), freeze="head-only"))
    found = train.member(plan, 0, material(plan, crystals, 8, 12), tmp_path, {})
    stored = load_file(published)
    assert torch.equal(found.network.state_dict()["vit.blocks.0.attn.qkv.weight"], stored["blocks.0.attn.qkv.weight"])


def test_a_masked_autoencoder_learns_without_values_and_a_network_starts_from_it(
    crystals: Crystals, tmp_path: Path
) -> None:
    mae = MemberSpec("mae", 1, {"options": TINY["options"], "decoder_width": 32, "decoder_layers": 1, "waves": 2})
    plan = recipe(mae, epochs=25, learning_rate=1e-2)
    data = material(plan, crystals, 40, 60)
    data = replace(data, target=np.zeros_like(data.target))
    found = train.member(plan, 0, data, tmp_path / "mae", {})
    history = (tmp_path / "mae/history.jsonl").read_text().splitlines()
    errors = [json.loads(line)["validation_mae"] for line in history]
    assert errors[-1] < 0.95 * errors[0], errors  # 1 is what the mean of the picture would have
    seeing = replace(VIT, sizes={**TINY, "waves": 2})
    tuned = replace(recipe(seeing, epochs=1), start=Start(str(tmp_path / "mae"), freeze="head-only"))
    after = train.member(tuned, 0, material(tuned, crystals, 8, 12), tmp_path / "vit", {}).network.state_dict()
    trunk = {name: value for name, value in found.network.state_dict().items() if name.startswith("vit.")}
    assert all(torch.equal(after[name], value) for name, value in trunk.items())
    with pytest.raises(ValueError, match="learned otherwise; write under view: encoding: physics"):
        start.find(tuned.start, seeing, replace(VIEW, encoding="elements"), 0)  # type: ignore[arg-type]
    start.find(tuned.start, seeing, replace(VIEW, random=4, seed=9), 0)  # type: ignore[arg-type]


def test_what_learned_without_values_is_no_member(crystals: Crystals, tmp_path: Path) -> None:
    mae = MemberSpec("mae", 1, {"options": TINY["options"]})
    with pytest.raises(ValueError, match="a recipe of their own"):
        replace(recipe(), members=(VIT, mae))
    made = registry.create("mae", (3, 32), ["tc"], options=TINY["options"]).eval()
    painted = Checkpoint(made, "mae", {"options": TINY["options"]}, VIEW, (TC,), ("O",), {})
    with pytest.raises(ValueError, match="learned without known values"):
        Ensemble("both", tmp_path, (pictured(0), painted), {"tc": Calibration(0.9, 2.0, 0.5, 100, 1.5)}, {})


@pytest.mark.parametrize("name", ["tiny_patch16_224", "base_patch16_siglip_224", "base_patch16_clip_224"])
def test_every_part_of_a_trunk_is_in_one_stage(name: str) -> None:
    options = {"embed_dim": 48, "depth": 2, "num_heads": 3}
    net = registry.create("vit", (3, 32), ["tc"], backbone=f"vit_{name}", options=options)
    held = [id(p) for stage in net.stages() for p in stage.parameters()]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for name, p in net.named_parameters() if not name.startswith("heads.")}
    assert len(net.stages()) == 3


def test_an_autoencoder_hides_the_same_patches_in_every_validation(crystals: Crystals) -> None:
    read = seen(small(crystals, 4))
    net = registry.create("mae", (3, 32), ["reconstruction"], options=TINY["options"]).eval()
    batch = read.batch(np.arange(4), net)
    assert torch.equal(net(batch)["reconstruction"], net(batch)["reconstruction"])
    net.train()
    assert not torch.equal(net(batch)["reconstruction"], net(batch)["reconstruction"])
    loss = optimise.masked_loss(
        net(batch), {"reconstruction": torch.zeros(4)}, torch.ones(4), {"reconstruction": torch.tensor(4.0)}, "l1"
    )
    loss.backward()
    assert all(p.grad is not None for p in net.parameters())


# In an ensemble.


def pictured(seed: int, view: ViewSpec = VIEW) -> Checkpoint:
    torch.manual_seed(seed)
    net = registry.create("vit", view.shape, ["tc"], **TINY).eval()
    return Checkpoint(net, "vit", TINY, view, (TC,), ("O", "Cu", "La", "Sr"), {"seed": seed})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    members = [untrained("cgcnn", 0), pictured(1), untrained("alignn", 2), pictured(3, replace(VIEW, encoding="deep"))]
    for k, member in enumerate(members):
        checkpoint.write(member, tmp_path / f"member-{k}")
    names = [f"member-{k}" for k in range(4)]
    stored.write(tmp_path, "both", names, {"tc": Calibration(0.9, 2.0, 0.5, 100, 1.5)}, {})
    return tmp_path


def test_saved_and_loaded_sees_the_same(tmp_path: Path, crystals: Crystals) -> None:
    before = pictured(5, replace(VIEW, encoding="electronic", bonds=0.0))
    checkpoint.write(before, tmp_path)
    after = checkpoint.read(tmp_path)
    assert (after.spec, after.name, after.sizes) == (before.spec, "vit", TINY)
    read = seen(small(crystals, 3), before.spec)  # type: ignore[arg-type]
    first, second = (one.network(read.batch(np.arange(3), one.network))["tc"] for one in (before, after))
    assert torch.equal(first, second)


def test_graphs_and_pictures_in_one_ensemble(folder: Path, crystals: Crystals) -> None:
    loaded, few = Ensemble.load(folder), small(crystals, 12)
    assert loaded.views == (VIEW, replace(VIEW, encoding="deep"))
    found, refused = loaded.predict(few)
    assert not refused
    value = found.values["tc"]
    for k in (1, 3):
        member = loaded.members[k]
        read = seen(few, member.spec)  # type: ignore[arg-type]
        alone = train.predict(member.network, read, np.arange(12), [TC])[:, 0]
        np.testing.assert_allclose(value.members[:, k], alone, rtol=1e-4, atol=1e-5)
    apart = value.members[:, [0, 2]].mean(axis=1) - value.members[:, [1, 3]].mean(axis=1)
    np.testing.assert_allclose(value.disagreement, apart)
    again, _ = Ensemble.load(folder).predict(few)
    assert again.values["tc"].members.tobytes() == value.members.tobytes()


def test_spread_across_the_views_is_that_of_their_predictions(folder: Path, crystals: Crystals) -> None:
    loaded, few = Ensemble.load(folder), small(crystals, 5)
    found, _ = loaded.predict(few)
    variance = []
    for k in (1, 3):
        member = loaded.members[k]
        batch = seen(few, member.spec).batch(np.arange(5), member.network)  # type: ignore[arg-type]
        each = TC.decode(member.network(batch)["tc" + VIEWS].detach().numpy())
        rows = [(batch.crystal == row).numpy() for row in range(5)]
        weights = [batch.weight.numpy()[row] for row in rows]
        middle = [np.average(each[row], weights=w) for row, w in zip(rows, weights)]
        variance.append([np.average((each[row] - m) ** 2, weights=w) for row, w, m in zip(rows, weights, middle)])
    assert found.values["tc"].view_spread == pytest.approx(np.sqrt(np.mean(variance, axis=0)), rel=1e-3, abs=1e-6)


def test_graph_networks_alone_say_nothing_of_views(tmp_path: Path, crystals: Crystals) -> None:
    for k in range(2):
        checkpoint.write(untrained("cgcnn", k), tmp_path / f"member-{k}")
    stored.write(tmp_path, "g", ["member-0", "member-1"], {"tc": Calibration(0.9, 2.0, 0.5, 100, 1.5)}, {})
    found, _ = Ensemble.load(tmp_path).predict(crystals[:3])
    assert found.values["tc"].disagreement is found.values["tc"].view_spread is None


def test_a_crystal_that_cannot_be_drawn_is_accounted_for(folder: Path, crystals: Crystals) -> None:
    few = small(crystals, 4)
    huge = replace(VIEW, supercells=((40, 40, 40),))
    checkpoint.write(pictured(1, huge), folder / "member-1")
    stored.seal(folder)
    loaded = Ensemble.load(folder)
    found, refused = loaded.predict(few)
    assert len(found.index) + len(refused) == 4
    assert refused
    assert {(row.stage, row.reason) for row in refused} == {(Stage.FEATURIZE, Reason.UNSUPPORTED)}
    assert all("at most 20000 are drawn" in row.message for row in refused)


@pytest.mark.skipif(not multiplies_bfloat16(), reason="oneDNN or the processor has no bfloat16")
def test_bfloat16_says_nearly_the_same_and_the_ensemble_says_that_it_is_used(folder: Path, crystals: Crystals) -> None:
    few = small(crystals, 12)
    full, _ = Ensemble.load(folder).predict(few)
    described = json.loads((folder / "ensemble.json").read_text())
    (folder / "ensemble.json").write_text(json.dumps({**described, "precision": "bfloat16"}))
    stored.seal(folder)
    half, _ = Ensemble.load(folder).predict(few)
    before, after = full.values["tc"].members, half.values["tc"].members
    assert np.array_equal(before[:, [0, 2]], after[:, [0, 2]])  # graph networks are left alone
    assert not np.array_equal(before[:, [1, 3]], after[:, [1, 3]])
    np.testing.assert_allclose(after[:, [1, 3]], before[:, [1, 3]], rtol=0.03, atol=0.03 * before.std())
    again, _ = Ensemble.load(folder).predict(few)
    assert again.values["tc"].members.tobytes() == after.tobytes()


@pytest.mark.skipif(not multiplies_bfloat16(), reason="oneDNN or the processor has no bfloat16")
def test_a_backbone_that_cannot_do_bfloat16_is_named() -> None:
    net = registry.create("vit", (3, 28), ["tc"], backbone="eva02_tiny_patch14_224",
                          options={"embed_dim": 48, "depth": 1, "num_heads": 3}).eval()  # fmt: skip
    with pytest.raises(ValueError, match="which this backbone cannot do"):
        net.lower()


def test_bfloat16_without_the_instructions_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with pytest.raises(ValueError, match="this processor does not multiply it"):
        checkpoint.read(folder / "member-1", "bfloat16")
    checkpoint.read(folder / "member-0", "bfloat16")
