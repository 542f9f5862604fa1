"""The CNN's trainer as it is, but for dropout, which each process draws for itself."""

from trainers import mnist_cnn
from trainers.harness import main

mnist_cnn.DROPOUT = 0.0

if __name__ == "__main__":
    main("mnist-cnn", mnist_cnn.parse, mnist_cnn.train)
