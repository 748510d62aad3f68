"""Ray's real memory monitor with a threshold that every worker exceeds."""

from pathlib import Path

from sweep_command import Bench
from sweep_file import make_text

SWEEP = make_text(
    "out_of_memory", training={"epochs": 1000}, search={"trials": 1}, confirm={"baseline": False}
)


class Hungry(Bench):
    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {
            "RAY_memory_usage_threshold": "0.001",
            "RAY_memory_monitor_refresh_ms": "1000",
        }


def test_trial_killed_for_memory_twice_fails_with_its_reason(tmp_path: Path) -> None:
    bench = Hungry(tmp_path, SWEEP)
    done = bench.run()
    assert done.code == 3, done.err
    assert "no trial of the search has a result to confirm" in done.err
    assert "Traceback" not in done.err
    [record] = bench.trials()
    assert (record.state, record.attempts) == ("failed", 2)
    assert record.reason.startswith("out of host memory, twice")
    assert "running low on memory" in record.reason
