"""Launchers are a registry: a module of a user's own, named there, is used by submit as the others are."""

import sys
import types

import pytest

from moe_jax.errors import BAD_INPUT, DONE
from moe_jax.sweep.launchers import registry
from moe_jax.sweep.launchers.remote import RemoteLauncher, add_shared_filesystem_flag
from tests.fake_clients import FakeClient
from tests.submit_verb import runs_of


class Slurm(RemoteLauncher):
    client = "sbatch"
    how_to_get_it = "your cluster has it"

    def __init__(self, partition, workdir, shared_filesystem):
        super().__init__(workdir, shared_filesystem)
        self.address, self._partition = f"slurm:{partition}", partition

    def command(self, batch):
        name = self.batch_name(batch)
        return ["sbatch", f"--partition={self._partition}", f"--job-name={name}", *self.training_command(batch[0])]

    def already_exists(self, name, output):
        return "duplicate" in output


@pytest.fixture
def slurm(submit, tmp_path, monkeypatch):
    """The client `sbatch`, with a launcher for it in the registry."""
    module = types.ModuleType("a_users_launcher")

    def add_flags(group):
        group.add_argument("--partition", required=True)
        add_shared_filesystem_flag(group)

    module.add_flags = add_flags
    module.make = lambda flags, workdir, extra: Slurm(flags.partition, workdir, flags.shared_filesystem)
    monkeypatch.setitem(sys.modules, "a_users_launcher", module)
    monkeypatch.setitem(registry.MODULES, "slurm", "a_users_launcher")
    client = FakeClient(tmp_path, "sbatch")
    monkeypatch.setenv("PATH", client.path)
    return client


FLAGS = ["--launcher=slurm", "--partition=a100", "--shared_filesystem", "--yes"]


def test_a_launcher_of_ones_own_submits_each_run_once(submit, slurm):
    assert submit(*FLAGS) == DONE
    runs = runs_of(submit)
    assert [call[-1] for call in slurm.calls] == [f"--run={run.name}" for run in runs] and len(runs) == 8
    assert all(call[0] == "--partition=a100" and "--multihost" in call for call in slurm.calls)
    assert submit(*FLAGS) == DONE and len(slurm.calls) == 8


def test_its_flags_are_its_own(submit, slurm, capsys):
    with pytest.raises(SystemExit):
        submit("--launcher=slurm", "--help")
    assert "--partition" in capsys.readouterr().out
    assert submit(*FLAGS, "--queues=2") == BAD_INPUT


def test_every_name_has_a_module_that_can_be_called():
    for name in registry.MODULES:
        module = registry.launcher_module(name)
        assert callable(module.add_flags) and callable(module.make)
