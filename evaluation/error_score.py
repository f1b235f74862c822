"""What error maps of a network and of a training-free method are worth on the test part."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.batches import Batch, EvaluationBatches
from evaluation.by_sample import Row, rows_by_sample
from evaluation.error_map import (
    ErrorMap,
    conformal_factor,
    error_map,
    held_bound,
)
from methods.baselines import Method
from metrics import moving_region
from util.world import ALONE, World

FEWEST = 19  # patients of a calibration, of whose pixels 95 % must then be within the bound
REGIONS = ("still", "moving")
QUANTILES = 1000  # of the errors over the expected ones, by which a factor is found
QUANTILES_AT = (np.arange(QUANTILES) + 0.5) / QUANTILES
HIGHEST = 1e4  # factor


@dataclass(frozen=True)
class MappedMethods:
    """A network and a training-free method, whose error maps are made from one another."""

    methods: Mapping[str, Method]  # the network, then the training-free method
    is_real: bool  # a line determines its conjugate-symmetric partner
    seed: int  # of the lines that are held out
    # of the bounds, by method; those of phantoms, unless they were calibrated
    factors: Mapping[str, float] = field(default_factory=dict)

    @torch.no_grad()
    def maps(self, batch: Batch) -> dict[str, tuple[Tensor, ErrorMap]]:
        """The magnitude (T, Y, X) of one sample by each method, on the CPU, and its error map."""
        images = {name: one(*batch.measured)[0].abs().cpu() for name, one in self.methods.items()}
        found = {}
        for name, other in zip(images, reversed(images.values()), strict=True):
            method, factor = self.methods[name], self.factors.get(name)
            pair = images[name], other
            made = error_map(method, *pair, 1.0, batch, self.is_real, self.seed, factor)
            found[name] = images[name], made
        return found


def calibrated_factors(
    mapped: MappedMethods,
    batches: EvaluationBatches,
    groups: np.ndarray | None,
    world: World = ALONE,
    **how: Any,
) -> dict[str, float]:
    """The factors of the bounds by validation samples; none for fewer than `FEWEST` patients. A
    region that fewer of them have, as they do not move, is left out.

    Args:
        batches: of one sample each.
        groups: patient of each sample of the data; None: each sample is one of its own.
        world, how: of `rows_by_sample`.
    """
    patient_of = {i: i if groups is None else groups[i] for i in batches.samples}
    if len(set(patient_of.values())) < FEWEST:
        return {}

    def ratios(batch: Batch) -> tuple[list[Row], None]:
        rows = []
        for name, (images, found) in mapped.maps(batch).items():
            ratio = (images - batch.target[0].cpu()).abs() / found.expected
            for region, inside in regions_of(batch.target[0].cpu()).items():
                if not inside.any():
                    continue
                values = np.quantile(ratio[:, inside].numpy(), QUANTILES_AT).clip(max=HIGHEST)
                row = {"sample": batch.samples[0], "method": name, "region": region}
                rows.append(row | {"ratios": values.tolist()})
        return rows, None

    names = list(mapped.methods)
    test = "error maps, validation"
    rows = rows_by_sample(ratios, batches, test, names, world=world, **how)
    factors: dict[str, float] = {}
    for name, region in itertools.product(names, REGIONS):
        own = [row for row in rows if (row["method"], row["region"]) == (name, region)]
        patients = np.array([patient_of[row["sample"]] for row in own])
        if len(np.unique(patients)) >= FEWEST:
            missed = partial(share_beyond, np.array([row["ratios"] for row in own]), patients)
            factor = conformal_factor(missed, highest=HIGHEST)
            factors[name] = max(factor, factors.get(name, 0.0))
    return world.from_first(factors)


def share_beyond(ratios: np.ndarray, patients: np.ndarray, factor: float) -> np.ndarray:
    """The share above a factor of the ratios (n, QUANTILES) of n series, the mean over those of
    each patient."""
    shares = (ratios > factor).mean(axis=1)
    return np.array([shares[patients == one].mean() for one in np.unique(patients)])


def regions_of(images: Tensor) -> dict[str, Tensor]:
    """The moving region of images (T, Y, X) and the rest, (Y, X) bool."""
    moving = moving_region(images[None])[0]
    return dict(zip(REGIONS, (~moving, moving), strict=True))


def error_rows(mapped: MappedMethods, batches: EvaluationBatches, **how: Any) -> list[Row]:
    """Rows for `error_map.csv`: the bound of each method in each sample, a mean over the pixels of
    a region, and if the truth is known, what it held and the error. Without a truth the regions are
    those of the network's images.

    `how`: the other arguments of `rows_by_sample`, whose `on_sample` gets the map of the network.
    """
    condition = batches.acquisition.sampling.condition._asdict()

    def of_sample(batch: Batch) -> tuple[list[Row], ErrorMap]:
        found = mapped.maps(batch)
        (reconstruction, of_network), *_ = found.values()
        truth = None if batch.image is None else batch.target[0].cpu()
        regions, rows = regions_of(reconstruction if truth is None else truth), []
        for name, (images, one) in found.items():
            row: Row = {"sample": batch.samples[0], **condition, "method": name}
            row["factor"] = one.factor
            for region, inside in regions.items():
                row[f"bound_{region}"] = one.bound[:, inside].mean().item()
            if truth is not None:
                held, error = held_bound(one, images, truth), (images - truth).abs()
                row["correlation"] = held.correlation
                for region, inside in regions.items():
                    row[f"held_{region}"] = getattr(held, region)
                    row[f"error_{region}"] = error[:, inside].mean().item()
            rows.append(row)
        return rows, of_network

    return rows_by_sample(of_sample, batches, "error maps", list(mapped.methods), **how)
