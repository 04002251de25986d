"""Which code matters for which factor: a classifier of every factor on all codes, and one on each code alone.

Codes and factors are those of disentanglement.py. Classifiers are scikit-learn's; codes are standardised by train,
factors are fitted side by side in threads, and the same data give the same numbers whatever their count.

boosting:  R_ij = what the splits of code i are worth in GradientBoostingClassifier (100 rounds of depth 3) for
           factor j: its `feature_importances_`, as in disentanglement_lib. It sorts every code at every node:
           with hundreds of codes one factor takes many minutes.
histogram: the same trees on codes cut into 255 bins (HistGradientBoostingClassifier): tens of times as fast. R_ij =
           the loss that the splits of code i take away, from the fitted trees, which scikit-learn keeps to itself.
           Of codes that are exact copies it always takes the first, where `boosting` takes either.
linear:    R_ij = sum over the classes of |w_i|, of logistic regression with an L1 penalty (C = 0.1), one class
           against the rest. Eastwood & Williams use the lasso, of which this is the kin for classes.
Each factor's column is divided by its sum: every factor counts as much.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from soda_jax.evaluation.disentanglement import Codes, Factors, Split

Kind = Literal["boosting", "histogram", "linear"]
Show = Callable[[Iterable], Iterable]  # passes results on, one a factor (or a code), as they come
Fitted = tuple[Float[np.ndarray, " n"], Int[np.ndarray, " q"]]  # importance of each code, answers for test

ROUNDS, DEPTH, TREE_BINS = 100, 3, 255
LASSO = 0.1
SVM = 0.01


def check_installed() -> None:
    """Raises ValueError where scikit-learn is missing."""
    if find_spec("sklearn") is None:
        raise ValueError("the classifiers of dci and sap are scikit-learn's: pip install 'scikit-learn>=1.8'")


def importance(
    train: Split,
    test: Split,
    kind: Kind,
    threads: int = 1,
    show: Show = iter,
) -> tuple[Float[np.ndarray, "n f"], Float[np.ndarray, " f"]]:
    """(R_ij, each column of sum 1 or 0; test accuracy of each factor's classifier).

    Raises:
      ValueError: a factor has one value only among the training examples.
    """
    check_factors(train[1])
    x, queries = standardised(train[0], test[0])
    fit = {"boosting": _boosting, "histogram": _histogram, "linear": _linear}[kind]
    found = side_by_side(lambda y: fit(x, y, queries), train[1].T, threads, show)
    columns = np.stack([column for column, _ in found], axis=1)
    right = np.array([np.mean(answers == y) for (_, answers), y in zip(found, test[1].T, strict=True)])
    return columns / np.maximum(columns.sum(axis=0, keepdims=True), np.finfo(np.float64).tiny), right


def check_factors(factors: Factors) -> None:
    constant = [j for j, y in enumerate(factors.T) if y.min() == y.max()]
    if constant:
        raise ValueError(
            f"factors {constant} have one value only among {len(factors)} training images, so nothing can be "
            "learned of them: raise config.disentanglement.images"
        )


def standardised(
    train: Float[np.ndarray, "b n"], test: Float[np.ndarray, "q n"]
) -> tuple[Float[np.ndarray, "b n"], Float[np.ndarray, "q n"]]:
    """Mean 0 and variance 1 on train; what does not vary there becomes 0."""
    mean, spread = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
    return (train - mean) * scale, (test - mean) * scale


def side_by_side(function: Callable, items: Iterable, threads: int, show: Show) -> list:
    """`function` of each item, in order, on so many threads, whose own OpenMP threads are switched off."""
    with ThreadPoolExecutor(threads, initializer=_alone) as pool:
        return list(show(pool.map(function, items)))


def _alone() -> None:
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, "openmp")


def _boosting(x: Codes, y: Int[np.ndarray, " b"], test: Float[np.ndarray, "q n"]) -> Fitted:
    from sklearn.ensemble import GradientBoostingClassifier

    model = GradientBoostingClassifier(n_estimators=ROUNDS, max_depth=DEPTH, random_state=0).fit(x, y)
    return model.feature_importances_, model.predict(test)


def _histogram(x: Codes, y: Int[np.ndarray, " b"], test: Float[np.ndarray, "q n"]) -> Fitted:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=ROUNDS,
        max_depth=DEPTH,
        max_leaf_nodes=None,
        min_samples_leaf=1,
        max_bins=TREE_BINS,
        early_stopping=False,
        random_state=0,
    ).fit(x, y)
    return _gains(model, x.shape[1]), model.predict(test)


def _gains(model: Any, codes: int) -> Float[np.ndarray, " n"]:
    """Summed over all splits of all trees."""
    nodes = np.concatenate([tree.nodes for round_ in model._predictors for tree in round_])
    splits = nodes[nodes["is_leaf"] == 0]
    return np.bincount(splits["feature_idx"], weights=splits["gain"], minlength=codes)


def _linear(x: Codes, y: Int[np.ndarray, " b"], test: Float[np.ndarray, "q n"]) -> Fitted:
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    one = LogisticRegression(solver="liblinear", l1_ratio=1, C=LASSO, max_iter=1000, random_state=0)
    model = OneVsRestClassifier(one).fit(x, y)
    return sum(np.abs(head.coef_[0]) for head in model.estimators_), model.predict(test)


# Each code alone --------------------------------------------------------------------------------------------


def single_code_accuracy(
    train: Split,
    test: Split,
    threads: int = 1,
    show: Show = iter,
) -> Float[np.ndarray, "n f"]:
    """S_ij of SAP: how often a linear SVM that sees code i alone names factor j on test."""
    check_factors(train[1])
    x, queries = standardised(train[0], test[0])

    def scores(i: int) -> list[float]:
        pairs = zip(train[1].T, test[1].T, strict=True)
        return [float(np.mean(_svm(x[:, [i]], y, queries[:, [i]]) == truth)) for y, truth in pairs]

    return np.array(side_by_side(scores, range(x.shape[1]), threads, show))


def _svm(x: Codes, y: Int[np.ndarray, " b"], test: Float[np.ndarray, "q n"]) -> Int[np.ndarray, " q"]:
    from sklearn.svm import LinearSVC

    return LinearSVC(C=SVM, class_weight="balanced", dual=False, random_state=0).fit(x, y).predict(test)
