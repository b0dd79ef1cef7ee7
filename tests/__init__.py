"""The tests, in the folders of moe_jax. What several of them share is a module here that holds no test.

experiments/benchmarks measure with the same means and import them from here; tests import nothing of experiments.
"""
