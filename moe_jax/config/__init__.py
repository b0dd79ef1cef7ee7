"""What a run is: its checked config, config files, and grids of runs. Without JAX.

Imports `errors`, `text` and `flops` only; all other packages but laws may import it.

    enters       what a field decides: the result, the trunk, the pack, the compiled step
    checks       the sentences that refuse a bad value
    schema, moe  Config and its groups, as frozen dataclasses
    held_out_stores  eval.stores: NAME=FOLDER
    fields       a nested dict -> Config, and back
    counts       parameters and FLOPs of a config's model
    identity     config hash, trunk, pack and compiled step, from what the fields enter
    own_modules  where modules of the user's own are looked for
    names        names of runs, trunks and packs
    cell, grid   a grid as a value: cells of overrides -> runs
    config_file  --config=FILE:ARG --config.x=y -> the config and its grid
"""
