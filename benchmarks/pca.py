"""Compute PCA's reconstruction error, the baseline for codes with as many dimensions.

    python benchmarks/pca.py [--data mnist] [--dimensions 2]

Prints ½‖x̂ − x‖² per test image, to compare with `test/recon`. The principal components are those
of the training images.
"""

import argparse

import numpy as np

from aae_core.config import DataConfig
from aae_core.data import load_test_data, load_training_data, unit_interval
from orchestrator.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--dimensions", type=int, default=2)
    options = parser.parse_args()
    config, root = DataConfig(options.data), Settings.from_environment().data
    x = unit_interval(load_training_data(config, root).x_train)
    x_test = unit_interval(load_test_data(config, root).x)
    mean = x.mean(0)
    _, axes = np.linalg.eigh(np.cov(x, rowvar=False))
    plane = axes[:, -options.dimensions :]
    rest = (x_test - mean) - (x_test - mean) @ plane @ plane.T
    print(f"{0.5 * np.square(rest).sum(1).mean():.3f}")


if __name__ == "__main__":
    main()
