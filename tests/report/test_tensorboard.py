from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from report.tensorboard import TensorBoard


def test_a_resumed_log_is_read_after_the_first_even_within_a_second(tmp_path):
    log = TensorBoard(tmp_path, {}, epoch=0)
    log.scalars({"loss": 1.0}, epoch=1)
    log.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    path.rename(path.with_name(path.name.rsplit(".", 2)[0] + ".99999999.0"))  # a later process
    log = TensorBoard(tmp_path, {}, epoch=1)
    log.scalars({"loss": 2.0}, epoch=2)
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in events] == [(1, 1.0), (2, 2.0)]
