"""The mains, the configs and the one module that turns a config into objects."""
