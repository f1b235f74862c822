import pytest

from ablation.groups import CASCADE, GROUPS, MEMORY, width_matching
from model import MODELS, architecture_settings, build_model
from train import train
from util.settings import defaults_of

DEFAULTS = defaults_of(train)


def effective(group: str, row: str) -> dict:
    return DEFAULTS | GROUPS[group].base | GROUPS[group].rows[row]


def n_parameters(model: str, **changes) -> int:
    settings = DEFAULTS | changes
    network = build_model(model, **{name: settings[name] for name in architecture_settings(model)})
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", [name for name in GROUPS if name != MEMORY])
def test_every_row_differs_from_its_control_in_one_setting(name):
    group = GROUPS[name]
    control = effective(name, group.control)
    for row in group.rows:
        changed = [k for k, v in effective(name, row).items() if v != control[k]]
        if row == "5, 11 centre lines":  # the mask of other published scores
            assert changed == ["acc", "sample_n"]
        elif row == "equispaced, no centre":  # beside the same with its centre
            assert changed == ["pattern", "sample_n"]
        elif row == "cascade":  # which weight decay would hold at its start
            assert set(changed) == set(CASCADE)
            assert CASCADE["weight_decay"] == 0
        elif name == "start" and row != group.control:  # each with and without
            assert changed in (["start"], ["data_consistency"], ["data_consistency", "start"])
        else:
            assert len(changed) == (row != group.control), (row, changed)


def test_every_row_names_settings_of_train():
    for group in GROUPS.values():
        for changes in (group.base, *group.rows.values()):
            assert changes.keys() <= DEFAULTS.keys()


def test_the_reference_table_has_its_labels():
    assert list(GROUPS["base"].rows) == [
        "without optimisation", "weight decay", "dropout", "dynamic learning rate"
    ]  # fmt: skip
    control = effective("base", "without optimisation")
    assert (control["model"], control["lr_schedule"]) == ("unet", "constant")
    assert control["weight_decay"] == control["dropout"] == 0
    assert effective("base", "dropout")["dropout"] == 0.3
    assert effective("base", "weight decay")["weight_decay"] == 1e-4


@pytest.mark.parametrize("features", [4, 8])
def test_the_wider_unet_has_at_least_the_parameters_of_unet_resnet(features):
    width = width_matching(DEFAULTS | {"init_features": features})
    both = n_parameters("unet_resnet", init_features=features)
    assert n_parameters("unet", init_features=width) >= both
    assert n_parameters("unet", init_features=width - 1) < both


def test_memory_is_measured_for_every_model_batch_and_checkpointing():
    rows = [effective(MEMORY, row) for row in GROUPS[MEMORY].rows]
    found = {(s["model"], s["batch_size"], s["gradient_checkpointing"]) for s in rows}
    assert found == {(m, b, c) for m in MODELS for b in (1, 10) for c in (False, True)}
    assert all(s["n_samples"] == sum(s["split"]) for s in rows)  # ten to train on
