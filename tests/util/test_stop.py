import signal
import threading

import pytest

from util.errors import Interrupted
from util.stop import NEVER, StopRequest


def test_signals_are_noted_and_handlers_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.requested()
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested()
        assert stop.reason == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.fixture
def ctrl_c():
    """SIGINT as in a terminal, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_second_ctrl_c_interrupts_at_once():
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_time_is_up():
    with StopRequest(1e-9) as stop:
        assert stop.requested()
        assert stop.reason == "max_minutes"
    with StopRequest(60) as stop:
        assert not stop.requested()


def test_works_outside_the_main_thread():
    results = []

    def work():
        with StopRequest() as stop:
            results.append(stop.requested())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [False]


def test_check_raises_with_the_way_to_continue():
    NEVER.check("while testing")
    with (
        StopRequest(1e-9, "python train.py out --resume") as stop,
        pytest.raises(Interrupted) as error,
    ):
        stop.check("while testing")
    assert str(error.value) == (
        "stopped by max_minutes while testing; continue with: python train.py out --resume"
    )


def test_a_handler_that_python_did_not_set_is_replaced_by_the_default():
    before = signal.getsignal(signal.SIGTERM)
    try:
        with StopRequest() as stop:
            stop.previous[signal.SIGTERM] = None
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_time_limit_waits_for_progress_and_a_signal_does_not():
    with StopRequest(1e-9, after_progress=True) as stop:
        assert not stop.requested()
        stop.progressed()
        assert stop.requested()
    with StopRequest(1e-9, after_progress=True) as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested()
