"""What the tests of submit share: its flags, fake clients, and what these were told."""

import re

from moe_jax.cli import command, submit
from moe_jax.sweep.workdir import Workdir
from tests.fake_clients import FakeClient

CONFIG = "--config=configs/smoke.py:tiny"


CLOUD = ["--project=my-project", "--zone=us-east5-a", "--shared_filesystem"]


XPK = ["--launcher=xpk", *CLOUD, "--cluster=pods", "--tpu_type=v5litepod-16", "--docker_image=repo/moe_jax:1"]


QUEUES = [
    "--launcher=queued-resources", *CLOUD, "--accelerator_type=v5litepod-16", "--runtime_version=v2-alpha-tpuv5-lite",
]  # fmt: skip


WSD = [
    "--config.optim.schedule=wsd", "--config.optim.decay_fraction=0.25", "--config.optim.warmup_fraction=None",
    "--config.optim.warmup_tokens=512",
]  # fmt: skip


HOSTILE = [
    "a 'b' \"c\"",
    "$(touch hacked) `touch hacked` $HOME $(HOME) $$",
    "new\nline; x\t\x1b",
    "ünï ♥ \u2028",
    "-x,y=z|<0>",
    "\\",
]


class SubmitVerb:
    """submit(*flags) -> exit code of `submit` on `workdir`, with a fake xpk and gcloud on the PATH."""

    def __init__(self, folder, store):
        self.config, self.store, self.workdir = CONFIG, f"--config.data.store={store}", folder / "w"
        self.xpk, self.gcloud = FakeClient(folder, "xpk"), FakeClient(folder, "gcloud")

    def __call__(self, *flags, workdir=None):
        where = f"--workdir={self.workdir if workdir is None else workdir}"
        return command.run(submit.main, [self.config, self.store, where, *flags])


def flag(arguments, name):
    (value,) = [a.partition("=")[2] for a in arguments if a.startswith(f"{name}=")]
    return value


def names(client):
    return [flag(call, "--workload") for call in client.calls]


def runs_of(submit):
    return Workdir(str(submit.workdir)).existing_manifest().runs


def as_kubernetes_does(text):
    """A container's command: $(NAME) of its environment is replaced, $$ is $ (k8s.io/kubernetes third_party/forked/
    golang/expansion)."""
    return re.sub(r"\$(\$|\((\w+)\))", lambda m: "$" if m[1] == "$" else {"HOME": "/root"}.get(m[2], m[0]), text)
