"""Ray's real memory monitor with a threshold that every worker exceeds."""

from pathlib import Path

from sweep_command import Bench

SWEEP = """
name: out_of_memory
data: {name: digits}
model: {hidden: [20], code_dim: 2}
training: {epochs: 1000}
search:
  sampler: {kind: random}
  objective: {metric: val/recon}
  trials: 1
  space: {model.prior.std: {float: [0.5, 4]}}
confirm: {seeds: 1, baseline: false}
"""


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
    assert done.returncode == 3, done.stderr
    assert "no trial of the search has a result to confirm" in done.stderr
    assert "Traceback" not in done.stderr
    [record] = bench.trials()
    assert (record.state, record.attempts) == ("failed", 2)
    assert record.reason is not None
    assert record.reason.startswith("out of host memory, twice")
    assert "running low on memory" in record.reason
