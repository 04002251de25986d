"""Moving z until a linear detector of an attribute says what one wants, and doing sums with latents.

    l(z) = <w, z> + b                                                                   (1)  log-odds of the attribute
    z' = z + (l' - l(z)) v / <w, v>,   so that l(z') = l'                               (2)
    v = w                                                                               (3)  the plane's normal
    v = S w                                                                             (4)
    z' = C + A - B                                                                      (5)

(2) reaches the wanted log-odds l' along any v that is not in the plane. (3) is the shortest way there. The shortest
in units of the data, (z' - z)^T S^-1 (z' - z), with S their covariance, is (4): where two entries of z rise and fall
together in all images, it moves both, while (3) would pull them apart to somewhere where no image lies.
"""

import dataclasses

import numpy as np
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detector:
    """(1) of one attribute: weight w [s, d], and the bias b."""

    weight: Float[np.ndarray, "s d"]
    bias: float

    def logit(self, z: Float[np.ndarray, "b s d"]) -> Float[np.ndarray, " b"]:
        """l(z)."""
        return np.einsum("bsd,sd->b", z, self.weight) + np.float32(self.bias)

    def moved(
        self, z: Float[np.ndarray, "b s d"], logit: float, along: Float[np.ndarray, "s d"] | None = None
    ) -> Float[np.ndarray, "b s d"]:
        """(2): each latent moved to the log-odds `logit`, along v, by default (3).

        Raises ValueError where moving along v changes nothing that the detector sees.
        """
        along = self.weight if along is None else along
        slope = float(np.sum(self.weight * along))
        if not abs(slope) > 1e-12:
            raise ValueError(
                f"the detector does not see this direction: <w, v> = {slope:.3g}, expected other than 0"
            )
        return z + ((logit - self.logit(z)) / np.float32(slope))[:, None, None] * along[None]


def along_data(weight: Float[np.ndarray, "s d"], z: Float[np.ndarray, "b s d"]) -> Float[np.ndarray, "s d"]:
    """(4), with the covariance of these latents, which is never written out."""
    centred = (z - z.mean(0, keepdims=True)).reshape(len(z), -1).astype(np.float64)
    pulled = centred.T @ (centred @ weight.ravel()) / len(z)
    return pulled.astype(np.float32).reshape(weight.shape)


def logit_of(probability: float) -> float:
    """The log-odds of a probability in (0, 1). Raises ValueError outside."""
    if not 0 < probability < 1:
        raise ValueError(f"expected a probability between 0 and 1, found {probability}")
    return float(np.log(probability / (1 - probability)))


def arithmetic(
    a: Float[Array, "*x s d"] | Float[np.ndarray, "*x s d"],
    b: Float[Array, "*x s d"] | Float[np.ndarray, "*x s d"],
    c: Float[Array, "*x s d"] | Float[np.ndarray, "*x s d"],
) -> Float[Array, "*x s d"] | Float[np.ndarray, "*x s d"]:
    """(5): C with that which sets A apart from B."""
    return c + (a - b)
