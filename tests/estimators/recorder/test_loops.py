"""The recorder in other people's loops: Lightning's Trainer and the functions of timm's train script."""

import sys
import types

import pytest
import timm.data
import timm.utils
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import nn

from estimators import CheckpointRecorder, SurfaceMapper, load_data, read_checkpoint, read_recording


class Trainer:
    """Calls hooks in the order of Lightning's: start, batches, end of the epoch, end."""

    def __init__(self, callback, epochs=2, batches=3):
        self.callback, self.epochs, self.batches = callback, epochs, batches
        self.global_step, self.current_epoch, self.callback_metrics = 0, 0, {}

    def fit(self, module):
        self.callback.on_fit_start(self, module)
        for epoch in range(self.epochs):
            self.current_epoch = epoch
            for batch in range(self.batches):
                with torch.no_grad():
                    next(module.parameters()).add_(0.1)
                self.global_step += 1
                loss = torch.tensor(1.0 / self.global_step)
                self.callback.on_train_batch_end(self, module, {"loss": loss}, None, batch)
            self.callback_metrics = {"train_loss": loss, "val_loss": loss * 2}
            self.callback.on_train_epoch_end(self, module)
        self.callback.on_fit_end(self, module)


class Module(nn.Module):
    """Stands for a LightningModule: the network is an attribute, metrics lie beside it."""

    def __init__(self):
        super().__init__()
        self.net, self.criterion = nn.Linear(3, 2), nn.CrossEntropyLoss(weight=torch.ones(2))


@pytest.fixture
def lightning(monkeypatch):
    for name in ("lightning.pytorch", "pytorch_lightning"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    package = types.ModuleType("pytorch_lightning")
    package.Callback = type("Callback", (), {})
    monkeypatch.setitem(sys.modules, "pytorch_lightning", package)
    return package


def test_the_callback_records_the_start_and_each_epoch(tmp_path, lightning):
    module = Module()
    callback = CheckpointRecorder(tmp_path).lightning()
    assert isinstance(callback, lightning.Callback)
    Trainer(callback).fit(module)
    recording = read_recording(tmp_path)
    assert recording.history["step"].tolist() == [0, 1, 2]
    assert recording.history["loss"][1:].tolist() == pytest.approx([1 / 3, 1 / 6])
    assert recording.history["val_loss"][1:].tolist() == pytest.approx([2 / 3, 1 / 3])
    state, _ = read_checkpoint(recording.checkpoints[-1])
    assert set(state) == {"weight", "bias"} and torch.equal(state["weight"], module.net.weight)


def test_the_callback_counts_steps_and_keeps_the_last(tmp_path, lightning):
    Trainer(CheckpointRecorder(tmp_path, every=4).lightning(unit="step", network="net")).fit(Module())
    recording = read_recording(tmp_path)
    assert recording.history["step"].tolist() == [0, 4, 6]
    assert recording.history["loss"][1:].tolist() == pytest.approx([1 / 4, 1 / 6])


def test_the_callback_needs_lightning(tmp_path, lightning, monkeypatch):
    monkeypatch.delitem(sys.modules, "pytorch_lightning")
    with pytest.raises(ValueError, match="must be called where Lightning's Trainer has been imported"):
        CheckpointRecorder(tmp_path).lightning()
    with pytest.raises(ValueError, match="unit must be one of"):
        CheckpointRecorder(tmp_path).lightning(unit="batch")


@pytest.mark.filterwarnings("ignore")
def test_one_line_in_lightnings_trainer(tmp_path):
    import pytorch_lightning as pl

    class Lit(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.criterion = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), nn.CrossEntropyLoss()

        def training_step(self, batch, _):
            loss = self.criterion(self.net(batch[0]), batch[1])
            self.log("train_loss", loss, on_step=False, on_epoch=True)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    digits = load_data("digits", image_size=8, channels=1, n_samples=64)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(digits.inputs, digits.targets), batch_size=32)
    module = Lit()
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[CheckpointRecorder(tmp_path).lightning()],
    )
    trainer.fit(module, loader)
    recording = read_recording(tmp_path)
    assert recording.history["step"].tolist() == [0, 1, 2, 3]
    assert recording.history["loss"][-1] == pytest.approx(float(trainer.callback_metrics["train_loss"]))
    state, _ = read_checkpoint(recording.checkpoints[-1])
    assert all(torch.equal(state[name], value) for name, value in module.net.state_dict().items())
    mapper = SurfaceMapper(directions="trajectory", resolution=3).fit(tmp_path, digits, architecture=module.net)
    assert len(mapper.trajectories_[0]["x"]) == 4


def test_one_line_in_timms_train_script(tmp_path):
    """The loop of timm's train.py, of timm's own functions, on digits."""
    digits = load_data("digits", image_size=32, n_samples=64)
    loader = timm.data.create_loader(
        torch.utils.data.TensorDataset(digits.inputs, digits.targets), input_size=(3, 32, 32), batch_size=32,
        use_prefetcher=False, num_workers=0, device=torch.device("cpu"), no_aug=True,
    )  # fmt: skip
    loader.dataset.transform = None
    model = timm.create_model("test_vit", num_classes=10, img_size=32)
    model_ema = timm.utils.ModelEmaV3(model, decay=0.9)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3)
    scheduler, num_epochs = create_scheduler_v2(optimizer, sched="cosine", num_epochs=3, warmup_epochs=0)
    output_dir = tmp_path / "output"
    output_dir.mkdir()
    saver = timm.utils.CheckpointSaver(
        model=model, optimizer=optimizer, checkpoint_dir=output_dir, recovery_dir=output_dir
    )
    recorder = CheckpointRecorder(tmp_path / "trajectory")
    for epoch in range(num_epochs):
        model.train()
        losses = timm.utils.AverageMeter()
        for inputs, target in loader:
            loss = nn.functional.cross_entropy(model(inputs), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            model_ema.update(model)
            losses.update(loss.item(), inputs.size(0))
        recorder(model, step=epoch + 1, loss=losses.avg, lr=optimizer.param_groups[0]["lr"])  # the one line
        saver.save_checkpoint(epoch, metric=-losses.avg)
        scheduler.step(epoch + 1)
    recording = read_recording(tmp_path / "trajectory")
    assert recording.history["step"].tolist() == [1, 2, 3] and recording.history["lr"][0] == pytest.approx(1e-3)
    own, _ = read_checkpoint(recording.checkpoints[-1])
    assert all(torch.equal(own[name], value) for name, value in model.state_dict().items())
    mapper = SurfaceMapper(directions="trajectory", resolution=3).fit(tmp_path / "trajectory", digits)
    assert len(mapper.trajectories_[0]["x"]) == 3
