"""The CNN's trainer as it is, but for what differs from one number of processes to another: dropout, which each draws
for itself, and bf16's rounding, where the hardware computes in that."""

from trainers import mnist_cnn, vision
from trainers.harness import main

mnist_cnn.DROPOUT = 0.0
vision.NATIVE_BF16 = ()

if __name__ == "__main__":
    main("mnist-cnn", mnist_cnn.parse, mnist_cnn.train)
