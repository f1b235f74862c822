"""The numbers of all tables: the scores of methods by pattern and acceleration, and which is best.

A row of scores is a dict: `sample`, `pattern`, `acc`, `method`, and the scores
(`evaluation/scoring.py`). A score that is absent, because it could not be computed or an older file
lacks it, is NaN.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from CS_mask import Condition
from evaluation.held_out import HELD_OUT, WITHOUT_TRUTH, score_named
from methods.baselines import BASELINES
from metrics import SCORES, Score

Rows = Sequence[Mapping[str, Any]]
Columns = dict[str, np.ndarray]  # values of the samples by score


def scores_in(rows: Rows) -> Mapping[str, Score]:
    """The scores that rows have: those against the truth, or those without it."""
    return WITHOUT_TRUTH if rows and HELD_OUT in rows[0] else SCORES


def main_score(rows: Rows) -> str:
    """The score by which methods are ranked: "psnr", or that of held-out lines."""
    return HELD_OUT if scores_in(rows) is WITHOUT_TRUTH else "psnr"


def columns_of(rows: Rows) -> dict[str, Columns]:
    """{method: {score: values (n,)}}, in the order of the rows."""
    by_method: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_method.setdefault(row["method"], []).append(row)
    return {
        method: {name: np.array([row[name] for row in group]) for name in scores_in(rows)}
        for method, group in by_method.items()
    }


def condition_of(row: Mapping[str, Any]) -> Condition:
    """The pattern and the acceleration of a row."""
    acc = row["acc"]
    return Condition(row.get("pattern") or None, float(acc) if acc not in (None, "") else None)


def by_condition(rows: Rows) -> dict[Condition, Rows]:
    """The rows of each pattern and acceleration."""
    result: dict[Condition, list[Mapping[str, Any]]] = {}
    for row in rows:
        result.setdefault(condition_of(row), []).append(row)
    return dict(result)


def titles_of(conditions: Iterable[Condition]) -> dict[Condition, str]:
    """Each condition in words, with its pattern if there are several."""
    known = list(conditions)
    several = len({condition.pattern for condition in known}) > 1
    return {condition: condition.title(with_pattern=several) for condition in known}


def mean_scores(rows: Rows) -> dict[str, dict[str, float]]:
    """{method: {score: mean over the rows of that method}}."""
    return {
        method: {name: float(values.mean()) for name, values in columns.items()}
        for method, columns in columns_of(rows).items()
    }


def means_of(rows: Rows, score: str | None = None) -> dict[str, float]:
    """{method: mean of a score}, the best first and absent ones last; None: the main score."""
    score = score or main_score(rows)
    means = {method: scores[score] for method, scores in mean_scores(rows).items()}
    sign = -1 if score_named(score).higher_is_better else 1
    ranked = sorted(means, key=lambda name: np.nan_to_num(sign * means[name], nan=np.inf))
    return {name: means[name] for name in ranked}


def best_baseline(rows: Rows, score: str | None = None) -> str | None:
    """The training-free method with the best mean of a score; None if there is none. Of the main
    score, if none is named."""
    score = score or main_score(rows)
    means = means_of(rows, score)
    return next((name for name in means if name in BASELINES and means[name] == means[name]), None)


def networks_of(rows: Rows) -> list[str]:
    """The methods that are not training-free, in the order of the rows."""
    return [name for name in columns_of(rows) if name not in BASELINES]


def n_samples_of(rows: Rows) -> int:
    """The number of samples that were scored."""
    return len({row["sample"] for row in rows})
