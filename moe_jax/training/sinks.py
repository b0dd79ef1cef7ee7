"""Logged values also go to TensorBoard or Weights & Biases; both are imported only if the config asks for them."""

import hashlib
import tempfile
from typing import Any, Protocol

from moe_jax import files
from moe_jax.errors import UserError
from moe_jax.sweep.rundir import RunDir


class Sink(Protocol):
    """Takes named scalars by step (from 0)."""

    def scalars(self, step: int, values: dict[str, float]) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class TensorBoard:
    """Writes files under runs/<name>/tensorboard; a resumed run replaces what was logged from `first_step` on."""

    def __init__(self, folder: RunDir, first_step: int):
        from tensorboardX import SummaryWriter  # it needs no TensorFlow, unlike clu and flax.metrics.tensorboard

        self._writer = SummaryWriter(str(folder.path / "tensorboard"), purge_step=first_step)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of a W&B project, the same one after every restart: its id is a hash of the run's folder.

    WANDB_MODE, WANDB_API_KEY and so on are the user's; with WANDB_MODE=offline the files are under runs/<name>/wandb.
    W&B keeps the first values of a step that is logged again after a restart; they are the same. Raises UserError if
    wandb is not installed or cannot begin."""

    def __init__(self, folder: RunDir, project: str, config: dict[str, Any]):
        try:
            import wandb
        except ImportError as e:
            raise UserError(f"config.wandb = {project!r}: needs wandb: pip install 'moe_jax[wandb]'") from e
        remote = files.is_remote(folder.path)
        try:
            self._run = wandb.init(
                project=project,
                name=folder.name,
                id=hashlib.sha256(str(folder.path).encode()).hexdigest()[:16],
                resume="allow",
                config=config,
                dir=tempfile.gettempdir() if remote else str(folder.path),
                settings=wandb.Settings(silent=True),
            )
        except wandb.errors.Error as e:
            raise UserError(f"config.wandb = {project!r}: Weights & Biases cannot begin: {e}") from e

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def flush(self) -> None:
        pass  # it has a thread of its own

    def close(self) -> None:
        self._run.finish()
