"""What a grid costs before it is trained: counts, and the train step compiled for TPUs that are not here.

May import everything but moe_jax.laws, moe_jax.report and moe_jax.cli.

rows            plan.json: its rows, its totals, the file
trunk_saving    what shared trunks save
grid_forecast   a forecast for every run of a grid; each step shape is compiled once
step_forecast   a forecast for one step on one slice: whether it fits, and its least time
placement       meshes and microbatches to try
roofline        the least time of a step, from its work and the chip's published rates
compiles        compiled steps, kept on disk; each is compiled in a process of its own
aot             compiles the train step for a TPU topology
hlo             collectives and matrix products of a compiled program
kernels         what attention kernels in it multiply and read
hlo_traffic     bytes that a compiled program moves to and from main memory
costs           what jobs cost by plan.json, for `submit`
"""
