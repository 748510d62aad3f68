"""Fill the disk of a home: the sweep frees space, or ends with a message and resumes later."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_disk import fill, small_disk
from sweep_command import PATIENCE, Bench, under_way
from sweep_file import make_long_text

EPOCHS = 8
SWEEP = make_long_text("tight", EPOCHS, search={"trials": 4})


@pytest.fixture
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Yield a sweep whose home is a disk of `request.param` megabytes."""
    bench = Bench(tmp_path, SWEEP)
    with small_disk(bench.settings.home, request.param):
        yield bench


@pytest.mark.parametrize("bench", [105], indirect=True)
def test_sweep_on_a_small_disk_removes_unneeded_checkpoints(bench: Bench) -> None:
    done = bench.run()
    assert done.code == 0, done.err
    assert "removed unneeded checkpoints and resumed" in done.err
    assert [(r.state, r.epochs) for r in bench.trials()] == [("complete", EPOCHS)] * 5


@pytest.mark.parametrize("bench", [90], indirect=True)
def test_sweep_on_a_full_disk_ends_with_a_message_and_resumes(bench: Bench) -> None:
    ballast = bench.settings.home / "ballast"
    with bench.started() as process:
        bench.wait_for(process, under_way(EPOCHS))
        fill(ballast)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 4, err
    assert "Traceback" not in err
    assert f"the disk at {bench.settings.home} on " in err
    assert "of 94 MB are free" in err
    assert f"Resume with: aae-sweep run {bench.file}" in err
    assert out == ""
    for command in ("status", "gc", "run"):  # on the full disk, without a traceback
        output = bench.tell(command, *([bench.file] if command == "run" else []))
        assert output.code in (0, 4), output.err
        assert "Traceback" not in output.err
    ballast.unlink()
    assert bench.ask("status", "tight")["state"] == "interrupted"
    before = bench.trials()
    assert {r.state for r in before} <= {"running", "waiting", "complete"}
    done = bench.run()
    assert done.code == 0, done.err
    assert done.document["state"] == "done"
    records = bench.trials()
    assert [(r.state, r.epochs) for r in records] == [("complete", EPOCHS)] * 5
    assert any(r.resumed_from for r in records)
    assert set(bench.mlflow_states().values()) == {"FINISHED"}
