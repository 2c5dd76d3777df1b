from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from sr_models.gan import MEMORY, Adversary, Discriminator, noise_step
from sr_models.scheduler import BridgeScheduler

VALUES = json.loads(
    (Path(__file__).parents[1] / "reference_values" / "sr_processes.json").read_text()
)["supresdiffgan"]


class Fixed(torch.nn.Module):
    """A discriminator that always says the same."""

    def __init__(self, logit):
        super().__init__()
        self.logit = torch.nn.Parameter(torch.tensor(float(logit)))

    def forward(self, pairs):
        self.seen = pairs
        return self.logit.expand(len(pairs))


def adversary(module):
    scheduler = BridgeScheduler("supresdiffgan", 1000, {"schedule": "cosine"})
    return Adversary(module, torch.optim.SGD(module.parameters(), 0.1), scheduler)


def images(n=4):
    return torch.randn(3, n, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", VALUES["ema_noise_step"])
def test_the_noise_level_follows_the_accuracy(name):
    given = {"acc=1 x12": [1.0] * 12, "acc=0 x3": [0.0] * 3}
    given["acc 1,.75,.5,.25,1"] = [1, 0.75, 0.5, 0.25, 1]
    if name == "acc=1 limit":
        assert noise_step(1.0, 1000) == VALUES["ema_noise_step"][name]
        return
    running, got = 0.5, []
    for accuracy in given[name]:
        running = MEMORY * running + (1 - MEMORY) * accuracy
        got.append([pytest.approx(running, abs=1e-12), noise_step(running, 1000)])
    assert [[v, n] for v, n in VALUES["ema_noise_step"][name]] == got


@pytest.mark.parametrize(("fool", "right"), [(False, True), (True, False)])
def test_losses_of_a_sure_discriminator(fool, right, monkeypatch):
    """p = 0.8 for "the truth is second" while it is: cheap for the judge, dear for the forger."""
    monkeypatch.setattr(torch, "randint", lambda high, size, generator: torch.ones(size))
    rival = adversary(Fixed(math.log(0.8 / 0.2)))
    x0h, x0, y = images()
    ask = rival.generator_loss if fool else rival.discriminator_loss
    want = VALUES["loss_weights"]["bce_at_p"][f"p=0.8,y={int(right)}"]
    assert ask(x0h, x0, y, torch.Generator()).item() == pytest.approx(want, rel=1e-6)
    assert rival.accuracy == pytest.approx(0.97 * 0.5 + 0.03)  # it is right in both turns


def test_truth_and_estimate_take_either_place():
    rival = adversary(Fixed(0.0))
    rival.accuracy = 0.0  # at the lowest noise level the images are themselves
    x0, x0h, y = torch.ones(64, 1, 4, 4), -torch.ones(64, 1, 4, 4), torch.zeros(64, 1, 4, 4)
    rival.discriminator_loss(x0h, x0, y, torch.Generator().manual_seed(0))
    seen = rival.discriminator.seen
    first = (seen[:, 0].mean((1, 2)) > 0).float()
    torch.testing.assert_close(seen.abs(), torch.ones_like(seen), rtol=0, atol=0.1)
    assert (seen[:, 0] * seen[:, 1] < 0).all()
    assert 0.2 < first.mean() < 0.8


def test_the_gradient_reaches_the_estimate_and_not_the_discriminator():
    rival = adversary(Discriminator(1, (8, 8)))
    x0h, x0, y = images()
    x0h.requires_grad_()
    rival.generator_loss(x0h, x0, y, torch.Generator().manual_seed(0)).backward()
    assert x0h.grad is not None
    assert x0h.grad.abs().sum() > 0
    assert all(p.grad is None for p in rival.discriminator.parameters())
    rival.discriminator_loss(x0h, x0, y, torch.Generator().manual_seed(0)).backward()
    before = x0h.grad.clone()
    assert torch.equal(x0h.grad, before)
    assert all(p.grad is not None for p in rival.discriminator.parameters())


def test_the_discriminator_learns_to_tell_them_apart():
    torch.manual_seed(0)
    rival = adversary(Discriminator(1, (8, 8)))
    rival.optimiser = torch.optim.Adam(rival.discriminator.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(0)
    x0, y = torch.rand(16, 1, 16, 16), torch.zeros(16, 1, 16, 16)
    x0h = torch.nn.functional.avg_pool2d(x0, 3, 1, 1)
    losses = []
    for _ in range(40):
        loss = rival.discriminator_loss(x0h, x0, y, generator)
        rival.optimiser.zero_grad()
        loss.backward()
        rival.optimiser.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(2), abs=0.1)
    assert min(losses) < 0.4
    assert rival.accuracy > 0.6  # so that it is shown more noise by now


def test_every_level_of_the_discriminator_halves_the_resolution():
    sides = []
    rival = Discriminator(1, (2, 3, 4)).eval()
    for layer in rival.layers:
        layer.register_forward_hook(lambda layer, given, out: sides.append(out.shape[-1]))
    rival(torch.zeros(1, 2, 32, 32))
    assert list(dict.fromkeys(sides)) == [32, 16, 8, 4, 1]


def test_the_official_discriminator_has_its_published_size():
    count = sum(p.numel() for p in Discriminator(3).parameters())
    assert count == pytest.approx(5.2e6, rel=0.02)


def test_its_state_is_resumed():
    one, two = (adversary(Discriminator(1, (8, 8))) for _ in range(2))
    one.accuracy = 0.7
    two.load_state_dict(one.state_dict())
    assert two.accuracy == 0.7
    pairs = zip(
        one.discriminator.state_dict().values(),
        two.discriminator.state_dict().values(),
        strict=True,
    )
    assert all(torch.equal(a, b) for a, b in pairs)
