"""SAFormer as a library, without Hydra, Lightning or a config: about a minute on one core.

    python examples/library.py figures

trains a small network on digits in a plain PyTorch loop, counts its energy and that of a snnTorch
network that knows nothing of this project, and draws what attention does with images into the
folder `figures`. docs/library.md shows what it prints and draws.
"""

import sys
from pathlib import Path

import snntorch as snn
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import saformer
from saformer.data.readers.digits import load
from saformer.energy import apply, cost_model, count, preset
from saformer.energy.costs import millijoules
from saformer.spikes import figures
from saformer.spikes.record import record

EPOCHS, BATCH = 12, 64


class Net(nn.Module):
    """A convolutional network as snnTorch's tutorials have it: stepped over time in forward."""

    def __init__(self, timesteps: int = 4) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.conv = nn.Conv2d(1, 16, 3, padding=1)
        self.lif1 = snn.Leaky(beta=0.9)
        self.fc = nn.Linear(16 * 4 * 4, 10)
        self.lif2 = snn.Leaky(beta=0.9)

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes = []
        for _ in range(self.timesteps):
            spike, mem1 = self.lif1(F.max_pool2d(self.conv(x), 2), mem1)
            spike, mem2 = self.lif2(self.fc(spike.flatten(1)), mem2)
            spikes.append(spike)
        return torch.stack(spikes)  # [T, B, 10], as ours


def digits() -> tuple[Tensor, Tensor]:
    """All digits [N, 1, 8, 8] in 0..1 and their classes [N]; the last 360 are for testing."""
    images, labels = load()
    return torch.from_numpy(images)[:, None] / 255, torch.from_numpy(labels)


def train(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """A plain training loop."""
    steps = EPOCHS * -(-len(x) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    model.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(BATCH):
            loss = F.cross_entropy(model(x[batch]).mean(0), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def report(name: str, model: nn.Module, x: Tensor, y: Tensor, timesteps: int) -> None:
    """Accuracy, and energy by one convention and one hardware model.

    Args:
        name: What it is called.
        model: The network.
        x: Test images.
        y: Their classes.
        timesteps: T that the layers hold in one call: 1 of a network that loops over time.
    """
    with torch.no_grad():
        accuracy = (model(x).mean(0).argmax(1) == y).float().mean().item()
    counted = apply(count(model, x, timesteps=timesteps), preset("exact"))
    energy = millijoules(cost_model("horowitz45").cost(counted).snn_pJ)
    print(
        f"{name}: test accuracy {accuracy:.1%}, {counted.acs / 1e3:,.0f} k SOPs and "
        f"{counted.macs / 1e3:,.0f} k MACs, {1e3 * energy:.2f} uJ an image "
        "(estimated: exact, horowitz45)"
    )


def main(folder: Path) -> None:
    """Train both, count both, draw one."""
    torch.manual_seed(0)
    x, y = digits()
    test_x, test_y = x[-360:], y[-360:]

    # SASA with a mask over tokens, whose drawing shows where the network looks.
    model = saformer.create_model("saformer_tiny", **{"attention.aggregate": "channels"})
    train(model, x[:-360], y[:-360])
    report("saformer_tiny", model, test_x, test_y, timesteps=4)

    own = Net()
    train(own, x[:-360], y[:-360])
    report("a network of your own", own, test_x, test_y, timesteps=1)

    shown = test_x[:2]
    files = figures.write(
        record(model, shown), shown, test_y[:2].tolist(), "saformer_tiny on digits, T=4", folder
    )
    print(*(file for file in files if file.suffix == ".png"), sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "figures"))
