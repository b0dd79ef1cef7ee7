"""A sweep on disk: its runs, its jobs, and what is known of each. No JAX.

May import moe_jax.config, moe_jax.data and the modules that stand directly in moe_jax.

initial_weights     the checkpoint of train.init_from, by its digest
planned_grid        a config file -> its runs, counted for their token store
from_config         enters a config's runs in a workdir's manifest
manifest            sweep.json as a value
workdir             a sweep's folder
rundir              a run's folder
record              records in JSON files, checked when they are read
run_record          run.json
heartbeat           heartbeat.json
attempt             attempts/<n>.json
result              result.json
evaluation_record   evaluations/<kind>-<name>.json: a store's or a task's values, made after the run
routing_record      routing.json: which experts tokens choose, before training and after
run_state           the state of a run, from its files
results             results.csv
known_results       collected.json: results that need not be read again
collected           the results of a sweep, a row a run
read_many           reads the files of many runs at a time
snapshot            a sweep at one moment, for `status`
jobs                a sweep as jobs: runs, trunks with branches, packs
select_jobs         which jobs are submitted now, and why the others are not
submission_records  what was submitted, where and as which job
launchers/          start jobs on this machine, or submit them to clusters
"""
