import re
from types import SimpleNamespace

from helpers import sampling

from CS_mask import Condition, Sampling, evaluation_masks
from data.acquisition import Noise
from report.acquisition import mask_line, simulation_lines
from report.description import baseline_lines
from report.limits import decay_warning, remedies

TUNED = {
    Condition("gaussian", 4): {
        "zero_filled": {},
        "low_rank_sparse": {"low_rank": 0.2, "sparse": 0.04},
    }
}


def test_parameters_of_the_baselines_with_where_they_come_from():
    (line,) = baseline_lines(TUNED, [0, 1, 2, 3, 7])
    assert line.startswith(
        "low_rank_sparse, acceleration 4: low_rank 0.2, sparse 0.04 (the best that a search"
    )
    assert line.endswith("on training samples 0, 1, 2, 3 found; beyond its grid in low_rank)")
    (line,) = baseline_lines(TUNED, [])
    assert "usual values" in line


def test_a_mask_in_numbers():
    masks = evaluation_masks(range(3), (20, 192), sampling(6, 10), data_seed=0)
    line = mask_line(masks, sampling(6, 10), band=(0, 192))
    assert line.startswith("Cartesian, gaussian: 32 of 192 lines a frame (16.7%), 10 of them the")
    assert re.search(r"centre, 2\d% of the lines in no frame; nominal", line)
    assert "nominal acceleration 6, actual 6, and 3.9" in line  # twice as many distinct lines
    assert "WARNING" not in line
    masks = evaluation_masks(range(3), (20, 96), sampling(4, 10), data_seed=0)
    line = mask_line(masks, sampling(4, 10), band=(24, 72))  # zero-padded to twice its size
    assert float(re.search(r"WARNING: (.*) among the lines with energy", line)[1]) < 3


def test_what_is_said_of_masks_is_counted_in_them():
    masks = evaluation_masks(range(3), (20, 192), sampling(6, 10), data_seed=0)
    masks[0, 0, 0] = 1 - masks[0, 0, 0]  # one frame has another number of lines
    assert re.match(
        r".*: (31 to 32|32 to 33) of 192", mask_line(masks, sampling(6, 10), band=(0, 192))
    )
    masks[1, 5, 96] = 0
    assert ", 5 of them the centre" in mask_line(masks, sampling(6, 10), band=(0, 192))


def test_lines_of_other_patterns_are_counted():
    static = Sampling(("equispaced_static",), (6, 6), (10,), (0.75,))
    line = mask_line(evaluation_masks(range(3), (20, 192), static, 0), static, band=(0, 192))
    assert line.startswith("Cartesian, equispaced_static, 0.75 partial Fourier: 33 of 192")
    assert "11 of them the centre, the same in all frames; nominal acceleration 6, actual " in line
    shifted = Sampling(("equispaced",), (6, 6), (0,))
    line = mask_line(evaluation_masks(range(3), (20, 192), shifted, 0), shifted, band=(0, 192))
    assert ": 32 of 192 lines a frame (16.7%), 0 of them the centre, 0% of the lines in no" in line


def test_phase_and_noise_are_named_only_if_they_are_added():
    assert simulation_lines(False, Noise.of(0.0), coils=None) == []
    both = simulation_lines(True, Noise.of((0.005, 0.03)), coils=None)
    assert len(both) == 2
    assert "standard deviation 0.005 to 0.03 in real" in both[1]
    assert "of each coil" in simulation_lines(True, Noise.of(0.005), coils=8)[1]


def test_weight_decay_of_a_cascade_is_warned_of():
    assert "--weight-decay 0" in decay_warning("cascade", 1e-4)[0]
    assert decay_warning("cascade", 0.0) == decay_warning("unet", 1e-4) == []


def test_what_helps_is_what_a_run_lacks():
    def helping(n_coils=None, **settings):
        given = {"model": "unet", "start": "patch", "data_consistency": True}
        given |= {"initial_weights": None, "real_image": True, "calibrate": True}
        return remedies(SimpleNamespace(**given | settings), n_coils)

    cascade, longer = helping()
    assert helping(start="kt_sparse")[0] == "--start patch"
    assert "@recipes/cascade.txt --initial-weights cascade_phantom)" in cascade
    assert longer == "longer training"
    assert helping(calibrate=False) == ["--calibrate", cascade, longer]
    assert helping(data_consistency=False)[0] == "--data-consistency"
    both = helping(start="zero_filled", data_consistency=False)
    assert both[0] == "--start patch --data-consistency"
    assert "cascade_phantom_complex)" in helping(real_image=False)[0]
    assert "cascade_phantom_coils)" in helping(8, real_image=False)[0]
    assert helping(model="cascade", initial_weights="phantom") == ["longer training"]
