"""Launchers: they start a sweep's jobs on this machine, or submit them to a cluster.

May import the modules of moe_jax.sweep, and what these may import. No JAX.

registry          the names that --launcher accepts, and the module of each
launcher          Launcher, the protocol that `submit` uses
remote            RemoteLauncher, the base class of launchers whose jobs run elsewhere
xpk               a GKE cluster with xpk
queued_resources  TPU slices by gcloud
local_launcher    this machine
local_restarts    runs on this machine, restarted
local_jobs        runs on this machine, so many at a time; `sweep` uses it too
local_worker      a process on this machine that trains one job after the other
restarts          the exit codes after which a run is restarted
remaining         how long the jobs will still take
slices            the chips and hosts of a slice, from its name
clients           calls the command-line clients
quoting           quotes arguments for shells, YAML, Kubernetes and gcloud

To add a launcher, write a module with two functions and add a line to registry.MODULES:

    def add_flags(group): ...                  # its flags, with argparse
    def make(flags, workdir, extra): ...       # -> a Launcher; `extra` are the arguments after `--`

For jobs that run elsewhere, `make` returns a RemoteLauncher. It needs `address`, `client` and `how_to_get_it`, and

    def command(self, batch): ...              # the command that submits a batch of jobs under self.batch_name(batch)
    def already_exists(self, name, output): ...  # whether a failed command says that this batch exists

RemoteLauncher sees to the rest: each job is submitted once, whoever submits it and however often, and a failed command
is reported. Each host of a job runs `self.training_command(submission)`, whose exit codes are those of `moe-jax train`:
after the codes of restarts.CODES and after signals, the launcher starts the job again.
"""
