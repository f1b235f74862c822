import pytest

from methods.averaging import average_name
from methods.baselines import BASELINES, Baseline, zero_filled
from methods.calibration import calibrated_name
from model import MODELS
from report.names import WORDS, in_words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("kt_sparse", "k-t sparse"),
        ("patch_low_rank", "patch low rank"),
        ("zero_filled", "zero-filled"),
        ("cascade", "cascade"),
        (calibrated_name("cascade"), "calibrated cascade"),
        (calibrated_name("cascade_adapted"), "calibrated adapted cascade"),
        (average_name(calibrated_name("cascade"), 8), "calibrated cascade, mean of 8"),
        ("net <1>", "net <1>"),
    ],
)
def test_methods_have_names_in_words(name, words):
    assert in_words(name) == words


def test_every_method_has_words_and_no_word_is_of_none():
    assert not any("_" in in_words(name) for name in [*BASELINES, *MODELS])
    assert WORDS.keys() <= {*BASELINES, *MODELS}


def test_a_method_of_the_users_has_words(monkeypatch):
    monkeypatch.setitem(BASELINES, "my_own", Baseline(zero_filled, real_image=False))
    assert in_words("my_own") == "my own"


def test_a_text_keeps_its_flags_and_files():
    text = "unet minus kt_sparse (view_sharing). Try @recipes/unet.txt, run-kt_sparse, unet/a"
    words = "U-Net minus k-t sparse (view sharing). Try @recipes/unet.txt, run-kt_sparse, unet/a"
    assert in_words(text) == words
    assert in_words("`unet`, unet", count=1) == "`U-Net`, unet"
    assert in_words("cascade_phantom and my_unet_resnet") == "cascade_phantom and my_unet_resnet"
