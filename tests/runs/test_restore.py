"""Networks of configs; `test_hostile_checkpoints` and `test_evaluation` load those of checkpoints."""

from cnnlite.runs.restore import describe_model
from tests.support.small_runs import tiny


def test_a_model_is_checked_before_any_data_is_read() -> None:
    text = describe_model(tiny())
    assert "parameters" in text
    assert "(32, 32, 3)" in text
    assert "(10,)" in text
