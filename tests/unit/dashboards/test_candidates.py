"""Test the page of `compare`: known candidates, several sweeps, differing settings."""

from dataclasses import replace
from typing import Any

from synthetic_sweep import HOSTILE, METRIC, hostile

from dashboards import build, candidates
from orchestrator.results.reader import SweepView


def compared(*views: SweepView, **changes: Any) -> candidates.ComparedCandidates:
    """Build a comparison as the command does, with the first sweep's ranking for all sweeps."""
    documents = [
        {**group, "sweep": view.status["id"]} for view in views for group in view.best["groups"]
    ]
    for behind in documents[1:]:
        behind["versus_best"] = behind["versus_best"] or views[0].best["groups"][1]["versus_best"]
    document = {
        "metric": METRIC,
        "best_by": METRIC,
        "direction": "maximize",
        "margin": None,
        "data_sha256": {view.status["id"]: "0" for view in views},
        "candidates": documents,
    }
    return candidates.ComparedCandidates(
        document | changes, {view.status["id"]: view for view in views}
    )


def test_difference_frame_has_the_differences_of_the_document(view: SweepView) -> None:
    found = compared(view)
    frame = candidates.difference_frame(found)
    _, *behind = view.best["groups"]
    assert list(frame["label"]) == found.labels[1:]
    assert list(frame["difference"]) == [g["versus_best"]["difference"] for g in behind]
    assert list(frame["low"]) == [g["versus_best"]["ci95"][0] for g in behind]
    assert "not distinguishable from: universal" in candidates.hero(found)


def test_settings_frame_leaves_out_settings_that_all_share(view: SweepView) -> None:
    spec = view.spec | {"model": view.spec["model"] | {"code_dim": 8, "encoder": {"noise_dim": 16}}}
    frame = candidates.settings_frame(compared(replace(view, spec=spec))).set_index("setting")
    assert "model.clusters" not in frame.index
    assert frame.loc["model.encoder.kind", "gaussian"] == "gaussian"
    assert frame.loc["model.encoder.noise_dim", "gaussian"] == "–"  # not the file's default
    assert frame.loc["model.encoder.noise_dim", "universal"] != "–"


def test_comparison_labels_separate_sweeps_by_their_ids(view: SweepView) -> None:
    other = replace(
        view,
        status=view.status | {"id": "other-1"},
        spec=view.spec | {"data": view.spec["data"] | {"labels": 100}},
    )
    found = compared(view, other)
    assert len(set(found.labels)) == 6
    assert "other-1 gaussian" in found.labels
    frame = candidates.settings_frame(found).set_index("setting")
    assert frame.loc["data.labels", "other-1 gaussian"] == "100"


def test_comparison_page_has_every_section_and_a_verdict(view: SweepView) -> None:
    report = build.comparison_page(compared(view).document, compared(view).views)
    for id in ("candidates", "differences", "settings", "curves", "parzen"):
        assert f'<section id="{id}"' in report
    assert "is best: val/parzen_ll" in report


def test_comparison_notes_choice_by_another_metric_and_different_data(view: SweepView) -> None:
    other = {"best_by": "val/recon", "data_sha256": {"a": "0", "b": "1"}}
    output = candidates.hero(compared(view, **other))
    assert "the best by val/recon" in output
    assert "used different data" in output


def test_comparison_page_shows_hostile_names_as_text(view: SweepView) -> None:
    found = compared(hostile(view))
    report = build.comparison_page(found.document, found.views)
    assert HOSTILE not in report
    assert "<script>alert" not in report
    assert "<img src=x" not in report
