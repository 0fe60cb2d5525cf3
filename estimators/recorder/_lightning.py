"""A recorder as a callback of Lightning's Trainer, which is imported nowhere here."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from torch import nn


def lightning_callback(recorder: Any, network: str | None, loss: str | None, unit: str) -> Any:
    """Make a callback of whichever package's Trainer there is."""
    base = _callback_class()

    class RecorderCallback(base):  # type: ignore[misc, valid-type]
        """Hands the network to the recorder after each epoch or step."""

        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.global_step == 0 and recorder.last < 0:
                self._record(trainer, pl_module, 0, {})

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if unit == "epoch":
                self._record(trainer, pl_module, trainer.current_epoch + 1, trainer.callback_metrics)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *rest: Any) -> None:
            if unit == "step" and trainer.global_step > recorder.last:  # not between accumulated batches
                own = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
                # what was logged besides may be of an earlier step
                logged = {} if own is None else {"loss": own}
                self._record(
                    trainer, pl_module, trainer.global_step, logged if loss is None else trainer.callback_metrics
                )

        def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
            recorder.close()

        def _record(self, trainer: Any, pl_module: Any, step: int, logged: Mapping[str, Any]) -> None:
            names = ("train_loss", "loss") if loss is None else (loss,)
            found = next((name for name in names if name in logged), None)
            rest = {name: value for name, value in logged.items() if name not in (found, "loss", "step", "model")}
            value = None if found is None else logged[found]
            recorder(_network_of(pl_module, network), step=step, loss=value, **rest)

    return RecorderCallback()


def _network_of(module: nn.Module, name: str | None) -> nn.Module:
    if name is not None:
        found: nn.Module = module.get_submodule(name)
        return found
    children = [child for child in module.children() if next(child.parameters(), None) is not None]
    alone = len(children) == 1 and not module._parameters
    return children[0] if alone else module


def _callback_class() -> type:
    for name in ("lightning.pytorch", "pytorch_lightning"):
        if name in sys.modules:
            return sys.modules[name].Callback
    raise ValueError(
        "lightning() must be called where Lightning's Trainer has been imported, got neither lightning.pytorch nor "
        "pytorch_lightning. Import it first; in a loop of your own call the recorder itself."
    )
