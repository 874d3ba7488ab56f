"""A small run that writes large checkpoints, for the tests that kill it: python training_run.py FOLDER EPOCHS."""
import sys
from pathlib import Path

import numpy as np

from cs231n_lit.solver import Solver


class Heavy:
    "A linear model with ballast: few sums, many numbers, so that most of the time goes into writing checkpoints."
    def __init__(self):
        self.params = {"w": 0.01 * np.random.randn(4, 3), "ballast": np.random.randn(200_000)}

    def loss(self, X, y=None):
        scores = X @ self.params["w"]
        if y is None: return scores
        d = (scores - np.eye(3)[y]) / len(X)
        return 0.5 * len(X) * np.sum(d**2), {"w": X.T @ d, "ballast": self.params["ballast"]}


def latest(folder):
    "The newest checkpoint, or None."
    return max(Path(folder).glob("run_epoch_*.npz"), key=lambda p: int(p.stem.split("_")[-1]), default=None)


def main(folder, epochs):
    "Start, or go on from the newest checkpoint; write the losses and the last weights to `done.npy`."
    rng = np.random.default_rng(0)
    data = {"X_train": rng.standard_normal((20, 4)), "y_train": rng.integers(3, size=20), "X_val": rng.standard_normal((9, 4)), "y_val": rng.integers(3, size=9)}
    np.random.seed(231)
    model, found = Heavy(), latest(folder)
    if found is not None: solver = Solver.resume(found, model, data)
    else: solver = Solver(model, data, "adam", {"learning_rate": 1e-3}, batch_size=10, num_epochs=epochs, checkpoint_name=Path(folder) / "run", verbose=False)
    print("go", flush=True)
    solver.train()
    np.save(Path(folder) / "done.npy", np.concatenate([solver.loss_history, model.params["w"].ravel(), model.params["ballast"][:9]]))


if __name__ == "__main__": main(sys.argv[1], int(sys.argv[2]))
