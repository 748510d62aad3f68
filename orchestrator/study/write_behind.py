"""The driver's storage of a study: trials in memory, saved to the database in batches.

Only the driver writes trials, so it never has to read them again: Optuna's samplers and pruners
decide on the trials in memory.  Optuna's storage for databases would read a trial with all its
values at each decision, and commit every value by itself.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import InMemoryStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState
from sqlalchemy import Connection, bindparam, insert, select, update

from orchestrator.study.database import StudyStorage

_STUDY = 0  # its id in memory
Columns = dict[str, Any]


class WriteBehindStorage(InMemoryStorage):
    """One study of the database. `save` writes all changes since the last `save`.

    A process that dies loses all of these changes or none.  Only the study's user attributes are
    read and written at once, since other processes write them too.
    """

    def __init__(self, database: StudyStorage, study_name: str) -> None:
        super().__init__()
        self._database = database
        self._database_id = database.get_study_id_from_name(study_name)
        super().create_new_study(database.get_study_directions(self._database_id), study_name)
        self._ids: list[int] = []  # of the trials in the database, by number
        for trial in database.get_all_trials(self._database_id, deepcopy=False):
            self._ids.append(trial._trial_id)
            super().create_new_trial(_STUDY, trial)
        for key, value in database.get_study_system_attrs(self._database_id).items():
            super().set_study_system_attr(_STUDY, key, value)
        self._rows: dict[tuple[_Part, int, Any], bool] = {}  # changed rows; True: it is new
        self._states: set[int] = set()  # numbers of the trials whose state has changed
        self._sampler_state: dict[str, bool] = {}  # changed attributes; True: it is new

    # -- in the database ---------------------------------------------------------------------------

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        row = {"id": self._database_id, "row": key, **_json(value)}
        with self._database.engine.begin() as connection:
            known = connection.execute(_STUDY_ATTRS.update, row).rowcount
        if not known:
            self._database.set_study_user_attr(self._database_id, key, value)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        with self._database.engine.connect() as connection:
            rows = connection.execute(_SELECT_STUDY_ATTRS, {"id": self._database_id}).all()
        return {key: json.loads(value) for key, value in rows}

    # -- in memory, until `save` -------------------------------------------------------------------

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._sampler_state.setdefault(key, key not in self.get_study_system_attrs(study_id))
        super().set_study_system_attr(study_id, key, _as_read(value))

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial_id = super().create_new_trial(study_id, template_trial)
        trial = self._get_trial(trial_id)
        for part in _PARTS:
            for key in part.keys(trial):
                self._rows[part, trial.number, key] = True
        return trial_id

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        self._change(_PARAMS, trial_id, param_name)
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        self._change(_EPOCHS, trial_id, step)
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._change(_USER_ATTRS, trial_id, key)
        super().set_trial_user_attr(trial_id, key, _as_read(value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._change(_SYSTEM_ATTRS, trial_id, key)
        super().set_trial_system_attr(trial_id, key, _as_read(value))

    def set_trial_state_values(
        self, trial_id: int, state: OptunaState, values: Sequence[float] | None = None
    ) -> bool:
        for objective in range(len(values or ())):
            self._change(_VALUES, trial_id, objective)
        self._states.add(self.get_trial_number_from_id(trial_id))
        return super().set_trial_state_values(trial_id, state, values)

    def _change(self, part: "_Part", trial_id: int, key: Any) -> None:
        trial = self._get_trial(trial_id)
        self._rows.setdefault((part, trial.number, key), key not in part.keys(trial))

    def save(self) -> None:
        """Write all changes in one transaction."""
        trials = self.get_all_trials(_STUDY, deepcopy=False)
        created = trials[len(self._ids) :]
        if not (created or self._rows or self._states or self._sampler_state):
            return
        with self._database.engine.begin() as connection:
            ids = self._ids + [self._insert(connection, trial) for trial in created]
            changed = [trials[number] for number in self._states if number < len(self._ids)]
            for trial in changed:
                connection.execute(_UPDATE_TRIAL, {"id": ids[trial.number], **_state(trial)})
            batches = defaultdict[tuple[_Rows, bool], list[Columns]](list)
            for (part, number, key), is_new in self._rows.items():
                row = part.columns(trials[number], key)
                batches[part, is_new].append({"id": ids[number], "row": key, **row})
            attributes = self.get_study_system_attrs(_STUDY)
            for key, is_new in self._sampler_state.items():
                row = {"id": self._database_id, "row": key, **_json(attributes[key])}
                batches[_SAMPLER_STATE, is_new].append(row)
            for (table, is_new), rows in batches.items():
                connection.execute(table.insert if is_new else table.update, rows)
        self._ids = ids
        self._sampler_state.clear()
        self._rows.clear()
        self._states.clear()

    def _insert(self, connection: Connection, trial: FrozenTrial) -> int:
        values = {"number": trial.number, "study_id": self._database_id, **_state(trial)}
        key = connection.execute(insert(models.TrialModel.__table__), values).inserted_primary_key
        assert key is not None
        return int(key[0])


def _as_read(value: Any) -> Any:
    """Return an attribute as the database would return it."""
    return json.loads(json.dumps(value))


def _state(trial: FrozenTrial) -> Columns:
    return {
        "state": trial.state,
        "datetime_start": _utc(trial.datetime_start),
        "datetime_complete": _utc(trial.datetime_complete),
    }


def _utc(local: datetime | None) -> datetime | None:
    return None if local is None else local.astimezone(UTC).replace(tzinfo=None)


# -- the tables ------------------------------------------------------------------------------------

_ATTRS = models.StudyUserAttributeModel.__table__
_SELECT_STUDY_ATTRS = select(_ATTRS.c.key, _ATTRS.c.value_json).where(
    _ATTRS.c.study_id == bindparam("id")
)
_TRIALS = models.TrialModel.__table__
_UPDATE_TRIAL = update(_TRIALS).where(_TRIALS.c.trial_id == bindparam("id"))


class _Rows:
    """One of Optuna's tables whose rows have an owner, a trial or a study, and a key."""

    def __init__(self, model: Any, owner: str, key: str) -> None:
        """owner, key: names of these columns."""
        table = model.__table__
        self.insert = insert(table).values({owner: bindparam("id"), key: bindparam("row")})
        self.update = update(table).where(
            table.c[owner] == bindparam("id"), table.c[key] == bindparam("row")
        )


class _Part(_Rows):
    """A part of a trial, with a row for each of its keys."""

    def __init__(
        self,
        model: Any,
        key: str,
        keys: Callable[[FrozenTrial], Collection[Any]],
        columns: Callable[[FrozenTrial, Any], Columns],
    ) -> None:
        """columns: function that returns the columns of a row, besides owner and key."""
        super().__init__(model, "trial_id", key)
        self.keys, self.columns = keys, columns


def _json(value: Any) -> Columns:
    return {"value_json": json.dumps(value)}


def _param(trial: FrozenTrial, name: str) -> Columns:
    distribution = trial.distributions[name]
    return {
        "param_value": distribution.to_internal_repr(trial.params[name]),
        "distribution_json": distribution_to_json(distribution),
    }


def _epoch(trial: FrozenTrial, step: int) -> Columns:
    number = trial.intermediate_values[step]
    value, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(number)
    return {"intermediate_value": value, "intermediate_value_type": kind}


def _value(trial: FrozenTrial, objective: int) -> Columns:
    value, kind = models.TrialValueModel.value_to_stored_repr(trial.values[objective])
    return {"value": value, "value_type": kind}


_PARAMS = _Part(models.TrialParamModel, "param_name", lambda trial: trial.params, _param)
_USER_ATTRS = _Part(
    models.TrialUserAttributeModel,
    "key",
    lambda trial: trial.user_attrs,
    lambda trial, key: _json(trial.user_attrs[key]),
)
_SYSTEM_ATTRS = _Part(
    models.TrialSystemAttributeModel,
    "key",
    lambda trial: trial.system_attrs,
    lambda trial, key: _json(trial.system_attrs[key]),
)
_EPOCHS = _Part(
    models.TrialIntermediateValueModel, "step", lambda trial: trial.intermediate_values, _epoch
)
_VALUES = _Part(
    models.TrialValueModel, "objective", lambda trial: range(len(trial.values or ())), _value
)
_STUDY_ATTRS = _Rows(models.StudyUserAttributeModel, "study_id", "key")
_SAMPLER_STATE = _Rows(models.StudySystemAttributeModel, "study_id", "key")
_PARTS = (_PARAMS, _USER_ATTRS, _SYSTEM_ATTRS, _EPOCHS, _VALUES)
