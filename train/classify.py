"""`semisparse train classify`: train an image classifier, dense or sparse."""

from __future__ import annotations

import copy
import json
import sys
import time
from argparse import Namespace
from pathlib import Path

import torch
from torch import nn

from semisparse._files import replace_atomically

from . import distributed
from .arguments import parse
from .checkpoint import load_checkpoint, load_weights, save_checkpoint
from .data import ClassificationData, load_data
from .distillation import Distillation
from .engine import Accuracy, Precision, evaluate, train_epoch
from .models import make_classifier
from .optimize import Schedule, WeightAverage, make_optimizer
from .progress import Progress

BN_MEMORY = 32  # steps after which BatchNorm's running statistics have forgotten a change (0.9^32 = 3%)

# What must be equal for a run to be continued: everything else (device, threads, progress) may change.
FIXED_ON_RESUME = (
    "model",
    "size",
    "epochs",
    "batch_size",
    "opt",
    "lr",
    "momentum",
    "weight_decay",
    "lr_scheduler",
    "lr_warmup_epochs",
    "label_smoothing",
    "seed",
    "model_ema",
    "distill",
    "distill_weight",
    "distill_temperature",
    "augmentation",
    "held_out",
)


def main(argv: list[str] | None = None) -> dict:
    """Run the command; returns the summary that it also writes to `summary.json` in the output directory."""
    args = parse(argv)
    started_group = not distributed.active()
    device = distributed.initialize(args.device)
    try:
        with Progress(enabled=not args.quiet and distributed.rank() == 0) as progress:
            return _Run(args, device, progress).main()
    finally:
        if started_group and distributed.active():
            torch.distributed.destroy_process_group()


class _Run:
    def __init__(self, args: Namespace, device: torch.device, progress: Progress):
        self.args, self.device, self.progress = args, device, progress
        self.directory = Path(args.output_dir)
        self.history: list[dict] = []
        self.first_epoch = 0
        torch.manual_seed(args.seed + distributed.rank())

    def main(self) -> dict:
        args = self.args
        resumed = self._resumed()
        start = load_checkpoint(args.checkpoint) if args.checkpoint else None
        recipe = self._recipe(resumed)
        self.data = self._data()
        args.size = self.data.size
        torch.manual_seed(args.seed)  # the same initial weights on every rank
        self.model = make_classifier(args.model, len(self.data.classes), weights=args.weights)
        if start:
            self._check_classes(start, args.checkpoint)
            masks = args.test_only or recipe is not None  # which of them stay is for the recipe to say
            load_weights(self.model, start["model"], source=args.checkpoint, masks=masks)
        self.model.to(self.device, memory_format=torch.channels_last)
        torch.manual_seed(args.seed + 1 + distributed.rank())
        self.precision = Precision(self.device, args.amp)
        if args.test_only:
            return self._test_only(start, resumed)
        self._prepare(recipe)
        if resumed:
            self._restore(resumed)
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.sparsifier is not None and distributed.rank() == 0:
            self.sparsifier.recipe.save(self.directory / "recipe.yaml")
        return self._train()

    def _resumed(self) -> dict | None:
        resume = self.args.resume
        if resume == "auto":
            path = self.directory / "checkpoint.pt"
            return load_checkpoint(path) if path.exists() else None
        return load_checkpoint(resume) if resume else None

    def _recipe(self, resumed: dict | None):
        if not self.args.recipe:
            if resumed and resumed.get("recipe") and not self.args.test_only:
                raise ValueError(
                    "the run to resume trains with a recipe; name it with --recipe "
                    f"(a copy lies in {self.directory / 'recipe.yaml'})"
                )
            return None
        from semisparse.recipe import Recipe

        recipe = Recipe.load(self.args.recipe).override(*self.args.set)
        if not resumed:
            return recipe
        begun = resumed.get("sparsifier") or {}
        if recipe.to_dict() not in [begun.get(key) for key in ("recipe", "asked")]:
            raise ValueError(
                f"--recipe {self.args.recipe} differs from the recipe of the run to resume; "
                "use that one, or start a new run in another --output-dir"
            )
        return Recipe(begun["recipe"])  # names what was chosen where the recipe asked for says `auto`

    def _data(self) -> ClassificationData:
        args, shown = self.args, -1.0

        def report(what: str, fraction: float) -> None:
            nonlocal shown
            if not 0 <= fraction - shown < 0.25:
                shown = fraction
                self.progress.print(f"{what}: {100 * fraction:.0f}%")

        return load_data(
            args.data,
            size=args.size,
            batch_size=args.batch_size,
            val_batch_size=2 * args.batch_size,
            augmentation=args.augmentation,
            seed=args.seed,
            workers=args.workers,
            download=args.download,
            data_dir=args.data_dir,
            cache=args.cache,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            device=self.device,
            progress=report,
        )

    def _check_classes(self, state: dict, source: str) -> None:
        classes = state.get("classes")
        if classes is not None and list(classes) != self.data.classes:
            raise ValueError(
                f"{source} was trained on the classes {list(classes)[:4]}..., but --data {self.args.data} "
                f"has {self.data.classes[:4]}...; give the data set it was trained on"
            )

    def _prepare(self, recipe) -> None:
        args = self.args
        self.teacher = None
        if args.distill:
            teacher = make_classifier(args.model, len(self.data.classes))
            load_weights(teacher, load_checkpoint(args.distill)["model"], source=args.distill)
            self.teacher = Distillation(
                teacher.to(self.device, memory_format=torch.channels_last),
                weight=args.distill_weight,
                temperature=args.distill_temperature,
            )
        self.criterion = nn.CrossEntropyLoss(label_smoothing=args.label_smoothing)
        held_out = self._hold_out(recipe)
        steps = len(self.data.train)
        self.total_steps = args.epochs * steps
        self.sparsifier = None
        if recipe is not None:
            from .sparsifier import Sparsifier

            example = torch.zeros(1, 3, args.size, args.size, device=self.device)
            self.sparsifier = Sparsifier(
                self.model,
                recipe,
                example,
                total_steps=self.total_steps or None,
                seed=args.seed,
                held_out=held_out,
            )
            self.progress.print(self.sparsifier.describe())
        self.optimizer = make_optimizer(
            self.model,
            args.opt,
            lr=args.lr,
            momentum=args.momentum,
            weight_decay=args.weight_decay,
            norm_weight_decay=args.norm_weight_decay,
        )
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            Schedule(args.lr_scheduler, self.total_steps, warmup_steps=round(args.lr_warmup_epochs * steps)),
        )
        self.average = WeightAverage(self.model, args.model_ema_decay) if args.model_ema else None
        self.parallel = self.model
        if distributed.active():
            self.parallel = nn.parallel.DistributedDataParallel(
                self.model, device_ids=[self.device.index] if self.device.type == "cuda" else None
            )

    def _hold_out(self, recipe):
        """Whole batches of training pictures for criterion `held_out`, as many on each rank; None if no layer
        has it."""
        args, loader = self.args, self.data.train
        columns = [layer.columns for layer in (recipe.resolve(self.model) if recipe else {}).values()]
        if not any(c.criterion == "held_out" and c.ratio > 0 for c in columns):
            return None
        from .columns.held_out import HeldOut

        step = args.batch_size * distributed.world_size()
        if args.held_out is None:
            args.held_out = min(512, len(loader.used) // 10)
        count = max(args.held_out // step, 1) * step

        def loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
            images, labels = batch
            with self.precision.autocast():
                return self.criterion(model(images), labels)

        return HeldOut(list(loader.hold_out(count)), loss)

    def _restore(self, state: dict) -> None:
        given, then = vars(self.args), state.get("args", {})
        different = [
            f"{name} {then.get(name)} then, {given[name]} now"
            for name in FIXED_ON_RESUME
            if then.get(name) != given[name]
        ]
        if state.get("args") is None or "optimizer" not in state:
            raise ValueError(
                f"--resume {self.args.resume}: this checkpoint holds weights only; use --checkpoint to "
                "start from them"
            )
        if different:
            raise ValueError(
                f"--resume: the run was started with other options ({'; '.join(different)}); "
                "repeat them, or start a new run in another --output-dir"
            )
        self._check_classes(state, "the checkpoint to resume")
        if self.sparsifier is not None:  # first: it attaches the masks that the weights' state dict contains
            self.sparsifier.load_state_dict(state["sparsifier"])
        load_weights(self.model, state["model"], source="the checkpoint to resume")
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr_scheduler.load_state_dict(state["lr_scheduler"])
        self.precision.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["model_ema"])
        if distributed.rank() == 0:
            torch.set_rng_state(state["rng"])
        self.first_epoch, self.history = state["epoch"], state["history"]
        self.progress.print(f"resumed after epoch {self.first_epoch}")

    def _train(self) -> dict:
        args, progress = self.args, self.progress
        start = time.perf_counter()
        accuracy = None
        for epoch in range(self.first_epoch, args.epochs):
            accuracy = self._epoch(epoch)
        evaluated = self.average.module if self.average is not None else self.model
        batches = args.bn_batches or 0
        if self.sparsifier is not None:
            if args.bn_batches is None and self.sparsifier.retraining_steps() < BN_MEMORY:
                batches = BN_MEMORY
            if not self.sparsifier.finalized:
                self.sparsifier.finalize()
                self._mask_average()
                accuracy = None
        if batches:
            from .batch_norm import reestimate

            self.data.train.set_epoch(args.epochs)
            reestimate(evaluated, self.data.train, batches)
            accuracy = None
        if accuracy is None:
            accuracy = self._evaluate(evaluated, "final")
        summary = {
            "model": args.model,
            "data": self.data.name,
            "size": args.size,
            "epochs": args.epochs,
            "recipe": args.recipe,
            "top1": accuracy.top1,
            "top5": accuracy.top5,
            "loss": accuracy.loss,
            "pictures": accuracy.count,
            "seconds": round(time.perf_counter() - start, 1),
        }
        if self.sparsifier is not None:
            summary["columns"] = self.sparsifier.column_ratios()
            summary["weights"] = self.sparsifier.weight_ratios()
        self._save(args.epochs)
        if distributed.rank() == 0:
            with replace_atomically(self.directory / "summary.json") as file:
                file.write(json.dumps(summary, indent=1).encode())
            self._export(evaluated)
        distributed.barrier()
        progress.print(f"{self.directory}: {accuracy}")
        return summary

    def _epoch(self, epoch: int) -> Accuracy:
        args, loader, begin = self.args, self.data.train, time.perf_counter()
        loader.set_epoch(epoch)
        step = 0
        with self.progress.task(f"epoch {epoch + 1}/{args.epochs}", len(loader)) as bar:

            def advance(note: str) -> None:
                nonlocal step
                step += 1
                bar(note)
                if args.print_freq and step % args.print_freq == 0:
                    self.progress.print(f"epoch {epoch + 1} step {step}/{len(loader)}  {note}")

            trained = train_epoch(
                self.parallel,
                loader,
                self.criterion,
                self.optimizer,
                precision=self.precision,
                lr_scheduler=self.lr_scheduler,
                clip_grad_norm=args.clip_grad_norm,
                sparsifier=self.sparsifier,
                average=self.average,
                distillation=self.teacher,
                advance=advance,
            )
        trained_seconds = time.perf_counter() - begin
        self._mask_average()
        accuracy = self._evaluate(
            self.average.module if self.average is not None else self.model, "validation"
        )
        row = {
            "epoch": epoch + 1,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": trained["loss"],
            "train_top1": trained["top1"],
            "val_loss": accuracy.loss,
            "top1": accuracy.top1,
            "top5": accuracy.top5,
            "train_seconds": round(trained_seconds, 2),
            "seconds": round(time.perf_counter() - begin, 2),
        }
        note = ""
        if self.sparsifier is not None:
            row["columns"] = self.sparsifier.removed()
            row["weights"] = self.sparsifier.weights_removed()
            row["methods"] = self.sparsifier.pop_log()
            removed = [f"  {kind} removed {row[kind]:.3f}" for kind in ("columns", "weights") if row[kind]]
            residuals = [each["residual"] for each in row["methods"] if "residual" in each]
            note = "".join(removed) + (f"  ADMM residual {residuals[-1]:.3f}" if residuals else "")
        self.history.append(row)
        self.progress.print(
            f"epoch {epoch + 1}/{args.epochs}  train loss {trained['loss']:.4f} top-1 {trained['top1']:.2f}%"
            f"  |  val {accuracy}{note}  [{row['seconds']:.0f} s]"
        )
        if epoch + 1 < args.epochs:  # the last epoch is saved after finalize and BatchNorm re-estimation
            self._save(epoch + 1)
        return accuracy

    def _mask_average(self) -> None:
        """An average of weights holds those from before they were removed."""
        if self.sparsifier is not None and self.average is not None:
            self.sparsifier.apply_to(self.average.module)

    def _evaluate(self, model: nn.Module, what: str) -> Accuracy:
        if distributed.active():  # every rank has BatchNorm statistics of its own; rank 0's are saved
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    distributed.broadcast_(buffer)
        with self.progress.task(what, len(self.data.val)) as bar:
            return evaluate(model, self.data.val, precision=self.precision, advance=bar)

    def _save(self, epoch: int) -> None:
        if distributed.rank() == 0:
            log = "".join(json.dumps(row) + "\n" for row in self.history)
            with replace_atomically(self.directory / "log.jsonl") as file:
                file.write(log.encode())
            save_checkpoint(
                self.directory / "checkpoint.pt",
                {
                    "model": self.model.state_dict(),
                    "model_ema": self.average.state_dict() if self.average is not None else None,
                    "optimizer": self.optimizer.state_dict(),
                    "lr_scheduler": self.lr_scheduler.state_dict(),
                    "scaler": self.precision.scaler.state_dict(),
                    "epoch": epoch,
                    "history": self.history,
                    "args": copy.deepcopy(vars(self.args)),
                    "classes": self.data.classes,
                    "recipe": self.sparsifier.recipe.to_dict() if self.sparsifier is not None else None,
                    "sparsifier": self.sparsifier.state_dict() if self.sparsifier is not None else None,
                    "rng": torch.get_rng_state(),
                },
            )
        distributed.barrier()

    def _export(self, model: nn.Module) -> None:
        """The network for deployment. Everything else is saved by now: a failure here loses nothing."""
        import semisparse as ss

        example = torch.zeros(1, 3, self.args.size, self.args.size)
        ss.save(ss.convert(copy.deepcopy(model).cpu().eval(), example), self.directory / "model.safetensors")

    def _test_only(self, start: dict | None, resumed: dict | None) -> dict:
        if resumed:
            load_weights(self.model, resumed["model"], source="the checkpoint to resume")
        elif not start and not self.args.weights:
            raise ValueError("--test-only needs a trained model: give --checkpoint, --resume or --weights")
        accuracy = self._evaluate(self.model, "validation")
        self.progress.print(str(accuracy))
        return {
            "top1": accuracy.top1,
            "top5": accuracy.top5,
            "loss": accuracy.loss,
            "pictures": accuracy.count,
        }


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
