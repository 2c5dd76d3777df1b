"""Where a training is written down while it runs."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from lpips_sat.backbones import runs

from .cards import CURVE


class Log:
    """Where a run is written down: two tables, and TensorBoard."""

    def __init__(self, out: Path, start: int) -> None:
        self.out, self.table = out, out / CURVE
        self.board = SummaryWriter(str(out), purge_step=start)
        if self.table.exists():  # rows of steps that are run again
            head, *rows = self.table.read_text().splitlines(keepends=True)
            kept = [row for row in rows if int(row.split(",")[0]) < start]
            self.table.write_text("".join([head, *kept]))

    def step(self, step: int, logs: dict[str, float]) -> None:
        """One row per step."""
        runs.log_step(self.out, step, logs)
        for name, value in logs.items():
            if not math.isnan(value):  # the network and its adversary take turns
                self.board.add_scalar(f"train/{name}", value, step)

    def close(self) -> None:
        """End the thread that writes for TensorBoard."""
        self.board.close()

    def validation(self, step: int, psnr: float, bicubic: float) -> None:
        """One row per look at the validation set."""
        new = not self.table.exists()
        with self.table.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(["step", "psnr", "bicubic"])
            writer.writerow([step, f"{psnr:.4f}", f"{bicubic:.4f}"])
        self.board.add_scalar("validation/psnr", psnr, step)
        self.board.flush()
