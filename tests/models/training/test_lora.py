"""Adapters: they start as nothing, they alone learn, they fold into a plain network."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from assay.models.networks.batch import Batch
from assay.models.training import lora
from assay.models.training.recipe import Lora
from assay.sources.crystals import Crystals
from tests.models.networks.test_networks import batch_of, network

pytest.importorskip("peft")

ROOT = Path(__file__).resolve().parents[3]
NETWORKS = pytest.mark.parametrize("name", ["cgcnn", "alignn"])


def adapted(name: str, **settings: float) -> nn.Module:
    net = network(name)
    lora.adapt(net, Lora(rank=4, **settings))
    return net


def learn(net: nn.Module, batch: Batch, steps: int, optimizer: torch.optim.Optimizer | None = None) -> None:
    optimizer = optimizer or torch.optim.AdamW((p for p in net.parameters() if p.requires_grad), lr=1e-2)
    target = torch.linspace(-1, 1, len(batch))
    for _ in range(steps):
        net.train()
        lora.rest(net)
        optimizer.zero_grad(set_to_none=True)
        functional.mse_loss(net(batch)["tc"], target).backward()
        optimizer.step()


@NETWORKS
def test_fresh_adapters_change_nothing_and_learn_alone(name: str, crystals: Crystals) -> None:
    batch, plain, net = batch_of(name, crystals[:8]), network(name), adapted(name)
    assert torch.equal(plain(batch)["tc"], net.eval()(batch)["tc"])
    learning = {n for n, p in net.named_parameters() if p.requires_grad}
    assert learning == {n for n, _ in net.named_parameters() if "lora_" in n or n.startswith("heads.")}
    assert sum("lora_B" in n for n in learning) == {"cgcnn": 4, "alignn": 15}[name]

    before = {n: t.clone() for n, t in net.state_dict().items()}
    learn(net, batch, 3)
    changed = {n for n, t in net.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == learning  # no running statistic among them


@NETWORKS
def test_batch_statistics_run_again_where_nobody_rests_them(name: str, crystals: Crystals) -> None:
    net = adapted(name)
    before = {n: b.clone() for n, b in net.named_buffers()}
    net.train()(batch_of(name, crystals[:8]))
    assert any(not torch.equal(b, before[n]) for n, b in net.named_buffers())


def test_what_learns_is_not_put_to_rest() -> None:
    net = network("cgcnn")
    net.layers[0].requires_grad_(requires_grad=False)
    lora.rest(net.train())
    assert [layer.norm.training for layer in net.layers] == [False, True]


@NETWORKS
def test_merged_network_is_plain_and_predicts_the_same(name: str, crystals: Crystals) -> None:
    batch, plain, net = batch_of(name, crystals[:8]), network(name), adapted(name)
    learn(net, batch, 10)
    with torch.no_grad():
        before = net.eval()(batch)["tc"]
        lora.merge(net)
        torch.testing.assert_close(net(batch)["tc"], before, rtol=0, atol=1e-6)
    shapes = {n: t.shape for n, t in net.state_dict().items()}
    assert shapes == {n: t.shape for n, t in plain.state_dict().items()}
    started = plain.state_dict()
    moved = {n for n, t in net.state_dict().items() if not torch.equal(t, started[n]) and not n.startswith("heads.")}
    assert {n.rpartition(".")[0].rpartition(".")[2] for n in moved} <= set(Lora().layers)
    assert len(moved) == {"cgcnn": 4, "alignn": 15}[name]
    plain.load_state_dict(net.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(plain(batch)["tc"], net(batch)["tc"])


@NETWORKS
def test_stopped_and_resumed_equals_unbroken(name: str, crystals: Crystals, tmp_path: Path) -> None:
    batch, net = batch_of(name, crystals[:8]), adapted(name, dropout=0.3)
    optimizer = torch.optim.AdamW((p for p in net.parameters() if p.requires_grad), lr=1e-2)
    learn(net, batch, 3, optimizer)
    state = {"network": net.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}
    torch.save(state, tmp_path / "state.pt")
    learn(net, batch, 3, optimizer)

    again = adapted(name, dropout=0.3)
    optimizer = torch.optim.AdamW((p for p in again.parameters() if p.requires_grad), lr=1e-2)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    again.load_state_dict(state["network"], strict=True)
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    learn(again, batch, 3, optimizer)
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in net.state_dict().items())


@NETWORKS
def test_every_adapter_gets_a_gradient(name: str, crystals: Crystals) -> None:
    net = adapted(name)
    with pytest.raises(ValueError, match="adapters got no gradient"):
        lora.check_gradients(net)
    learn(net, batch_of(name, crystals[:8]), 1)
    lora.check_gradients(net)


class RoundTheLayer(nn.Module):
    """Reads the weight of a layer instead of calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Linear(3, 3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.target(functional.linear(x, self.source.weight))


def test_an_adapter_that_is_bypassed_is_named() -> None:
    net = RoundTheLayer()
    lora.adapt(net, Lora())
    net(torch.ones(2, 3)).sum().backward()
    with pytest.raises(ValueError, match=r"1 of 2 adapters got no gradient: source$"):
        lora.check_gradients(net)


@pytest.mark.parametrize("layers", [("qkv",), (), ("heads", "0")])
def test_layers_that_are_not_there_are_answered_with_those_that_are(layers: Sequence[str]) -> None:
    with pytest.raises(ValueError, match=r"linear layers of this network are: edge, embed, source, target$"):
        lora.adapt(network("cgcnn"), Lora(layers=tuple(layers)))


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"start\.lora needs peft, .* pip install 'assay\[lora\]'"):
        lora.adapt(network("cgcnn"), Lora())


def python(code: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    path = ":".join(str(folder) for folder in (ROOT, *folders))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path})


def test_peft_is_imported_on_use() -> None:
    assert python("import sys, assay.models.training.lora; print('peft' in sys.modules)").stdout.strip() == "False"


def test_a_torchvision_that_does_not_fit_can_be_imported(tmp_path: Path) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("import torch\ntorch.library.register_fake('torchvision::nms')(len)\n")
    (package / "_C.so").write_text("linked to another torch")
    bare = python("import torchvision", tmp_path)
    assert "operator torchvision::nms does not exist" in bare.stderr
    code = (
        "from assay.models.networks.torchvision_ops import register as r; r(); r(); import torchvision, torch; print(1)"
    )
    helped = python(code, tmp_path)
    assert helped.stdout.strip() == "1", helped.stderr
