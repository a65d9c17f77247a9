"""How long the command line takes to answer: `python -m benchmarks.startup`. No GPU is used."""

import argparse
import statistics
import subprocess
import sys
import time

from benchmarks.report import ROOT, save, table

COMMANDS = {
    "train.py --cfg job": [str(ROOT / "train.py"), "--cfg", "job"],
    "train.py --help": [str(ROOT / "train.py"), "--help"],
    "train.py timestep=4 (error)": [str(ROOT / "train.py"), "timestep=4"],
    "import hydra (floor)": ["-c", "import hydra"],
}


def main() -> None:
    """Interleaved rounds, medians; writes benchmarks/results/<kind>/startup.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(args.rounds):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], capture_output=True)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    table(["command", "median s"], [[name, f"{value:.2f}"] for name, value in medians.items()])
    save("startup", {**vars(args), "median_s": medians, "all_s": seconds}, on_cpu=True)


if __name__ == "__main__":
    main()
