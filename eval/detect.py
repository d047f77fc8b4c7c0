"""`semisparse eval detect`: mAP and latency of YOLO detectors, dense against sparse, in one run."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

import semisparse as ss
from semisparse._files import replace_atomically
from semisparse._table import print_table
from semisparse.detection import Detector, check_detector
from semisparse.eval.peers import ENGINES, OWN, Candidate, Race, race
from semisparse.info import collect
from semisparse.latency import Latency, compare, random_input
from semisparse.sized import SizedModel
from semisparse.train.data.detection import list_pictures, open_detection_data
from semisparse.train.progress import Progress

STAGES = ("preprocessing", "network", "nms")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="semisparse eval detect",
        description="mAP and latency of YOLO detectors, dense against sparse: tables, detect.json, "
        "detect.png (mAP against latency) and boxes.png (what they find, side by side).",
    )
    result.add_argument(
        "--run",
        action="append",
        default=[],
        metavar="DIR",
        help="a training run, or a checkpoint (.pt), converted for the comparison; may be repeated",
    )
    result.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="FILE",
        help="a converted detector (.safetensors); may be repeated",
    )
    result.add_argument(
        "--dense", metavar="DIR", help="the dense run or checkpoint, timed on other engines too"
    )
    result.add_argument("--data", help="as for training (default: the first run's data.yaml)")
    result.add_argument("--data-dir", metavar="DIR", help="where drawn or unpacked data is kept")
    result.add_argument("--split", default="val", choices=("train", "val", "test"))
    result.add_argument(
        "--size",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="sides of the square input (default: as trained); column masks are resampled for others",
    )
    result.add_argument("--batch-size", type=int, default=16, help="for mAP; latency is always measured at 1")
    result.add_argument("--threads", type=int, default=1, help="for latency, the same for every engine")
    result.add_argument("--rounds", type=int, default=20, help="interleaved measurements of each candidate")
    result.add_argument(
        "--peers",
        default="torch,onnxruntime,openvino",
        metavar="NAMES",
        help=f"engines for the dense network, of {','.join(ENGINES)}; those not installed are named",
    )
    result.add_argument("--pictures", type=int, default=3, help="rows of boxes.png")
    result.add_argument("--confidence", type=float, default=0.25, help="of boxes shown and timed")
    result.add_argument("--output-dir", metavar="DIR", help="for the results (default: the first run's)")
    result.add_argument("--quiet", action="store_true", help="no progress")
    return result


@dataclass
class Row:
    """One network at one size. mAP in percent; times in milliseconds, of one picture.

    Attributes:
        trained: (mAP50, mAP50-95) of the trained network in torch, masks applied; None for files.
        converted: the same of the converted network, which is the one that is timed.
        macs_removed: fraction of the network's multiply-accumulates.
        stages: of `STAGES`, in one process.
        coverage: share of the network's time in layers that skip work: before, were it dense, and as it is.
    """

    network: str
    size: int
    trained: tuple[float, float] | None
    converted: tuple[float, float]
    macs_removed: float
    stages: dict[str, Latency] = field(default_factory=dict)
    coverage: tuple[float, float] = (0.0, 0.0)

    @property
    def key(self) -> str:
        return f"{self.network} @{self.size}"

    @property
    def sparse(self) -> bool:
        """Whether anything worth mentioning is removed: DFL has a zero weight in dense networks too."""
        return self.macs_removed > 1e-3


@dataclass
class Result:
    """What the command measured: rows, the race of each size by side, and where."""

    rows: list[Row]
    races: dict[int, Race]
    conditions: dict
    machine: dict[str, str]

    def as_dict(self) -> dict:
        """For JSON."""
        return {
            "conditions": self.conditions,
            "machine": self.machine,
            "rows": [asdict(row) for row in self.rows],
            "races": {str(size): found.as_dict() for size, found in self.races.items()},
        }

    def accuracy_table(self) -> list[list[str]]:
        titles = "network|px|MACs|mAP50 trained|mAP50-95|mAP50 converted|mAP50-95".split("|")
        return [
            titles,
            *(
                [r.network, str(r.size), _removed(r), *_pair(r.trained), *_pair(r.converted)]
                for r in self.rows
            ),
        ]

    def race_table(self, size: int) -> list[list[str]]:
        """The network alone, every candidate in a process of its own."""
        found = self.races[size]
        engines = [name for name in set(found.engines.values()) if name not in OWN]
        fastest = found.fastest(among=engines)
        own = next((r.key for r in self.rows if r.size == size and not r.sparse), None)
        rows = [["network", "engine", "ms", "p10-p90", f"x {found.engines.get(fastest, '-')}", "x own dense"]]
        for label, latency in found.comparison.latency.items():
            against = [
                f"{found.comparison.speedup(label, other):.2f}" if other in found.engines else ""
                for other in (fastest, own)
            ]
            times = [f"{latency.median:.2f}", f"{latency.p10:.2f}-{latency.p90:.2f}"]
            rows.append([label, found.engines[label], *times, *against])
        return rows

    def stage_table(self) -> list[list[str]]:
        """Where the time of a picture goes; coverage before and after."""
        rows = [["network", *(f"{stage} ms" for stage in STAGES), "in sparse layers, if dense", "now"]]
        for row in self.rows:
            times = [f"{row.stages[stage].median:.2f}" for stage in STAGES]
            rows.append([row.key, *times, *(f"{100 * share:.0f}%" for share in row.coverage)])
        return rows


def main(argv: Sequence[str] | None = None) -> Result:
    """Entry point of the command."""
    args = parser().parse_args(argv)
    for name in ("threads", "rounds", "batch_size", "pictures"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(args, name)}, expected at least 1")
    if not 0 <= args.confidence < 1:
        raise ValueError(f"--confidence is {args.confidence}, expected a score in [0, 1)")
    if not args.run and not args.model and not args.dense:
        raise ValueError("nothing to evaluate: give --run DIR, --dense DIR or --model FILE.safetensors")
    directory = Path(args.output_dir or next(iter([*args.run, *args.model, args.dense])))
    directory = directory if directory.is_dir() or args.output_dir else directory.parent
    data = open_detection_data(_data(args), directory, data_dir=args.data_dir)
    with Progress(enabled=not args.quiet) as progress:
        evaluation = _Evaluation(args, data, progress)
        result = evaluation.result()
    print_table(result.accuracy_table(), left=2)
    for size, found in result.races.items():
        print(f"\nthe network alone at {size} px, {args.threads} thread(s):")
        print_table(result.race_table(size), left=2)
        for label, reason in found.missing.items():
            print(f"{label}: {reason}")
    print("\none picture, in one process:")
    print_table(result.stage_table())
    for path in evaluation.write(result, directory):
        print(f"wrote {path}")
    return result


def _data(args: argparse.Namespace) -> str:
    if args.data:
        return args.data
    for run in [*args.run, args.dense]:
        if run and (Path(run) / "data.yaml").is_file():
            return str(Path(run) / "data.yaml")
    raise ValueError("--data is needed: none of the runs has a data.yaml")


class _Evaluation:
    def __init__(self, args: argparse.Namespace, data: Path, progress: Progress):
        from semisparse.train.integrations import ultralytics as integration

        integration.silence()
        self.args, self.data, self.progress, self.integration = args, data, progress, integration
        runs = [args.dense, *args.run] if args.dense else list(args.run)
        self.runs = {_name(run): run for run in runs}
        self.files = {Path(file).stem: ss.load(file) for file in args.model}
        if len(self.runs) + len(self.files) < len(runs) + len(args.model) or set(self.runs) & set(self.files):
            raise ValueError("two of the networks have the same name; rename one directory or file")
        for network in self.files.values():
            check_detector(network)
        self.sizes = args.size or [self._default_size()]
        self.networks = {
            name: integration.convert(network, self.sizes) for name, network in self.runs.items()
        } | self.files
        self._check_classes()
        self.pictures = self._pictures()

    def _default_size(self) -> int:
        if self.runs:
            return self.integration.trained_size(self.integration.load(next(iter(self.runs.values()))))
        return next(iter(self.files.values())).sizes[0][0]

    def _check_classes(self) -> None:
        import yaml

        names = yaml.safe_load(self.data.read_text())["names"]
        names = [names[key] for key in sorted(names)] if isinstance(names, dict) else names
        names = [str(name) for name in names]
        for name, network in self.networks.items():
            if network.info["names"] != names:
                raise ValueError(
                    f"{name} detects {_some(network.info['names'])}, but the data has {_some(names)}; give "
                    "--data the set it was trained on"
                )

    def _pictures(self) -> list[np.ndarray]:
        """The first pictures of the split."""
        from PIL import Image

        files = list_pictures(self.data, self.args.split)
        return [np.array(Image.open(file).convert("RGB")) for file in files[: self.args.pictures]]

    # -- measuring ------------------------------------------------------------------------------------------
    def result(self) -> Result:
        rows = [self._row(name, size) for size in self.sizes for name in self.networks]
        races = {size: self._race(size, [row for row in rows if row.size == size]) for size in self.sizes}
        self._time_stages(rows)
        conditions = {
            "data": str(self.args.data or self.data),
            "split": self.args.split,
            "sizes": self.sizes,
            "threads": self.args.threads,
            "confidence": self.args.confidence,
        }
        return Result(rows, races, conditions, collect())

    def _row(self, name: str, size: int) -> Row:
        self.progress.print(f"mAP of {name} at {size} px")
        run = self.runs.get(name)
        trained = self._map(self.integration.open_yolo(run), size) if run else None
        network = self.networks[name]
        one = network.at((size, size))
        work = ss.statistics(one)
        removed = 1 - work.macs_kept / work.macs_dense if work.macs_dense else 0.0
        return Row(name, size, trained, self._map(self.integration.as_yolo(network), size), removed)

    def _map(self, detector, size: int) -> tuple[float, float]:
        found = self.integration.evaluate(
            detector, self.data, size, self.args.batch_size, self.args.split, device="cpu"
        )
        return 100 * float(found.box.map50), 100 * float(found.box.map)

    def _race(self, size: int, rows: Sequence[Row]) -> Race:
        candidates = [
            Candidate(row.key, "semisparse", self.networks[row.network].at((size, size))) for row in rows
        ]
        if self.args.dense:
            name = _name(self.args.dense)
            dense = self.integration.plain(self.runs[name], (size, size))
            for engine in filter(None, self.args.peers.split(",")):
                candidates.append(Candidate(f"{name} @{size}, {engine}", engine, dense))
        self.progress.print(
            f"latency at {size} px: {self.args.rounds} rounds of {len(candidates)} candidates"
        )
        example = random_input(1, 3, size, size)
        found = race(candidates, example, threads=self.args.threads, rounds=self.args.rounds)
        for row in rows:
            if row.key in found.missing:
                raise RuntimeError(f"{row.key} could not be timed: {found.missing[row.key]}")
        return found

    def _time_stages(self, rows: Sequence[Row]) -> None:
        from semisparse.explain import explain

        self.progress.print("latency of the stages")
        calls: dict[str, Callable[[], object]] = {}
        for row in rows:
            size = row.size, row.size
            detector = Detector(self.networks[row.network], confidence=self.args.confidence)
            for stage, call in _stages(detector, self.pictures, size).items():
                calls[f"{row.key} {stage}"] = call
        found = compare(calls, threads=self.args.threads, rounds=self.args.rounds)
        for row in rows:
            row.stages = {stage: found.latency[f"{row.key} {stage}"] for stage in STAGES}
            if not row.sparse:
                continue
            x, _ = Detector(self.networks[row.network]).preprocess(self.pictures[0], (row.size, row.size))
            parts = explain(self.networks[row.network], x, threads=self.args.threads, rounds=5)
            sparse = [layer for layer in parts.layers if layer.sparse]
            row.coverage = (sum(layer.ms_dense for layer in sparse) / parts.ms_dense, parts.coverage)

    # -- files ----------------------------------------------------------------------------------------------
    def write(self, result: Result, directory: Path) -> list[Path]:
        """detect.json, detect.png and boxes.png in `directory` (made if missing); returns their paths."""
        from semisparse.eval.boxes import draw_boxes
        from semisparse.eval.picture import Point, draw

        directory.mkdir(parents=True, exist_ok=True)
        with replace_atomically(directory / "detect.json") as file:
            file.write(json.dumps(result.as_dict(), indent=1).encode())
        points = []
        for row in result.rows:
            latency = result.races[row.size].comparison.latency[row.key]
            points.append(
                Point(row.key, row.sparse, latency.median, latency.p10, latency.p90, row.converted[1])
            )
        sparse = next((r for r in result.rows if r.sparse), None)
        masks = self.networks[sparse.network].at((sparse.size,) * 2).column_masks() if sparse else {}
        threads = "1 thread" if self.args.threads == 1 else f"{self.args.threads} threads"
        draw(
            directory / "detect.png",
            "YOLO detection, dense against sparse",
            masks,
            points,
            subtitle=f"batch 1, {threads}, {result.machine['cpu name']}, {result.machine['kernels']}",
            latency_label="median latency of the network, ms (bars: 10th to 90th percentile)",
            accuracy_label="mAP50-95, %",
        )
        size = self.sizes[0], self.sizes[0]
        found = {
            row.network: [
                Detector(self.networks[row.network], confidence=self.args.confidence)(picture, size)
                for picture in self.pictures
            ]
            for row in result.rows
            if row.size == size[0]
        }
        draw_boxes(directory / "boxes.png", self.pictures, found)
        return [directory / name for name in ("detect.json", "detect.png", "boxes.png")]


def _stages(
    detector: Detector, pictures: Sequence[np.ndarray], size: tuple[int, int]
) -> dict[str, Callable[[], object]]:
    """What happens to a picture, in parts; each call takes the next picture."""
    inputs = [detector.preprocess(picture, size) for picture in pictures]
    network: SizedModel = detector.network
    with torch.inference_mode():
        outputs = [(network(x), placement) for x, placement in inputs]
    first, second, third = itertools.cycle(pictures), itertools.cycle(inputs), itertools.cycle(outputs)
    return {
        "preprocessing": lambda: detector.preprocess(next(first), size),
        "network": lambda: network(next(second)[0]),
        "nms": lambda: detector.postprocess(*next(third)),
    }


def _name(run: str) -> str:
    path = Path(run).resolve()
    if path.suffix == ".pt":  # runs/name/weights/best.pt is the run's, anything else its own
        return path.parent.parent.name if path.parent.name == "weights" else path.stem
    return path.name


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} classes ({', '.join(names[:3])}{'...' if len(names) > 3 else ''})"


def _removed(row: Row) -> str:
    return f"-{100 * row.macs_removed:.1f}%" if row.sparse else "all"


def _pair(values: tuple[float, float] | None) -> list[str]:
    return ["", ""] if values is None else [f"{value:.2f}" for value in values]


if __name__ == "__main__":
    main()
