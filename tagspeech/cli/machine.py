"""The machine: where processes compute; verbs about its GPUs and what a recipe would take on it."""

from __future__ import annotations

import argparse
import logging
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tagspeech.cli.arguments import ConfigOptions, verb
from tagspeech.options import option
from tagspeech.ranges import Count, NonNegative

if TYPE_CHECKING:
    from tagspeech.llm.place import Place

log = logging.getLogger(__name__)

JOBS = "processes that share the work on a CPU; on GPUs, one for each"


def sharing_processes(device: str, jobs: int) -> int:
    """In how many processes the work of a stage is shared, unless torchrun says it; logs it.

    Args:
        device: auto or cuda: a process for each GPU of the machine, if it has any; cpu: `jobs`.
            Another device is used by one process.
        jobs: Processes on a CPU.
    """
    import torch

    if device not in ("auto", "cpu", "cuda"):
        return 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        log.info("computing in the %s processes of torchrun", os.environ["WORLD_SIZE"])
        return 1
    processes, places = jobs, "processes of the CPU"
    if training_place(device).device.type == "cuda":
        processes, places = torch.cuda.device_count(), "GPUs; --jobs counts processes on a CPU"
    if processes > 1:
        log.info("sharing the work: %d %s", processes, places)
    return processes


def training_place(device: str) -> Place:
    """Where the first process computes; --device cpu hides the GPUs from all processes."""
    import torch

    from tagspeech.llm.place import Place, find_device

    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # read by this process's first use of CUDA
    return Place(find_device(device), torch.float32, device != "auto")


@verb("gpus")
class CountGPUs:
    """Prints the number of GPUs that torch can use here."""

    def run(self) -> None:
        import torch

        print(torch.cuda.device_count())


def _three_hours(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3) or not all(0 < number < math.inf for number in numbers):
        raise argparse.ArgumentTypeError(f"must be hours such as 66 or 66,7.6,7.3, got {text!r}")
    return numbers


@verb("plan")
class Plan(ConfigOptions):
    """Prints what each stage of a recipe takes, reckoned from its configuration; measures nothing.

    Constants are of GPUs with 80 GB such as an H100, and of one CPU core.
    """

    hours: tuple[NonNegative, ...] = option(
        "hours of utterance groups in train, dev and test; of dev and test: 11 % of train",
        (66.0,),
        metavar="TRAIN[,DEV,TEST]",
        parse=_three_hours,
    )
    groups: Path | None = option("folder of stage 2, whose hours are counted instead", None)
    gpus: Count | None = option("GPUs of the machine", None, shown="as many as torch finds here")
    form: str = option(
        "table; markdown; lines: a line for each stage",
        "table",
        choices=("table", "markdown", "lines"),
    )

    def run(self) -> None:
        import torch

        from tagspeech.report.plan import SPLIT, hours_of, plan, render

        hours = tuple(hours_of(self.groups).values()) if self.groups else self.hours
        if len(hours) == 1:
            hours = (hours[0], SPLIT * hours[0], SPLIT * hours[0])
        gpus = torch.cuda.device_count() if self.gpus is None else self.gpus
        stages = plan(self.load(), gpus, hours[0], dev_hours=hours[1], test_hours=hours[2])
        if self.form == "lines":
            for stage in stages:
                print(f"{stage.number}:\t{stage.line()}")
            return
        print(render(stages, gpus, self.form == "markdown"))
        if self.form == "table":
            print("\nreckoned, not measured: docs/plan.md has the formulas")
