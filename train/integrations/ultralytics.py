"""YOLO detection through Ultralytics: sparse training, conversion, and converted networks in its own API.

The only module that imports ultralytics (AGPL-3.0; `pip install 'semisparse[detect]'`)::

    from semisparse.train.integrations.ultralytics import SparseDetectionTrainer, as_yolo, convert

    model = YOLO("yolov8n.yaml")                       # or trained weights
    model.train(trainer=SparseDetectionTrainer, recipe="columns30", data="data.yaml", imgsz=640)
    ss.save(convert(model, sizes=[640, 320]), "model.safetensors")
    as_yolo("model.safetensors").val(data="data.yaml")  # or .predict("picture.jpg")

**Where things are kept.** Masks are buffers of the network (`semisparse.masking`); recipe and schedule travel
inside the checkpoint's network, as `sparsity`, so `last.pt` alone resumes and `best.pt` alone converts.
Loading either needs semisparse installed, since the network's class is `SparseDetectionModel`. Ultralytics
resumes from the averaged weights in half precision; masks and schedule continue exactly.

**Where pictures lie.** A mask belongs to positions on the canvas, letterbox padding included, which costs
nothing to remove. Augmentation that moves pictures there (mosaic, scale, translate, ...) hides from the
criterion what is padding, and puts objects where nothing is computed. So with a recipe that removes columns
those options are off unless they are given; flips stay.

**Image sizes.** Column masks belong to the training size, `imgsz` x `imgsz`; validation while training uses
it too. At other sizes, and for rectangular batches, a trained network resamples its masks to the layers'
output sizes; `semisparse.masking.set_other_sizes(model, "dense")` computes everything instead. A converted
network runs at the sizes that it was converted for and refuses others.

Ultralytics reports anonymous usage to its makers unless told not to: `yolo settings sync=False`.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import semisparse as ss
from semisparse import masking
from semisparse._torchvision import torchvision  # noqa: F401  (before ultralytics, which imports it)
from semisparse.detection import check_detector
from semisparse.recipe import Recipe
from semisparse.sized import SizedModel
from semisparse.train.batch_norm import reestimate
from semisparse.train.classify import BN_MEMORY
from semisparse.train.distillation import detection_divergence
from semisparse.train.sparsifier import Sparsifier

# Ultralytics installs what it misses with pip, by itself; that may replace the torch that semisparse fits.
os.environ.setdefault("YOLO_AUTOINSTALL", "False")

from ultralytics import YOLO  # isort: skip
from ultralytics.cfg import DEFAULT_CFG
from ultralytics.data import build_yolo_dataset
from ultralytics.models.yolo.detect import DetectionPredictor, DetectionTrainer, DetectionValidator
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.nn.modules import Conv, RepConv, RepVGGDW
from ultralytics.nn.modules.conv import Conv2
from ultralytics.nn.modules.head import Detect, v10Detect
from ultralytics.nn.tasks import DetectionModel, load_checkpoint
from ultralytics.utils import LOGGER, RANK
from ultralytics.utils.torch_utils import unwrap_model

if not hasattr(DetectionTrainer, "_build_train_pipeline"):
    import ultralytics

    raise ImportError(
        f"ultralytics {ultralytics.__version__} is too old for semisparse: pip install 'ultralytics>=8.4'"
    )

__all__ = [
    "YOLO",
    "ConvertedYOLO",
    "SparseDetectionModel",
    "SparseDetectionTrainer",
    "as_yolo",
    "convert",
    "load",
]

Size = int | tuple[int, int]
# Options of Ultralytics that move or mix pictures on the canvas.
_MOVING = ("mosaic", "mixup", "cutmix", "degrees", "translate", "scale", "shear", "perspective")
_MERGED = (RepConv, RepVGGDW, Conv2)  # blocks whose branches Ultralytics adds up for deployment


class SparseDetectionModel(DetectionModel):
    """Ultralytics' detection network, aware of column masks.

    Attributes:
        sparsity: {"recipe": dict, "imgsz": int, "state": dict or None}: what the network was trained with,
            and the `Sparsifier`'s state in a checkpoint that can be resumed; None if it was never sparse.
        mixed_precision: whether it trains with bfloat16 autocast, on a CPU; outputs are float32 all the same.
    """

    sparsity: dict | None = None
    mixed_precision: bool = False

    def _predict_once(self, *args: Any, **kwargs: Any) -> Any:
        if not (self.mixed_precision and self.training):
            return super()._predict_once(*args, **kwargs)
        with torch.autocast("cpu", torch.bfloat16):
            return _float32(super()._predict_once(*args, **kwargs))

    def fuse(self, verbose: bool = True, imgsz: int | list[int] = 640) -> SparseDetectionModel:
        """Fuse as Ultralytics does, except convolutions with a column mask.

        The mask comes before BatchNorm, so a removed column holds BatchNorm's shift. Folded, it would hold 0.
        """
        with _norms_hidden(self, lambda block: masking.column_mask(block.conv) is not None):
            super().fuse(verbose=False, imgsz=imgsz)
        self.info(verbose=verbose, imgsz=imgsz)
        return self


def _float32(outputs: Any) -> Any:
    """Every tensor of a network's outputs in float32: losses need its precision."""
    if isinstance(outputs, dict):
        return {name: _float32(output) for name, output in outputs.items()}
    if isinstance(outputs, (list, tuple)):
        return type(outputs)(_float32(output) for output in outputs)
    return outputs.float() if isinstance(outputs, Tensor) else outputs


@contextlib.contextmanager
def _norms_hidden(model: nn.Module, which: Callable[[Conv], bool]) -> Iterator[None]:
    """Ultralytics takes a Conv block without BatchNorm for fused, and leaves it alone."""
    merged = set()
    for name, module in model.named_modules():
        if isinstance(module, _MERGED):
            if masking.masked_modules(module):
                raise ValueError(f"{name} has a column mask in a branch that is merged; detach it")
            merged |= set(module.modules())
    blocks = [m for m in model.modules() if isinstance(m, Conv) and hasattr(m, "bn") and m not in merged]
    blocks = [block for block in blocks if which(block)]
    norms = [module._modules.pop("bn") for module in blocks]
    try:
        yield
    finally:
        for module, norm in zip(blocks, norms, strict=True):
            module.bn = norm


class OutputDistillation(DistillationModel):
    """Student and teacher whose scores and boxes are compared, and their features where both are as wide.

    Ultralytics compares features alone, through a projector that starts at random. A sparse copy of its
    teacher has nearly the teacher's features: learning the projector pulls them away from there first.

    The loss is `dis` times the sum of the divergences (`detection_divergence`), with the gains `cls` and
    `dfl` of the detection loss, and `FEATURES` times the features' mean squared differences.
    """

    FEATURES = 0.1

    def loss(self, batch: dict, preds: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        if not self.training:
            return super().loss(batch, preds)
        images = batch["img"]
        mixed = getattr(self.student_model, "mixed_precision", False)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            theirs = self.teacher_model(images)
        ours = self.student_model(images)
        loss, items = self.student_model.loss(batch, ours)
        gains, distance = self.student_model.args, torch.zeros(1, device=images.device)
        for student, teacher in zip(_branches(ours), _branches(theirs), strict=True):
            scores, boxes, weights = detection_divergence(student, teacher)
            distance = distance + gains.cls * scores + gains.dfl * boxes
        # Hooks have kept each level's features; `weights` has the cells of all levels in a row.
        pairs = [(self._student_feats[i], self._teacher_feats[i]) for i in range(len(self.feats_idx) - 1)]
        cells = weights.split([feature.shape[2:].numel() for _, feature in pairs], dim=1)
        for (student, teacher), weight in zip(pairs, cells, strict=True):
            if student.shape == teacher.shape:
                squares = (student.float() - teacher.float()).square().mean(1).flatten(1)
                distance = distance + self.FEATURES * (squares * weight).sum() / weight.sum().clamp(min=1e-9)
        distance = self.dis * distance
        items["dis_loss"] = distance.detach()
        return torch.cat([loss, distance * len(images)]), items


def _branches(outputs: Any) -> list[dict[str, Tensor]]:
    """What each branch of a head gives, before decoding: one, or two if it can do without suppression."""
    outputs = outputs[1] if isinstance(outputs, tuple) else outputs  # decoded boxes come first in eval mode
    return [outputs[name] for name in ("one2many", "one2one")] if "one2many" in outputs else [outputs]


def _check_teacher(teacher: nn.Module, student: nn.Module) -> None:
    """Outputs are compared one by one: both heads must give the same."""
    teacher, student = teacher.model[-1], student.model[-1]
    if teacher.nc != student.nc:
        raise ValueError(
            f"the teacher to distil from knows {teacher.nc} classes, the data has {student.nc}; "
            "train the teacher on the same data first"
        )
    for name, of in (
        ("steps of a box's side", lambda head: head.reg_max),
        ("branches", lambda head: 1 if getattr(head, "one2one_cv2", None) is None else 2),
        ("strides", lambda head: head.stride.tolist()),
    ):
        if of(teacher) != of(student):
            raise ValueError(
                f"the teacher's head has {of(teacher)} {name}, the student's {of(student)}; distil from a "
                "detector with the same kind of head, such as the dense network itself"
            )


class SparseDetectionTrainer(DetectionTrainer):
    """Ultralytics' trainer with a `Sparsifier`: `model.train(trainer=SparseDetectionTrainer, recipe=...)`.

    `recipe` is a `Recipe`, its dictionary, a YAML file or the name of a shipped one. Everything else is
    Ultralytics': `distill_model` distils from a dense network, a file or a run, with the weight `dis` (see
    `OutputDistillation`), `resume` continues (the recipe comes from the checkpoint). A last layer of the
    head, DFL, and branches that are merged for deployment stay dense unless the recipe names them. `best.pt`
    is chosen among epochs at full sparsity only. `amp=True` on a CPU is bfloat16. If columns are removed,
    pictures stay in their place: augmentation that moves them is off unless its option is given.

    Raises:
        ValueError: no recipe, or one that does not fit the network; a network of another task; options that
            do not go together with masks of one size or a schedule in steps (`multi_scale`, `time`,
            `compile`).
    """

    def __init__(self, cfg=DEFAULT_CFG, overrides: dict | None = None, _callbacks: dict | None = None):
        overrides = dict(overrides or {})
        given = as_recipe(overrides.pop("recipe", None))
        super().__init__(cfg, overrides, _callbacks)
        if not self.resume and "amp" not in overrides and self.device.type == "cpu":
            self.args.amp = False  # which it is there for Ultralytics, whose default is True
        self.recipe = self._recipe(given, getattr(self.args, "recipe", None))
        # Part of the arguments from here on: checkpoints keep them, and DDP hands them to its processes.
        self.args.recipe = self.recipe.to_dict()
        if isinstance(self.args.distill_model, (str, os.PathLike)):
            self.args.distill_model = str(_checkpoint_in(Path(self.args.distill_model)))
        if not self.resume and self.recipe.removes_columns:
            self._keep_in_place(set(overrides))
        for name, why in (
            ("multi_scale", "column masks belong to one image size"),
            ("time", "the schedule needs the number of epochs"),
            ("compile", "masks and gradients are recorded by hooks"),
        ):
            if getattr(self.args, name, None):
                raise ValueError(
                    f"{name}={getattr(self.args, name)} does not go together with a recipe: {why}"
                )
        self.sparsifier: Sparsifier | None = None

    def _recipe(self, given: Recipe | None, stored: Mapping | None) -> Recipe:
        if not self.resume:
            if given is None:
                raise ValueError(
                    "SparseDetectionTrainer needs a recipe: model.train(trainer=..., recipe='columns30'); "
                    f"shipped recipes are {', '.join(Recipe.shipped())}"
                )
            return given
        if stored is None:
            raise ValueError(
                f"{self.args.model} was trained without a recipe, so there is no schedule to resume; start a "
                "new run from it (resume=False), or resume it with Ultralytics' own trainer"
            )
        if given is not None and given != Recipe(stored):
            raise ValueError(
                "the recipe differs from that of the run to resume; leave it out, or start a new run"
            )
        return Recipe(stored)

    def _keep_in_place(self, given: set[str]) -> None:
        """Switch off what moves pictures on the canvas, except options that the user gave."""
        moving = [name for name in _MOVING if name not in given and getattr(self.args, name, 0)]
        for name in moving:
            setattr(self.args, name, 0.0)
        if moving and RANK in (-1, 0):
            LOGGER.info(
                f"column masks belong to positions: {', '.join(moving)} set to 0; name them to move pictures"
            )

    @property
    def network(self) -> nn.Module:
        """The detection network inside what is trained (DistributedDataParallel, distillation)."""
        return _unwrap(self.model)

    # -- setup ----------------------------------------------------------------------------------------------
    def set_model_attributes(self) -> None:
        super().set_model_attributes()
        # Ultralytics' own mixed precision is for GPUs.
        self.network.mixed_precision = self.device.type == "cpu" and self.args.amp not in (False, "fp32")
        if self.args.distill_model is None:
            return
        wrapped = isinstance(self.model, DistillationModel)  # as it is in a run that is resumed
        student = self.model.student_model if wrapped else self.model
        teacher = self.model.teacher_model if wrapped else load(self.args.distill_model)
        _check_teacher(teacher, student)
        self.model = OutputDistillation(teacher, student)

    def get_model(self, cfg=None, weights=None, verbose: bool = True) -> SparseDetectionModel:
        model = SparseDetectionModel(
            cfg, nc=self.data["nc"], ch=self.data.get("channels", 3), verbose=verbose and RANK == -1
        )
        _check_task(model, str(self.args.model))
        self.set_model_names_for_load(model)
        if weights:
            model.load(weights)
            _copy_masks(_unwrap(weights), model)
        skips_for_detection(self.recipe, model).resolve(model)  # an unfit recipe fails before data is read
        return model

    def get_validator(self) -> DetectionValidator:
        args = copy.copy(self.args)
        del args.recipe  # which Ultralytics' validator would not know
        return DetectionValidator(
            self.test_loader, save_dir=self.save_dir, args=args, _callbacks=self.callbacks
        )

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None):
        if mode != "val" or not self._has_columns():
            return super().build_dataset(img_path, mode, batch)
        # Rectangular batches would resample the masks: validate the network that will be deployed.
        stride = _stride(self.network)
        return build_yolo_dataset(self.args, img_path, batch, self.data, mode=mode, rect=False, stride=stride)

    def _has_columns(self) -> bool:
        layers = skips_for_detection(self.recipe, self.network).resolve(self.network)
        return any(layer.columns.ratio > 0 for layer in layers.values())

    def _build_train_pipeline(self) -> None:
        # The last step before Ultralytics copies the network for its average: masks must be on it by then.
        super()._build_train_pipeline()
        batches = len(self.train_loader)
        steps = optimizer_steps(batches, self.epochs, self.accumulate, self._get_warmup_iterations(batches))
        if self.sparsifier is not None:  # built again with a smaller batch, after memory ran out
            self.sparsifier.total_steps = self.sparsifier.weights.total_steps = steps
            return
        channels = self.data.get("channels", 3)
        example = torch.zeros(1, channels, self.args.imgsz, self.args.imgsz)
        recipe = skips_for_detection(self.recipe, self.network)
        self.sparsifier = Sparsifier(self.network, recipe, example, total_steps=steps, seed=self.args.seed)
        masking.set_other_sizes(self.network, "resample")

    def _load_checkpoint_state(self, ckpt: dict) -> None:
        super()._load_checkpoint_state(ckpt)
        sparsity = getattr(_unwrap(ckpt["ema"]), "sparsity", None)
        if not sparsity or sparsity["state"] is None:
            raise ValueError(
                f"{self.args.model} holds no state of a sparse training to resume; start a new run from it"
            )
        self.sparsifier.load_state_dict(sparsity["state"])

    # -- training -------------------------------------------------------------------------------------------
    def optimizer_step(self) -> None:
        pictures = self.batch_size * self.accumulate
        penalty = self.sparsifier.penalty()
        if penalty.requires_grad:
            # Ultralytics' loss is summed over the pictures of a step; the penalty belongs to their mean.
            self.scaler.scale(penalty * pictures).backward()
        ema, self.ema = self.ema, None
        super().optimizer_step()
        self.ema = ema
        self.sparsifier.step(self.loss.detach() / self.batch_size)
        if ema:  # after the step above, so that the average follows the sparse weights
            ema.update(self.model)

    def validate(self):
        ending = self.epoch + 1 >= self.epochs or self.stop
        if ending:
            self.sparsifier.finalize()
        self._sparsify_average()
        if ending and self.sparsifier.retraining_steps() < BN_MEMORY:
            # No time was left after the last removal for BatchNorm's running statistics to follow.
            pictures = ((self.preprocess_batch(batch)["img"], None) for batch in self.train_loader)
            reestimate(_unwrap(self.ema.ema), pictures, BN_MEMORY)
        complete = self.sparsifier.finalized
        if not complete:
            self.best_fitness = -1.0  # below every fitness, and equal to none
        metrics, fitness = super().validate()
        if not complete:
            # Epochs before full sparsity must neither become best.pt nor stop the run early.
            self.best_fitness, fitness = -1.0, None
        return metrics, fitness

    def _sparsify_average(self) -> None:
        if self.ema:
            average = _unwrap(self.ema.ema)
            self.sparsifier.apply_to(average)
            masking.set_other_sizes(average, "resample")

    def save_model(self) -> bool:
        self._sparsify_average()
        if self.best_fitness is None and not self.sparsifier.finalized:
            self.best_fitness = -1.0  # see `validate`, which val=False leaves out
        _unwrap(self.ema.ema).sparsity = {
            "recipe": self.recipe.to_dict(),
            "imgsz": self.args.imgsz,
            "state": self.sparsifier.state_dict(),
        }
        # Written beside and renamed: a run killed here must leave the previous checkpoint whole.
        targets = self.last, self.best
        self.last, self.best = (path.with_name(f".{path.name}") for path in targets)
        try:
            saved = super().save_model()
            for temporary, path in zip((self.last, self.best), targets, strict=True):
                if temporary.exists():
                    os.replace(temporary, path)
        finally:
            self.last, self.best = targets
        return saved


def _copy_masks(source: nn.Module, model: nn.Module) -> None:
    """Column masks to the same layers of another network, which the sparsifier keeps or drops."""
    layers = dict(model.named_modules())
    for name, module in masking.masked_modules(source).items():
        if isinstance(layers.get(name), nn.Conv2d):
            masking.attach_column_mask(layers[name], masking.column_mask(module))
    masking.set_other_sizes(model, "resample")


def optimizer_steps(batches: int, epochs: int, accumulate: int, warmup: int) -> int:
    """How many optimiser steps Ultralytics takes.

    Args:
        batches: per epoch.
        accumulate: batches per step after the warm-up, during which it grows from 1 linearly.
        warmup: batches of the warm-up.
    """
    steps, last = 0, -1
    for batch in range(batches * epochs):
        needed = accumulate
        if warmup and batch <= warmup:
            needed = max(1, round(1 + (accumulate - 1) * batch / warmup))
        if batch - last >= needed:
            steps, last = steps + 1, batch
    return max(steps, 1)


def as_recipe(recipe: Recipe | Mapping | str | os.PathLike | None) -> Recipe | None:
    """A recipe from what a user may give: itself, its dictionary, a file, or a shipped one's name."""
    if recipe is None or isinstance(recipe, Recipe):
        return recipe
    return Recipe(recipe) if isinstance(recipe, Mapping) else Recipe.load(recipe)


def skips_for_detection(recipe: Recipe, model: nn.Module) -> Recipe:
    """`recipe` with the layers skipped that a detector needs dense.

    These are DFL (a fixed weighted sum), the last convolution of each branch of the head (few weights that
    give the outputs), and the branches of re-parametrised blocks, which are added up for deployment: what is
    removed from one is filled by the other. A recipe that names one of the first two by its own name still
    gets it.

    Raises ValueError if the recipe names a branch of a re-parametrised block.
    """
    entries = recipe.to_dict()
    names = {module: name for name, module in model.named_modules()}
    skip: list[str] = []
    for module in model.modules():
        if isinstance(module, Detect):
            ends = [module.dfl.conv] if hasattr(module.dfl, "conv") else []
            for branch in ("cv2", "cv3", "one2one_cv2", "one2one_cv3"):
                ends += [sequence[-1] for sequence in getattr(module, branch, None) or ()]
            skip += [names[layer] for layer in ends if isinstance(layer, nn.Conv2d)]
        elif isinstance(module, _MERGED):
            merged = [names[layer] for layer in module.modules() if isinstance(layer, nn.Conv2d)]
            if named := [name for name in merged if name in entries]:
                raise ValueError(
                    f"{named[0]} is one branch of a block whose branches are merged for deployment, which "
                    "fills what is removed from one of them; remove the entry"
                )
            skip += merged
    entries["_skip"] = [*entries["_skip"], *(name for name in skip if name not in entries["_skip"])]
    return Recipe(entries)


# -- commands ---------------------------------------------------------------------------------------------
def open_yolo(model: str | os.PathLike) -> YOLO:
    """Ultralytics' `YOLO` of a network (.yaml), a checkpoint (.pt) or a run directory, if it is a detector.

    Raises:
        ValueError: there is no such file, it cannot be read, or it is a model of another task.
    """
    path = Path(model)
    if path.is_dir():
        model = _checkpoint_in(path)
    try:
        yolo = YOLO(str(model))
    except (OSError, TypeError, KeyError, ModuleNotFoundError) as error:
        raise ValueError(f"the model {str(model)!r} cannot be opened: {error}") from error
    _check_task(yolo.model, str(model))
    return yolo


def train(yolo: YOLO, options: dict) -> Any:
    """`yolo.train(**options)`; unknown options are a ValueError. Returns Ultralytics' metrics."""
    try:
        return yolo.train(**options)
    except SyntaxError as error:  # Ultralytics' word for an option that it does not know
        raise ValueError(f"an option of --yolo is not known: {error}") from error


def evaluate(
    yolo: YOLO, data: str | os.PathLike, size: int, batch: int = 16, split: str = "val", **options: Any
) -> Any:
    """Ultralytics' metrics on square pictures of exactly `size`, to which no mask has to be resampled."""
    options = {"rect": False, "plots": False, "save_json": False, "verbose": False, **options}
    return yolo.val(data=str(data), imgsz=size, batch=batch, split=split, **options)


def progress(checkpoint: str | os.PathLike) -> tuple[int | None, dict | None]:
    """Epochs completed (None: training has ended) and the recipe (None: dense) of a checkpoint."""
    network, state = load_checkpoint(checkpoint)
    epoch = state.get("epoch", -1)
    sparsity = getattr(_unwrap(network), "sparsity", None)
    return None if epoch < 0 else epoch + 1, sparsity["recipe"] if sparsity else None


def silence() -> None:
    """Show nothing of Ultralytics but warnings."""
    LOGGER.setLevel(logging.WARNING)


# -- conversion ----------------------------------------------------------------------------------------------
def load(model: YOLO | nn.Module | str | os.PathLike) -> nn.Module:
    """The detection network of a YOLO object, a checkpoint (`best.pt`), a run directory, or itself.

    Raises:
        ValueError: it is not a detection network, or there is no such file.
    """
    if isinstance(model, YOLO):
        model = model.model
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        if path.is_dir():
            path = _checkpoint_in(path)
        if not path.is_file() or path.suffix != ".pt":
            raise ValueError(
                f"{str(model)!r} is neither a checkpoint (.pt) nor a run directory that has weights/best.pt"
            )
        try:
            model = load_checkpoint(path)[0]  # Ultralytics' own loader
        except (TypeError, AttributeError, KeyError, ModuleNotFoundError) as error:
            raise ValueError(f"{path} is not a checkpoint of Ultralytics: {error}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"a network is expected, not {model!r:.100}; give a YOLO object, a checkpoint or a run"
        )
    network = _unwrap(model)
    _check_task(network, type(model).__name__)
    return network


def _checkpoint_in(run: Path) -> Path:
    """The best checkpoint of a run directory, or the directory itself if there is none."""
    return next((p for name in ("best", "last") if (p := run / "weights" / f"{name}.pt").is_file()), run)


def convert(
    model: YOLO | nn.Module | str | os.PathLike,
    sizes: Size | Sequence[Size] | None = None,
    *,
    other_sizes: str = "resample",
    strict: bool = False,
) -> SizedModel:
    """Convert a whole detection network, decoding of the boxes included, for one or several image sizes.

    The converted network takes (N, 3, H, W), RGB in [0, 1], and returns boxes and scores: (N, 4 + classes,
    boxes) with boxes as centre, width and height in pixels, before non-maximum suppression; or (N, boxes, 6)
    with corners, score and class, if the network does without it (`end2end`). `semisparse.detection` runs it
    on pictures; `as_yolo` puts it into Ultralytics' API.

    Args:
        model: what `load` takes. It is not changed.
        sizes: pixels, or (height, width), multiples of the stride; the main one first. Default: the size it
            was trained at.
        other_sizes: what column masks do at other sizes than the trained one: `resample`, `dense`, or
        `refuse`. strict: see `semisparse.convert`.

    Raises:
        ValueError: not a detection network; a size that is no multiple of the stride; see
        `semisparse.convert`.
    """
    network = _deployed(load(model))
    trained, stride = trained_size(network), _stride(network)
    sizes = [trained] if sizes is None else [sizes] if isinstance(sizes, (int, tuple)) else list(sizes)
    pairs = [(size, size) if isinstance(size, int) else tuple(size) for size in sizes]
    for height, width in pairs:
        if height < stride or width < stride or height % stride or width % stride:
            raise ValueError(
                f"the size {height} x {width} is not a multiple of the network's stride, {stride}"
            )
    masks, models = {}, []
    for size in pairs:
        fitted, example, masks[f"{size[0]}x{size[1]}"] = _fitted(network, size, other_sizes)
        models.append(ss.convert(fitted, example, strict=strict, free_size=False))
    names = network.names
    info = {
        "task": "detect",
        "names": [str(names[key]) for key in sorted(names)] if isinstance(names, dict) else list(names),
        "stride": stride,
        "end2end": bool(network.model[-1].end2end),
        "trained_size": trained,
        "masks": masks,
    }
    return SizedModel(models, info)


def plain(model: YOLO | nn.Module | str | os.PathLike, size: tuple[int, int]) -> nn.Module:
    """The network that `convert` converts, masks and all, as a module of torch: what other engines get.

    It takes and returns what the converted one does, for images of `size`, (height, width).
    """
    return _fitted(_deployed(load(model)), size, "resample")[0]


def _deployed(network: nn.Module) -> nn.Module:
    """A copy with branches merged and without the head that inference does not use; BatchNorm stays."""
    network = copy.deepcopy(network).cpu().float().eval()
    with _norms_hidden(network, lambda block: True):
        DetectionModel.fuse(network, verbose=False)
    return network


def _fitted(network: nn.Module, size: tuple[int, int], policy: str) -> tuple[nn.Module, Tensor, str]:
    """A copy for images of `size` that returns decoded boxes, an example, and what was done to the masks."""
    example = torch.zeros(1, getattr(network, "yaml", {}).get("channels", 3), *size)
    fitted = copy.deepcopy(network)
    done = _fit_masks(fitted, example, policy)
    _fix_head(fitted, example)
    return fitted, example, done


def _fit_masks(network: nn.Module, example: Tensor, policy: str) -> str:
    """Make the masks fit the example's size; returns what was done: none, exact, or the policy."""
    if not masking.masked_modules(network):
        return "none"
    try:
        masking.fit_masks(network, example, "refuse")
        return "exact"
    except ValueError:
        masking.fit_masks(network, example, policy)
        return policy


class _AnyShape:
    """Equal to every shape: tells the head that its anchors are those of the input at hand."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


def _fix_head(network: nn.Module, example: Tensor) -> None:
    """Make anchors constants and decoded boxes the only output."""
    head = network.model[-1]
    head.export, head.format, head.dynamic = True, None, False
    with torch.no_grad():
        network(example)
    head.anchors, head.strides = head.anchors.clone(), head.strides.clone()
    head.shape = _AnyShape()


def _stride(network: nn.Module) -> int:
    return max(int(network.stride.max()), 32)


def trained_size(network: nn.Module) -> int:
    """Side of the square pictures that a network was trained on."""
    sparsity = getattr(network, "sparsity", None)
    args = getattr(network, "args", None) or {}
    size = (
        sparsity["imgsz"]
        if sparsity
        else dict(vars(args) if hasattr(args, "__dict__") else args).get("imgsz")
    )
    return int(size or 640)


def _unwrap(model: nn.Module) -> nn.Module:
    model = unwrap_model(model)  # torch.compile, DistributedDataParallel
    return getattr(model, "student_model", model)


def _check_task(network: nn.Module, source: str) -> None:
    head = network.model[-1] if isinstance(network, DetectionModel) else None
    if type(head) not in (Detect, v10Detect):
        what = type(network).__name__ if head is None else f"a network that ends in {type(head).__name__}"
        raise ValueError(
            f"{source} is {what}, not a YOLO detector; give a detection model, such as yolov8n or yolo11n "
            "(other tasks: -seg, -pose, -obb, -cls)"
        )


# -- converted networks in Ultralytics' API ------------------------------------------------------------------
class _Detector(nn.Module):
    """A converted network in the shape that Ultralytics' predictor and validator expect of a network."""

    task = "detect"

    def __init__(self, network: SizedModel):
        super().__init__()
        self.network = network
        self.names = dict(enumerate(network.info["names"]))
        self.stride = torch.tensor([network.info["stride"]])
        self.end2end = network.info["end2end"]
        self.yaml = {"channels": network.models[0].graph.inputs[0].shape[1]}

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.network(x)

    def fuse(self) -> _Detector:
        return self

    def set_head_attr(self, **attributes: Any) -> None:
        """Number of boxes and the like are part of a converted network."""


class _ExactSize:
    """Pictures are padded to the whole size, never to a rectangle that the network was not converted for."""

    def pre_transform(self, im):
        self.args.rect = False
        return super().pre_transform(im)

    def build_dataset(self, *args, **kwargs):
        self.args.rect = False
        return super().build_dataset(*args, **kwargs)


class ConvertedPredictor(_ExactSize, DetectionPredictor):
    """`DetectionPredictor` for `ConvertedYOLO`."""


class ConvertedValidator(_ExactSize, DetectionValidator):
    """`DetectionValidator` for `ConvertedYOLO`."""


class ConvertedYOLO(YOLO):
    """Ultralytics' `YOLO` around a converted network: `predict`, `val` and `track`; made by `as_yolo`.

    `imgsz` is the main size unless given, and must be one that the network was converted for.
    """

    def __init__(self, network: SizedModel):
        self.__dict__["_converted"] = network  # nn.Module's constructor, which comes later, keeps it
        super().__init__("converted.safetensors", task="detect")

    def _load(self, weights: str, task: str | None = None) -> None:
        network = self.__dict__.pop("_converted")
        self.model, self.ckpt, self.ckpt_path = _Detector(network), None, None
        self.task, self.model_name = "detect", weights
        height, width = network.sizes[0]
        self.overrides = {
            "model": weights,
            "task": "detect",
            "imgsz": height if height == width else [height, width],
        }

    @property
    def task_map(self) -> dict:
        return {"detect": {"predictor": ConvertedPredictor, "validator": ConvertedValidator}}


def as_yolo(network: SizedModel | str | os.PathLike) -> ConvertedYOLO:
    """A converted detector, or its file, as a `YOLO` object: `as_yolo("model.safetensors").predict(picture)`.

    Raises:
        ValueError: it is no converted detector.
    """
    if isinstance(network, (str, os.PathLike)):
        network = ss.load(network)
    check_detector(network)
    return ConvertedYOLO(network)
