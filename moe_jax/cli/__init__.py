"""The verbs of `moe-jax`, one thin module each: flags, sentences, exit code. May import everything; nobody imports it.

main          finds a verb's module and calls it
command       the frame around a verb: parser, exit code, one sentence instead of a traceback
tables        tables on a terminal
prepare, train, sweep, plan, submit, status, evaluate, generate, inspect, export, import_, collect, fit, isoflop,
predict, optimum, report, reseal, doctor, reproduce
              the verbs, each with `main(argv)`
plan_table, fit_tables, isoflop_tables
              what `plan`, `fit` and `isoflop` print
routing_tables
              what `inspect` prints
fit_flags, fit_figures, optimum_isoflop
              parts of `fit` (and `isoflop`) and of `optimum`
compile_step  the process in which `plan` compiles one step
train_jobs    the process in which `sweep` trains one job after the other
checks/       the checks of `doctor`
"""
