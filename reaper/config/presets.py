"""The tables of presets: the signs of runners that are not built in."""

import re
from collections.abc import Callable, Iterable
from fnmatch import translate
from typing import Self

from pydantic import StrictStr, field_validator, model_validator

from reaper.core.presets import PRESETS, Preset
from reaper.core.scope import is_catch_all, is_catch_all_label
from reaper.providers.fields import Globs, Labels, Name, Table, check_label

_ENDING = re.compile(r"(/[^/*?\[\]\\,\s][^/*?\[\]\\,]*){2,}")


class PresetTable(Table):
    """[[preset]]: by what the resources of a runner are recognised that is not built in."""

    name: Name
    labels: Labels = ()
    names: Globs = ()
    images: Globs = ()
    projects: Globs = ()
    config_files: tuple[StrictStr, ...] = ()
    built_images: Globs = ()
    volume_projects: Globs = ()
    keepalive: StrictStr | None = None

    @field_validator("name")
    @classmethod
    def _is_free(cls, name: str) -> str:
        if name in PRESETS:
            raise ValueError(f"{name!r} is a built-in preset; give yours another name")
        return name

    @field_validator("labels")
    @classmethod
    def _labels_distinguish(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        return _narrow_enough(labels, is_catch_all_label, '"acme.run"')

    @field_validator("names", "images", "projects", "built_images", "volume_projects")
    @classmethod
    def _globs_distinguish(cls, globs: tuple[str, ...]) -> tuple[str, ...]:
        return _narrow_enough(globs, is_catch_all, '"acme-run-*"')

    @field_validator("projects", "volume_projects")
    @classmethod
    def _can_be_projects(cls, globs: tuple[str, ...]) -> tuple[str, ...]:
        for glob in globs:
            if glob != glob.lower():
                raise ValueError(f"{glob!r} matches nothing: Compose has projects in lower case; write {glob.lower()!r}")
        return globs

    @field_validator("config_files")
    @classmethod
    def _are_endings(cls, endings: tuple[str, ...]) -> tuple[str, ...]:
        for ending in endings:
            if _ENDING.fullmatch(ending) is None or ending != ending.strip():
                raise ValueError(
                    f"{ending!r} is no ending of a path with a folder and a file in it, written with slashes and without"
                    ' globs; write for example "/acme/runner/compose.yaml"'
                )
        return endings

    @field_validator("keepalive")
    @classmethod
    def _is_key(cls, label: str | None) -> str | None:
        if label is not None and ("=" in check_label(label) or is_catch_all_label(label)):
            raise ValueError(f'{label!r} is not the key of a label that the runner alone sets; write for example "acme.run"')
        return label

    @model_validator(mode="after")
    def _owns_something(self) -> Self:
        signs = ("labels", "names", "images", "projects", "config_files", "built_images", "volume_projects")
        if not any(getattr(self, sign) for sign in signs):
            raise ValueError(f"it owns nothing; give it {', '.join(signs[:-1])} or {signs[-1]}")
        return self

    def preset(self) -> Preset:
        """The preset as the rules read it."""
        return Preset(
            self.name,
            labels=self.labels,
            names=_exactly(self.names),
            images=self.images,
            members=_exactly(self.projects),
            references=self.built_images,
            projects="|".join(map(translate, self.projects)),
            data_projects="|".join(map(translate, self.volume_projects)),
            config_files=self.config_files,
            keepalive=self.keepalive or "",
        )


def _narrow_enough(entries: tuple[str, ...], is_total: Callable[[str], bool], example: str) -> tuple[str, ...]:
    for entry in entries:
        if is_total(entry):
            raise ValueError(
                f"{entry!r} would own nearly everything; write what this runner alone sets, for example {example}"
            )
    return entries


def _exactly(globs: Iterable[str]) -> tuple[tuple[str, str], ...]:
    return tuple((glob, translate(glob)) for glob in globs)
