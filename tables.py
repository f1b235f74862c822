"""Print the scores of finished runs as Markdown tables, for the README or a paper.

    python tables.py run [run ...] [--scores psnr ssim ...]

A row for each network, named after its model and the run's folder, and for each training-free
method; a method that has the same scores in several runs, because data and masks are the same, has
one row. A table for each acceleration. Then what each network has above the best training-free
method of its run, and what is kept of lesions, where these were tested.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import report
from baselines import BASELINES
from comparison import COMPARED, advantages, difference_text
from errors import InputError
from lesion import DIAMETERS
from lesion_score import summary
from metrics import SCORES
from settings import Parser

TITLES = {
    "loss": "MSE",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM (3-D)",
    "ssim_2d": "SSIM (2-D)",
    "nmse": "NMSE",
    "moving_psnr": "moving PSNR (dB)",
}
DIGITS = {"loss": 5, "psnr": 2, "ssim": 3, "ssim_2d": 3, "nmse": 4, "moving_psnr": 2}
SHOWN = ("psnr", "ssim", "ssim_2d", "moving_psnr")


def score_tables(folders: Sequence[Path], scores: Sequence[str] = SHOWN) -> list[str]:
    """Lines of Markdown: a table for each acceleration, best PSNR first."""
    by_acc: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for folder, name in named(folders):
        for (acc, label), columns in columns_of(name, report.read_metrics(folder)).items():
            methods = by_acc.setdefault(acc, {})
            if label in methods and not same(methods[label], columns):
                label = f"{label}, {name}"  # the same method on other data or masks
            methods[label] = columns
    lines = []
    for acc, methods in sorted(by_acc.items(), key=lambda item: float(item[0])):
        lines += ["", f"Acceleration {float(acc):g}:", ""] if len(by_acc) > 1 else []
        lines.append("| method | " + " | ".join(TITLES[name] for name in scores) + " |")
        lines.append("|---" * (1 + len(scores)) + "|")
        ranked = sorted(methods.items(), key=lambda item: -item[1]["psnr"].mean())
        for label, columns in ranked:
            cells = [report.mean_and_spread(columns[name], DIGITS[name]) for name in scores]
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return lines


def named(folders: Sequence[Path]) -> list[tuple[Path, str]]:
    """The folders, each with a name that no other has."""
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    return list(zip(folders, names, strict=True))


def advantage_table(folders: Sequence[Path]) -> list[str]:
    """Lines of Markdown: each network less the best training-free method of its run, with the 95 %
    interval; none where there is nothing to compare."""
    cells: dict[tuple[str, float], list[str]] = {}
    for folder, name in named(folders):
        groups = report.read_config(folder)["data"].get("groups")
        for found in advantages(report.read_metrics(folder), groups):
            told = f"{difference_text(found, DIGITS[found.score])} (`{found.best}`)"
            cells.setdefault((f"`{found.network}`, {name}", found.acc), []).append(told)
    if not cells:
        return []
    heads = ["above the best training-free method", "acceleration"]
    heads += [TITLES[score] for score in COMPARED]
    lines = ["", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for (network, acc), differences in cells.items():
        lines.append(f"| {network} | {acc:g} | " + " | ".join(differences) + " |")
    return lines


def lesion_tables(folders: Sequence[Path]) -> list[str]:
    """Lines of Markdown: what each method keeps of lesions; none where they were not tested."""
    lines = []
    for folder, name in named(folders):
        found = summary(report.read_lesions(folder))
        if found:
            sizes = " | ".join(f"{diameter:g} pixels" for diameter in DIAMETERS)
            lines += ["", f"| lesions, {name}: kept, least, ghost | {sizes} |"]
            lines.append("|---" * (1 + len(DIAMETERS)) + "|")
        for method, kept in found.items():
            cells = [str(kept.get(diameter, "-")) for diameter in DIAMETERS]
            lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
    return lines


def columns_of(
    run: str, rows: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """{(acceleration, label): {score: values of the test samples}} of the run named `run`."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in rows:
        method = f"`{row['method']}`"
        label = method if row["method"] in BASELINES else f"{method}, {run}"
        columns = found.setdefault((row["acc"], label), {name: [] for name in SCORES})
        for score in SCORES:
            columns[score].append(row[score])
    return {
        key: {name: np.array(values) for name, values in columns.items()}
        for key, columns in found.items()
    }


def same(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> bool:
    """Whether two methods have the same scores, to the digits that are stored."""
    return all(
        first[name].shape == second[name].shape
        and np.allclose(first[name], second[name], rtol=1e-4, equal_nan=True)
        for name in SCORES
    )


def main() -> int:
    parser = Parser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--scores", nargs="+", choices=list(SCORES), default=list(SHOWN))
    arguments = parser.parse_args()
    try:
        lines = score_tables(arguments.runs, arguments.scores)
        lines += advantage_table(arguments.runs) + lesion_tables(arguments.runs)
        print("\n".join(lines).strip())
    except InputError as error:
        print(f"tables.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
