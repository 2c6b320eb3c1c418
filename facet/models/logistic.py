"""Fit a logistic regression for each head: the baseline that a network must beat.

Its coefficients become the weights of a network without hidden layers, so that whatever uses a
trained network uses a baseline too.
"""

import warnings
from typing import NamedTuple

import numpy as np

from facet.base.config import LogisticRegression
from facet.models.training import Training, item_weights

# The logit of a class that no training item has: a probability of 1e-13.
ABSENT = -30.0


class Fitted(NamedTuple):
    """A head's coefficients."""

    kernel: np.ndarray
    """(numbers, units) float32; one unit for two classes, the logit of the second."""
    bias: np.ndarray
    """(units,) float32."""
    iterations: int
    converged: bool


def fit_head(
    X: np.ndarray, y: np.ndarray, weights: np.ndarray, classes: int, how: LogisticRegression
) -> Fitted:
    """Fit one head by scikit-learn's L-BFGS with an L2 penalty.

    `X` (n, numbers) float32, `y` (n,) int64 below `classes`, `weights` (n,) float32.
    """
    present = np.unique(y)
    kernel = np.zeros((X.shape[1], classes), "float32")
    bias = np.where(np.isin(np.arange(classes), present), 0.0, ABSENT).astype("float32")
    iterations, converged = 0, True
    if len(present) > 1:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression as Model

        model = Model(C=how.C, max_iter=how.iterations)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # `summary` says it
            model.fit(X, y, sample_weight=weights)
        iterations = int(model.n_iter_.max())
        converged = iterations < how.iterations
        # Of two classes scikit-learn has the second's logit alone.
        columns = present[1:] if len(present) == 2 else present
        kernel[:, columns], bias[columns] = model.coef_.T, model.intercept_
    if classes == 2:
        kernel, bias = kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1]
    return Fitted(kernel, bias, iterations, converged)


class LogisticTraining(Training):
    """A training of one epoch, which is the fit; it draws nothing, so all seeds are alike."""

    def train_epoch(self, number: int) -> dict[str, float]:
        """Fit every head; the mean loss without the penalty, each head's training accuracy."""
        how = self.spec.logistic_regression
        assert how
        train = self.data.splits["train"]
        X = train.scale(np.arange(len(train))).reshape(len(train), -1)
        # The penalty leaves the intercept alone, so that the middle is free to choose: L-BFGS
        # takes fewer steps around 0.
        middle = X.mean(0)
        X -= middle
        loss, accuracies = 0.0, {}
        self.fitted: dict[str, Fitted] = {}
        for head, classes in self.classes.items():
            y = train.y[head]
            weights = item_weights(y, classes, self.spec.class_weights)
            found = self.fitted[head] = fit_head(X, y, weights, classes, how)
            layer = self.model.get_layer(f"{head}_logits")
            layer.set_weights([found.kernel, found.bias - middle @ found.kernel])
            logits = X @ found.kernel + found.bias
            if classes == 2:
                logits = np.hstack([np.zeros_like(logits), logits])
            own = logits[np.arange(len(y)), y]
            losses = np.logaddexp.reduce(logits.astype("float64"), axis=1) - own
            loss += float((losses * weights).mean())
            accuracies[f"{head}_accuracy"] = float((logits.argmax(1) == y).mean())
        return {"loss": loss, **accuracies}

    def summary(self) -> str:
        """How many steps each fit took, and the accuracies in words."""
        fits = ", ".join(
            f"{head} {f.iterations} iterations{'' if f.converged else ' (not converged)'}"
            for head, f in getattr(self, "fitted", {}).items()
        )
        return f"logistic regression{f' ({fits})' if fits else ''}; {self.describe_accuracy()}"
