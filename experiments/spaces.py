"""Feature spaces by the names that a command line gives them: random_resnet18, run:DIR, bundle:DIR."""

from pathlib import Path

from jaxtyping import Array, Float

from experiments.export import frozen
from experiments.runs import fingerprint, open_trained
from soda_jax.evaluation import feature_spaces
from soda_jax.evaluation.feature_spaces import Space
from soda_jax.export import bundle
from soda_jax.export.encoders import Encoder, encode
from soda_jax.types import Bytes, Tree

FEATURE = "pooled"  # before the bottleneck: z is made to forget what two views do not share


def space_of(name: str) -> Space:
    """The space of this name. Raises ValueError for an unknown one, and what opening a run or a bundle raises."""
    kind, _, folder = name.partition(":")
    if kind == "random_resnet18" and not folder:
        return feature_spaces.random_resnet18()
    if kind == "bundle" and folder:
        digest = bundle.opened(Path(folder))["encoder_sha256"]
        return encoder_space(bundle.load(folder), digest[:16])
    if kind == "run" and folder:
        return run_space(Path(folder))
    raise ValueError(f"--space={name}: expected random_resnet18, run:DIR or bundle:DIR")


def run_space(workdir: Path, step: int | None = None) -> Space:
    """That of a run's encoder, with averaged weights. ValueError where there is no checkpoint yet."""
    run = open_trained(workdir, step)
    encoder = frozen(run)
    return encoder_space(encoder, fingerprint(encoder.variables))


def encoder_space(encoder: Encoder, digest: str) -> Space:
    """Pooled features of an encoder of square images, named with the hash of its weights."""
    height, width, channels = encoder.image_shape
    if height != width:
        raise ValueError(f"the encoder takes {height} x {width} images: only square ones are read here yet")

    def features(variables: Tree, images: Bytes) -> Float[Array, "b d"]:
        return encode(encoder.module, (FEATURE,), variables, images)[FEATURE]

    name = f"encoder_{digest}_{FEATURE}"
    return Space(name=name, features=features, variables=encoder.variables, size=height, channels=channels)
