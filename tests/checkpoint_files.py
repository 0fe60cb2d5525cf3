"""Checkpoint files as other people's tools write them: the tools themselves are run, on a few digits."""

from __future__ import annotations

import argparse
import copy
import logging
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from estimators import load_data, load_model

NAME = "test_resnet"


@dataclass(frozen=True)
class Written:
    """A file, the weights that must come out of it, and the words its notes must hold; `entry` to be asked for."""

    path: Path
    state: dict[str, Tensor]
    notes: tuple[str, ...] = ()
    entry: str | None = None
    rounded: float = 0.0
    more: dict = field(default_factory=dict)


def fresh(seed: int = 0) -> nn.Module:
    return load_model(NAME, num_classes=10, image_size=32, random_state=seed).train()


def kept(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def batch() -> tuple[Tensor, Tensor]:
    data = load_data("digits", n_samples=32)
    return torch.as_tensor(data.inputs), torch.as_tensor(data.targets)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    x, y = batch()
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()


def timm_training(folder: Path) -> dict[str, Written]:
    """What timm's train script writes: its task, optimiser, scheduler, average and saver, called as it calls them."""
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.task import ClassificationTask
    from timm.utils import CheckpointSaver, ModelEmaV3, NativeScaler

    model = fresh()
    args = argparse.Namespace(
        model=NAME, num_classes=10, img_size=32, lr=0.1, model_ema=True, output=folder, mean=(0.5,), seed=np.int64(3)
    )
    optimizer = create_optimizer_v2(model, opt="momentum", lr=args.lr)
    average = ModelEmaV3(model, decay=0.5)
    saver = CheckpointSaver(
        model, optimizer, args=args, model_ema=average, amp_scaler=NativeScaler(device="cpu"),
        checkpoint_dir=str(folder), recovery_dir=str(folder), max_history=2,
    )  # fmt: skip
    for epoch in range(2):
        step(model, optimizer)
        average.update(model)
        saver.save_checkpoint(epoch, metric=np.float64(50.0 + epoch))
    state, ema = kept(model), kept(average.module)
    took = ("took the entry 'state_dict_ema'", "also there: state_dict (choose with entry=)")
    written = {
        "timm, average": Written(folder / "last.pth.tar", ema, took),
        "timm, weights": Written(folder / "last.pth.tar", state, ("took the entry 'state_dict'",), "state_dict"),
        "timm, best": Written(folder / "model_best.pth.tar", ema, took),
    }
    task = ClassificationTask(fresh(1), LabelSmoothingCrossEntropy(0.1), device=torch.device("cpu"))
    optimizer = create_optimizer_v2(task.get_trainable_module(), opt="adamw", lr=0.01)
    task.setup_ema(decay=0.5)
    saver = CheckpointSaver(
        task.get_trainable_module(), optimizer, args=args, task=task, checkpoint_dir=str(folder / "task")
    )
    (folder / "task").mkdir()
    x, y = batch()
    task(x, y)["loss"].backward()
    optimizer.step()
    saver.save_checkpoint(7)
    state = kept(task.get_eval_model(ema=False))
    return written | {"timm, task": Written(folder / "task" / "checkpoint-7.pth.tar", state, entry="state_dict")}


def averages(folder: Path) -> dict[str, Written]:
    """The wrappers of timm and torch that average weights, saved by themselves."""
    from timm.utils import ModelEmaV2
    from torch.optim.swa_utils import AveragedModel, update_bn

    model = fresh()
    average, timms = AveragedModel(model), ModelEmaV2(model, decay=0.5)
    step(model, torch.optim.SGD(model.parameters(), 0.1))
    average.update_parameters(model)
    timms.update(model)
    update_bn([batch()], average)
    torch.save(average.state_dict(), folder / "swa.pt")
    torch.save(timms.state_dict(), folder / "ema.pt")
    torch.save({"model": model.state_dict(), "model_ema": timms.module.state_dict(), "epoch": 1}, folder / "deit.pth")
    counter = "left out the counter 'n_averaged'"
    return {
        "torch AveragedModel": Written(
            folder / "swa.pt", kept(average.module), (counter, "stripped the prefix 'module.'")
        ),
        "timm ModelEmaV2": Written(folder / "ema.pt", kept(timms.module), ("stripped the prefix 'module.'",)),
        "deit, average": Written(folder / "deit.pth", kept(timms.module), ("took the entry 'model_ema'",)),
        "deit, weights": Written(folder / "deit.pth", kept(model), entry="model"),
    }


@contextmanager
def one_process():
    """A process group of gloo with one member."""
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def distributed(folder: Path) -> dict[str, Written]:
    """DDP and FSDP with one process, alone and around a compiled model."""
    from torch.distributed.fsdp import FullStateDictConfig, StateDictType
    from torch.distributed.fsdp import FullyShardedDataParallel as Fsdp
    from torch.nn.parallel import DistributedDataParallel

    model = fresh()
    with one_process(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ddp = DistributedDataParallel(model)
        optimizer = torch.optim.SGD(ddp.parameters(), 0.1, momentum=0.9)
        step(ddp, optimizer)
        saved = {
            "epoch": 3, "arch": NAME, "state_dict": ddp.state_dict(), "best_acc1": torch.tensor(71.3),
            "optimizer": optimizer.state_dict(), "scheduler": {"last_lr": [0.1]},
        }  # fmt: skip
        torch.save(saved, folder / "ddp.pth.tar")  # as the ImageNet example of PyTorch saves
        torch.save(ddp.state_dict(), folder / "ddp-flat.pt")
        compiled = DistributedDataParallel(torch.compile(model, backend="eager"))
        torch.save(compiled.state_dict(), folder / "ddp-compiled.pt")
        fsdp = Fsdp(copy.deepcopy(model), device_id=torch.device("cpu"), use_orig_params=True)
        with Fsdp.state_dict_type(fsdp, StateDictType.FULL_STATE_DICT, FullStateDictConfig(offload_to_cpu=True)):
            torch.save({"model": fsdp.state_dict()}, folder / "fsdp.pt")
        torch.save({n: p.detach() for n, p in [*fsdp.named_parameters(), *fsdp.named_buffers()]}, folder / "flat.pt")
    state = kept(model)
    return {
        "DDP": Written(folder / "ddp.pth.tar", state, ("took the entry 'state_dict'", "stripped the prefix 'module.'")),
        "DDP, flat": Written(folder / "ddp-flat.pt", state, ("stripped the prefix 'module.'",)),
        "DDP, compiled": Written(folder / "ddp-compiled.pt", state),
        "FSDP, full": Written(folder / "fsdp.pt", state, ("took the entry 'model'",)),
        "FSDP, wrapped names": Written(folder / "flat.pt", state),
    }


def compiled(folder: Path) -> dict[str, Written]:
    """`torch.compile` around the whole model and around a part of it; checkpointing wrappers inside."""
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model = fresh()
    state = kept(model)
    torch.save(torch.compile(model, backend="eager").state_dict(), folder / "compiled.pt")
    model.layer2 = torch.compile(model.layer2, backend="eager")
    model.layer3 = checkpoint_wrapper(model.layer3)
    names = {n: p.detach() for n, p in [*model.named_parameters(), *model.named_buffers()]}
    torch.save({"model_state_dict": names}, folder / "inner.pt")
    return {
        "compiled": Written(folder / "compiled.pt", state, ("stripped the prefix '_orig_mod.'",)),
        "compiled inside": Written(folder / "inner.pt", state, ("took '_orig_mod.' out of the names",)),
    }


def lightning(folder: Path) -> dict[str, Written]:
    """A Lightning module with a weighted criterion, a metric that keeps state and a teacher, saved by its Trainer."""
    import pytorch_lightning as pl
    from torch.utils.data import DataLoader, TensorDataset
    from torchmetrics.classification import MulticlassAccuracy

    for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)

    class Classifier(pl.LightningModule):
        def __init__(self, lr=0.1, teach=False):
            super().__init__()
            self.save_hyperparameters()
            self.model = fresh()
            if teach:
                self.teacher = nn.ModuleDict({"model": fresh(1)})
            self.criterion = nn.CrossEntropyLoss(weight=torch.ones(10))
            self.val_acc = MulticlassAccuracy(10)
            self.val_acc.persistent(True)

        def training_step(self, examples, index):
            x, y = examples
            outputs = self.model(x)
            self.val_acc.update(outputs, y)
            return self.criterion(outputs, y)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), self.hparams.lr)

    written = {}
    for teach in (False, True):
        module = Classifier(teach=teach)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = pl.Trainer(
                max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, barebones=False,
                enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
            )  # fmt: skip
            trainer.fit(module, DataLoader(TensorDataset(*batch()), batch_size=32))
            path = folder / f"lightning{teach:d}.ckpt"
            trainer.save_checkpoint(path)
        notes = (
            "took the entry 'state_dict'",
            "stripped the prefix 'model.'",
            "beside the model's",
            "criterion.weight",
        )
        if not teach:
            written["Lightning"] = Written(path, kept(module.model), notes)
        else:
            twin = "stand under teacher.model. too"
            written["Lightning, student"] = Written(path, kept(module.model), (*notes[:2], twin))
            written["Lightning, teacher"] = Written(path, kept(module.teacher["model"]), entry="teacher.model")
    return written


def plain(folder: Path) -> dict[str, Written]:
    """Plain torch, old and new, with things of every kind beside the weights; shards; half precision."""
    from huggingface_hub import save_torch_state_dict

    model = fresh()
    step(model, torch.optim.SGD(model.parameters(), 0.1))
    state = kept(model)
    beside = {
        "acc": np.float64(0.9), "curve": np.arange(3), "path": Path("/data"), "seen": {1, 2}, "when": complex(1, 2),
        "args": argparse.Namespace(model=NAME), "cfg": {"nested": [(1, ("a", None))]}, "rng": torch.get_rng_state(),
    }  # fmt: skip
    torch.save({"net": state, **beside}, folder / "plain.pth")
    torch.save({"net": state, **beside}, folder / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"weights": {k: v.half() if v.is_floating_point() else v for k, v in state.items()}}, folder / "half.pt")
    bare = {k: v.bfloat16() for k, v in state.items() if v.is_floating_point()}
    save_file(bare, folder / "bf16.safetensors")
    (folder / "shards").mkdir()
    (folder / "bins").mkdir()
    save_torch_state_dict(state, folder / "shards", max_shard_size="400KB")
    save_torch_state_dict(state, folder / "bins", max_shard_size="400KB", safe_serialization=False)
    torch.save({f"backbone.net.{k}": v for k, v in state.items()}, folder / "backbone.pt")
    return {
        "plain": Written(folder / "plain.pth", state, ("took the entry 'net'",)),
        "plain, before 1.6": Written(folder / "old.pth", state, ("took the entry 'net'",)),
        "half": Written(folder / "half.pt", state, ("tensors are float16",), rounded=1e-3),
        "bfloat16": Written(folder / "bf16.safetensors", state, ("tensors are bfloat16",), rounded=1e-2),
        "shards": Written(folder / "shards" / "model.safetensors.index.json", state),
        "shards of torch": Written(folder / "bins" / "pytorch_model.bin.index.json", state),
        "a prefix of one's own": Written(folder / "backbone.pt", state, ("stripped the prefix 'backbone.net.'",)),
    }


WRITERS = (timm_training, averages, distributed, compiled, lightning, plain)


def write_all(root: Path | None = None) -> dict[str, Written]:
    """Let every tool write its files."""
    root = root or Path(tempfile.mkdtemp())
    written: dict[str, Written] = {}
    for writer in WRITERS:
        folder = root / writer.__name__
        folder.mkdir(parents=True)
        written |= writer(folder)
    return written
