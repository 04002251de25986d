"""How far single codes (dimensions of z, or its sections) stand for single factors (labels): four scores.

Codes are [b, n], factors [b, f] hold class numbers. K = f factors, N = n codes, v_j a factor, c_i a code.

DCI (Eastwood & Williams, ICLR 2018), of an importance R_ij >= 0 of code i for factor j (importance.py):
(1) D_i = 1 + sum_j P_ij log_K P_ij with P_ij = R_ij / sum_k R_ik: 1 where a code serves one factor only.
    Disentanglement D = sum_i D_i sum_j R_ij / sum R.
(2) C_j = 1 + sum_i Q_ij log_N Q_ij with Q_ij = R_ij / sum_k R_kj: 1 where one code does all for a factor.
    Completeness C = sum_j C_j sum_i R_ij / sum R.
(3) Informativeness I: how often the classifiers that R is taken from are right on test, averaged over the factors.
    Sections as codes: R_sj = sum of R_ij over the dimensions i of section s, then (1) and (2) with N sections.
    As in disentanglement_lib: accuracy in place of the paper's error, C weighted by columns (those of R have one
    sum, so that it is the paper's mean).

MIG (Chen et al., 1802.04942), with I(c_i; v_j) of codes cut into 20 bins of equal width, and H(v_j) the entropy:
(4) MIG = mean_j (I(c_(1); v_j) - I(c_(2); v_j)) / H(v_j), where (1) and (2) are the two codes that tell most of j.

SAP (Kumar et al., 1711.00848), with S_ij the test accuracy of a linear SVM that sees code i alone:
(5) SAP = mean_j (S_(1)j - S_(2)j). As in disentanglement_lib: squared hinge, C = 0.01, balanced classes. Codes are
    standardised first, which it leaves out: the unit of z does not matter.

FactorVAE score (Kim & Mnih, 1802.05983):
(6) hold a factor j at some value, draw 64 examples that have it, and vote with the code i* of the least
    var(c_i of these) / var(c_i of all). A majority table i* -> j is made of 10,000 votes on train; the score is
    how often it is right on 5,000 votes on test. Examples come from the stored data (with replacement), not from
    a simulator: factors that go together in the data go together here.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

BINS = 20
VOTES, TEST_VOTES, GROUP = 10_000, 5_000, 64

Codes = Float[np.ndarray, "b n"]
Factors = Int[np.ndarray, "b f"]
Split = tuple[Float[np.ndarray, "_ n"], Int[np.ndarray, "_ f"]]  # codes and factors of train or of test


@dataclasses.dataclass(frozen=True, kw_only=True)
class DCI:
    """(1), (2), (3), all in 0..1, and the importance they are made of."""

    disentanglement: float
    completeness: float
    informativeness: float
    importance: Float[np.ndarray, "n f"]


def dci(importance: Float[np.ndarray, "n f"], accuracy: Float[np.ndarray, " f"]) -> DCI:
    """The scores of an importance of codes for factors, and of the classifiers' test accuracies."""
    return DCI(
        disentanglement=_certainty(importance),
        completeness=_certainty(importance.T),
        informativeness=float(accuracy.mean()),
        importance=importance,
    )


def by_section(importance: Float[np.ndarray, "n f"], sections: int) -> Float[np.ndarray, "s f"]:
    """Summed over the dimensions of each section; n must be a multiple of `sections`."""
    return importance.reshape(sections, -1, importance.shape[1]).sum(axis=1)


def _certainty(weights: Float[np.ndarray, "r k"]) -> float:
    """(1): 1 - entropy of each row to the base k, weighted by the rows' sums; 0 where all is 0, 1 where k = 1."""
    total = weights.sum()
    if total == 0:
        return 0.0
    if weights.shape[1] == 1:
        return 1.0
    rows = weights[weights.sum(axis=1) > 0]
    shares = rows / rows.sum(axis=1, keepdims=True)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0) / np.log(weights.shape[1])
    return float(np.sum((1 + (shares * logs).sum(axis=1)) * rows.sum(axis=1)) / total)


# MIG ------------------------------------------------------------------------------------------------------


def mig(codes: Codes, factors: Factors, bins: int = BINS) -> Float[np.ndarray, " f"]:
    """(4) before the mean: the gap of each factor; 0 for a factor that has one value only."""
    information = mutual_information(codes, factors, bins)
    own = np.concatenate([entropy(np.bincount(y)[None]) for y in factors.T])
    return top_gap(information) / np.where(own > 0, own, 1)


def mutual_information(codes: Codes, factors: Factors, bins: int = BINS) -> Float[np.ndarray, "n f"]:
    """I(c_i; v_j) in nats, of codes cut into bins of equal width between their extremes."""
    binned = discretised(codes, bins)
    return np.stack([_information(binned, y, bins) for y in factors.T], axis=1)


def discretised(codes: Codes, bins: int) -> Int[np.ndarray, "b n"]:
    """Numbers of the bins; a code that does not vary lies in bin 0."""
    low, high = codes.min(axis=0), codes.max(axis=0)
    width = np.where(high > low, (high - low) / bins, 1)
    return np.clip(((codes - low) / width).astype(np.int64), 0, bins - 1)


def _information(binned: Int[np.ndarray, "b n"], y: Int[np.ndarray, " b"], bins: int) -> np.ndarray:
    """I = H(c) + H(v) - H(c, v) for each code and one factor [n]."""
    classes, n = int(y.max()) + 1, binned.shape[1]
    cells = (np.arange(n) * bins + binned) * classes + y[:, None]
    counts = np.bincount(cells.ravel(), minlength=n * bins * classes).reshape(n, bins, classes)
    return entropy(counts.sum(2)) + entropy(counts.sum(1)) - entropy(counts.reshape(n, -1))


def entropy(counts: Int[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
    """Of each row, in nats."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    return -np.sum(shares * np.log(shares, out=np.zeros_like(shares), where=shares > 0), axis=1)


def top_gap(scores: Float[np.ndarray, "n f"]) -> Float[np.ndarray, " f"]:
    """The best code's score less the second best's, for each factor; a single code has nothing beside it: 0."""
    ordered = np.sort(np.concatenate([np.zeros((1, scores.shape[1])), scores]), axis=0)
    return ordered[-1] - ordered[-2]


# FactorVAE ------------------------------------------------------------------------------------------------


def factor_vae(train: Split, test: Split, seed: int = 0) -> float:
    """(6); a code that does not vary on train has no vote, and where none varies the score is 0."""
    spread = train[0].var(axis=0, dtype=np.float64)
    alive = spread > 0
    if not alive.any():
        return 0.0
    rng = np.random.default_rng(seed)
    table = _votes(train[0][:, alive], train[1], spread[alive], VOTES, rng)
    counted = _votes(test[0][:, alive], test[1], spread[alive], TEST_VOTES, rng)
    return float(counted[np.arange(len(counted)), table.argmax(axis=1)].sum() / TEST_VOTES)


def _votes(
    codes: Codes, factors: Factors, spread: Float[np.ndarray, " n"], count: int, rng: np.random.Generator
) -> Int[np.ndarray, "n f"]:
    """How often code i varied least while factor j was held."""
    votes = np.zeros((codes.shape[1], factors.shape[1]), np.int64)
    members = [sharing(y) for y in factors.T]
    for held in rng.integers(factors.shape[1], size=count):
        rows = rng.choice(members[held][rng.integers(len(factors))], GROUP)
        votes[np.argmin(codes[rows].var(axis=0) / spread), held] += 1
    return votes


def sharing(y: Int[np.ndarray, " b"]) -> list[Int[np.ndarray, " _"]]:
    """For each example, the numbers of all that have its value."""
    members = {value: np.flatnonzero(y == value) for value in np.unique(y)}
    return [members[value] for value in y]
