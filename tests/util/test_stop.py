import signal
import threading

import pytest

from util.errors import Interrupted
from util.stop import NEVER, StopRequest, recorded_signals


def test_signals_are_noted_and_handlers_given_back():
    before = signal.getsignal(signal.SIGTERM)
    stop = StopRequest()
    with recorded_signals():
        assert not stop.requested()
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested()
        assert stop.reason == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == before
    assert not StopRequest().requested()


def test_a_request_alone_leaves_signals_to_others():
    noted = []
    before = signal.signal(signal.SIGTERM, lambda *a: noted.append(a))
    try:
        stop = StopRequest()
        signal.raise_signal(signal.SIGTERM)
        assert len(noted) == 1
        assert not stop.requested()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def ctrl_c():
    """SIGINT as in a terminal, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_second_ctrl_c_interrupts_at_once():
    stop = StopRequest()
    with recorded_signals():
        signal.raise_signal(signal.SIGINT)
        assert stop.requested()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_works_outside_the_main_thread():
    results = []

    def work():
        with recorded_signals():
            results.append(StopRequest().requested())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [False]


def test_a_time_limit_waits_for_progress_and_a_signal_does_not():
    stop = StopRequest(1e-9, "python train.py out --resume")
    assert not stop.requested()
    stop.progressed()
    with pytest.raises(Interrupted) as error:
        stop.check("while testing")
    assert str(error.value) == (
        "stopped by max_minutes while testing; continue with: python train.py out --resume"
    )
    with recorded_signals():
        signal.raise_signal(signal.SIGTERM)
        assert StopRequest(60).requested()
    NEVER.check("while testing")


def test_steps_are_counted():
    stop = StopRequest(max_steps=2)
    for wanted in (False, False, True):
        assert stop.requested() is wanted
        stop.progressed()  # not a step
        stop.progressed(step=True)
    assert stop.reason == "max_steps"
