"""The Python interface: what the commands `run`, `status`, `show` and `best` do, in a script."""

import io
import threading
from typing import Any

from ruamel.yaml import YAML

from orchestrator.cli import common
from orchestrator.cli.common import say
from orchestrator.cli.run import as_extended, carry_out
from orchestrator.errors import UsageError
from orchestrator.results.frames import SweepReader
from orchestrator.sweepfile.loader import load_sweep
from orchestrator.sweepfile.spec import SweepSpec

__all__ = ["SweepReader", "SweepSpec", "load_sweep", "run"]


def run(spec: SweepSpec) -> SweepReader:
    """Run a sweep to its end, or resume it, as `aae-sweep run` does, and return its results.

    The same settings are the same sweep, whether a script or the command began it: a sweep that is
    done is only read. Progress goes to standard error. Paths and addresses come from the
    environment (`AAE_HOME`, `AAE_DATA` and the others).

    The first Ctrl-C, or a notebook's stop button, finishes the current epochs and saves; the second
    exits at once. Afterwards `run(spec)` and the command `aae-sweep run ID` both resume.

    Raises Interrupted or KeyboardInterrupt if it was stopped, SpecError if the sweep does not fit
    its data, EnvironmentUnusable if data, servers or resources are missing, SweepLocked if another
    driver runs the sweep, and UsageError outside the main thread, where Python handles no signal.
    """
    if threading.current_thread() is not threading.main_thread():
        raise UsageError("run() handles Ctrl-C, so call it in the main thread")
    reader = common.reader()
    spec = as_extended(spec, reader)
    for note in spec.notes:
        say(f"note: {note}")
    if not reader.is_done(spec):
        carry_out(spec, _text(spec), f"aae-sweep run {spec.sweep_id}")
    return SweepReader(spec.sweep_id)


def _text(spec: SweepSpec) -> str:
    """Return the sweep as a sweep file, with all defaults."""
    text = io.StringIO()
    yaml: Any = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.dump(spec.resolved(), text)
    return text.getvalue()
