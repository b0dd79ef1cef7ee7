"""The grid of tests/synthetic_sweep.py as a config file."""

from configs import common
from tests import synthetic_sweep


def get_config(arg=None):
    common.choose(arg)
    return common.get_config()


def get_grid(config, arg=None):
    return synthetic_sweep.cells()
