"""MLflow's refusals: errors that a retry may resolve, and remedies for the others."""

import re
from typing import Any

from orchestrator.errors import EnvironmentUnusable
from orchestrator.text import masked, one_line

_ON_SERVER = re.compile(r"failed with error code (\d{3})")  # MLflow's words for a reply in HTML
_BUSY = (408, 425, 429, 499)  # 4xx that a retry may resolve
_OF_ALL = (401, 403, 404, 407)  # 4xx that concern the whole store, not one record
_OTHER_REVISION = ("out-of-date database schema", "Can't locate revision")
_SYNC = "then send the rest with: aae-sweep sync"
_REMEDIES = {
    401: f"set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; {_SYNC}",
    403: f"this user may not write there: change the permission, or set another user with "
    f"MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; {_SYNC}",
    404: f"no MLflow answers there: set MLFLOW_TRACKING_URI to the server's address; {_SYNC}",
    413: "the server or a proxy before it refuses requests of this size: raise its limit "
    f"(nginx: client_max_body_size); {_SYNC}",
}


class Refused(EnvironmentUnusable):
    """MLflow has refused some records and accepted the others."""

    def __init__(self, refused: list[tuple[str, Exception]]) -> None:
        super().__init__("; ".join(f"{key}: {masked(one_line(error))}" for key, error in refused))
        self.first = refused[0][1]


def is_of_one_item(error: Exception) -> bool:
    """Return True for a refusal of one record, after which the other records can be sent."""
    status = _status(error)
    return _refuses(status) and status not in _OF_ALL


def remedy(error: Exception, store: str) -> str | None:
    """Return what to do about a refusal; None for an error that a retry may resolve."""
    if isinstance(error, Refused):
        error = error.first
    if any(words in str(error) for words in _OTHER_REVISION):
        return (
            f"back the database up, then: mlflow db upgrade {store} (if MLflow does not know the "
            f"database's revision, a newer one wrote it: pip install --upgrade mlflow); {_SYNC}"
        )
    status = _status(error)
    if not _refuses(status):
        return None
    return _REMEDIES.get(
        status,
        "MLflow refuses this for good, and the outbox keeps it for `aae-sweep show`; if MLflow has "
        "been changed since, try again with: aae-sweep sync",
    )


def _refuses(status: int) -> bool:
    return 400 <= status < 500 and status not in _BUSY


def _status(error: Any) -> int:
    """Return the HTTP status that an error stands for; 500 if none does."""
    if (reply := getattr(error, "response", None)) is not None:
        return int(reply.status_code)
    if found := _ON_SERVER.search(str(error)):
        return int(found[1])
    if (of_mlflow := getattr(error, "get_http_status_code", None)) is None:
        return 500
    return 409 if error.error_code == "INVALID_STATE" else int(of_mlflow())
