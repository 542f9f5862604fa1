"""An ordinary MNIST script, in the shape in which most are written: the yardstick of `tests/bench/mnist.py`.

The network, optimiser and settings are those of the PyTorch project's well-known example; images are decoded, made
tensors and normalised one by one in a DataLoader, as torchvision's data set and transforms do. Written for this bench:
`python -m tests.bench.mnist_baseline DATA_DIR EPOCHS SEED`.
"""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

BATCH, TEST_BATCH = 64, 1000
DECAY = 0.7  # of the learning rate, an epoch


def network() -> nn.Sequential:
    """(n, 1, 28, 28) → logits (n, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(9216, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )


def main(data_dir: str, epochs: int, seed: int) -> None:
    torch.manual_seed(seed)
    each = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    train = DataLoader(datasets.MNIST(data_dir, train=True, transform=each), batch_size=BATCH, shuffle=True)
    test = DataLoader(datasets.MNIST(data_dir, train=False, transform=each), batch_size=TEST_BATCH)
    model = network()
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=DECAY)
    for _ in range(epochs):
        model.train()
        for images, labels in train:
            optimizer.zero_grad()
            cross_entropy(model(images), labels).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            hits = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in test)
        print(f"Accuracy: {hits}/{len(test.dataset)}", flush=True)
        schedule.step()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
