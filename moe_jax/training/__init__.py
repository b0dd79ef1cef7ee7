"""The compiled train step and the loop around it. Imports config, data, model and sweep; nothing of evaluation or plan.

The road of a run: loop.train → goal (what is to be trained) → group (the runs that train together) → program (the
compiled step of one run or of a pack) → step (the train step itself) → run (log, checkpoints and result of each run).

- loop: how a run goes, in one function
- goal, attempts, options: what is trained; whose folder it is and how a start ends; how it is done
- group, run: the runs that train together; one run's log, checkpoints and result
- program, step, skip_step: the compiled functions; skipping outlier batches
- optimizer, muon, adafactor: the optimizers and their schedules
- put, held_out: batches onto the devices; the held-out loss
- initial_weights: the weights of another run's checkpoint, where train.init_from names one
- checkpoint, metrics, sinks, profiling: what a run writes while it trains
- processes, stopping: several processes of one run; requests to stop
- compile_cache: compiled programs on disk
"""
