"""Where logged values go beside metrics.jsonl: TensorBoard, Weights & Biases; imported only where asked for."""

import hashlib
import tempfile
from typing import Any, Protocol

from moe_jax.errors import UserError
from moe_jax.rundir import RunDir


class Sink(Protocol):
    def scalars(self, step: int, values: dict[str, float]) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class TensorBoard:
    """Files under runs/<name>/tensorboard; a resumed run's own replace what was logged from `first_step` on."""

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
    """A run of the project, the same one after every restart: its id follows from the run's folder.

    WANDB_MODE, WANDB_API_KEY and the like are the user's; with WANDB_MODE=offline its files are under
    runs/<name>/wandb. A step that is logged again after a restart has the values it had: W&B keeps the first. Raises
    UserError where wandb is not installed or cannot begin."""

    def __init__(self, folder: RunDir, project: str, config: dict[str, Any]):
        try:
            import wandb
        except ImportError as e:
            raise UserError(f"config.wandb = {project!r}: needs wandb: pip install 'moe_jax[wandb]'") from e
        remote = "://" in str(folder.path)
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
            raise UserError(f"config.wandb = {project!r}: Weights & Biases does not begin: {e}") from e

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def flush(self) -> None:
        pass  # it has a thread of its own

    def close(self) -> None:
        self._run.finish()
