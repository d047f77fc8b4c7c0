"""Time candidates against each other, each in its own process, interleaved.

Engines disturb each other inside one process: idle threads spin and steal the next one's core, allocators and
OpenMP runtimes are shared. So each candidate has its own process, pinned to the same cores, and every process
but the one being timed is stopped (SIGSTOP): spinning threads cost nothing, and no engine has to be told not
to spin.
"""

from __future__ import annotations

import json
import math
import os
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from semisparse.eval.peers.candidates import TUNING, Candidate, write
from semisparse.eval.peers.cores import choose_cores
from semisparse.eval.peers.engines import engine
from semisparse.latency import Comparison, Latency, random_input

# A visit costs a process switch and cold caches: longer than in `latency.compare`.
BURST_SECONDS = 60e-3
TOLERANCE = 1e-2  # of the outputs, over the largest; float32 Winograd stays below 1e-3
BUILD_SECONDS = 600  # for conversion and compilation of one candidate


@dataclass(frozen=True)
class Race:
    """What a race found.

    Attributes:
        comparison: latencies of the candidates that ran, by label.
        engines: engine of each candidate that ran, by label.
        differences: by label, largest |output - model's output in torch| over the largest |output|.
        missing: why the others did not run, by label.
    """

    comparison: Comparison
    engines: dict[str, str]
    differences: dict[str, float]
    missing: dict[str, str]

    def fastest(self, *, among: Sequence[str] | None = None) -> str | None:
        """Label with the lowest median, of the candidates on the engines `among` (default: all); None if none
        ran."""
        labels = [x for x in self.comparison.latency if among is None or self.engines[x] in among]
        return min(labels, key=lambda label: self.comparison.latency[label].median, default=None)

    def as_dict(self) -> dict:
        """For JSON."""
        return {
            **self.comparison.as_dict(),
            "rounds_ms": self.comparison.rounds,
            "engines": self.engines,
            "differences": self.differences,
            "missing": self.missing,
        }


def race(
    candidates: Sequence[Candidate],
    example: Tensor,
    *,
    threads: int = 1,
    rounds: int = 20,
    progress: Callable[[str], object] = lambda text: None,
) -> Race:
    """Build every candidate, then time them in interleaved rounds.

    Each round visits every candidate once, starting from a different one each time: one untimed call, then
    single calls for about 60 ms, at least three.

    Args:
        example: (N, C, H, W) float32; only its shape counts, the data are `random_input`.
        threads: of each engine; processes are pinned to as many physical cores.
        rounds: visits per candidate.
        progress: is told what happens, one line at a time.

    Returns:
        A `Race`. Candidates whose engine is not installed, fails, or computes something else are in
        `missing`.

    Raises:
        ValueError: no candidate, equal labels, an unknown engine, a count below 1, or a model that
            torch.export cannot capture.
    """
    labels = [candidate.label for candidate in candidates]
    if not candidates or len(set(labels)) < len(labels):
        raise ValueError(f"a race needs candidates with different labels, got {labels}")
    if rounds < 1 or threads < 1:
        raise ValueError(f"rounds and threads must be at least 1, got {rounds} and {threads}")
    for candidate in candidates:
        engine(candidate.engine)
    example = random_input(*example.shape)  # what the processes make up, too
    missing: dict[str, str] = {}
    differences: dict[str, float] = {}
    workers: dict[str, _Worker] = {}
    started: list[_Worker] = []
    with tempfile.TemporaryDirectory(prefix="semisparse-race-") as scratch:
        try:
            models: dict[nn.Module, Path] = {}
            for index, candidate in enumerate(candidates):
                progress(f"preparing {candidate.label}")
                if candidate.model not in models:
                    models[candidate.model] = _directory(scratch, f"model{len(models)}")
                    write(candidate.model, example, models[candidate.model])
                own = _directory(scratch, f"candidate{index}")
                for file in models[candidate.model].iterdir():
                    os.link(file, own / file.name)
                if candidate.tuning is not None:
                    shutil.copy(candidate.tuning, own / TUNING)
                worker = _Worker(candidate.engine, own, threads, tuple(example.shape))
                started.append(worker)
                reply = worker.reply(BUILD_SECONDS)
                if "failed" not in reply and not reply["difference"] <= TOLERANCE:
                    reply["failed"] = (
                        f"computes something else: differs by {reply['difference']:.1e} from torch"
                    )
                if "failed" in reply:
                    worker.close()
                    missing[candidate.label] = _reason(candidate.engine, reply)
                    progress(f"{candidate.label}: {missing[candidate.label]}")
                    continue
                differences[candidate.label] = reply["difference"]
                worker.pause()
                workers[candidate.label] = worker
            seconds, medians = _rounds(workers, rounds, missing, progress)
        finally:
            for worker in started:
                worker.close()
    latency = {label: Latency.of(values) for label, values in seconds.items()}
    engines = {c.label: c.engine for c in candidates if c.label in latency}
    kept = {label: differences[label] for label in latency}
    return Race(Comparison(latency, medians, threads), engines, kept, missing)


def _rounds(workers: dict, rounds: int, missing: dict, progress) -> tuple[dict, dict]:
    seconds: dict[str, list[float]] = {label: [] for label in workers}
    medians: dict[str, list[float]] = {label: [] for label in workers}
    calls: dict[str, int] = {}
    # Two visits before the first round say how many calls fill a burst.
    for round_ in range(-2, rounds):
        names = list(seconds)
        if not names:
            break
        progress(f"round {round_ + 1} of {rounds}" if round_ >= 0 else "warming up")
        shift = round_ % len(names)
        for label in names[shift:] + names[:shift]:
            reply = workers[label].run(calls.get(label, 3))
            if "failed" in reply:
                missing[label] = reply["failed"]
                del seconds[label], medians[label]
            elif round_ < 0:
                calls[label] = max(3, math.ceil(BURST_SECONDS / min(reply["seconds"])))
            else:
                seconds[label] += reply["seconds"]
                medians[label].append(1e3 * statistics.median(reply["seconds"]))
    return seconds, medians


class _Worker:
    """A candidate's process; see `semisparse.eval.peers.worker` for what is said over the pipes."""

    def __init__(self, engine: str, directory: Path, threads: int, shape: tuple[int, ...]):
        self.log = directory / "log.txt"
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }
        cores = ",".join(map(str, choose_cores(threads)))
        arguments = [engine, str(directory), str(threads), cores, ",".join(map(str, shape))]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "semisparse.eval.peers.worker", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
            )

    def run(self, calls: int) -> dict:
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.write(f"{calls}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            return self._ended()
        reply = self.reply(BUILD_SECONDS)
        if "failed" not in reply:
            self.pause()
        return reply

    def reply(self, seconds: float) -> dict:
        """The next line that the process says, or {"failed": reason}."""
        line = b""
        deadline = time.monotonic() + seconds
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                return {"failed": f"no answer within {seconds:.0f} s{self._last_words()}"}
            part = os.read(self.process.stdout.fileno(), 1 << 16)
            if not part:
                return self._ended()
            line += part
        return json.loads(line)

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def _ended(self) -> dict:
        code = self.process.wait()
        how = f"was ended by signal {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return {"failed": f"its process {how}{self._last_words()}"}

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f"; it last said: {lines[-1]:.300}" if lines else ""


def _reason(name: str, reply: dict) -> str:
    remedy = f" (pip install {' '.join(engine(name).PACKAGES)})" if reply.get("missing") else ""
    return " ".join(reply["failed"].split())[:600] + remedy


def _directory(parent: str, name: str) -> Path:
    path = Path(parent) / name
    path.mkdir()
    return path
