"""SODA, and its neighbours, in JAX/Flax: pure functions and Linen modules.

The library knows no config object, no data set and no file layout of a run; see README.md for the map.
"""

__version__ = "0.1.0"
