"""Prompt templates in files, versioned by the hash of their bytes.

A template is a YAML mapping: how candidates are asked about (`kind`), what is said of one (`card`),
and one prompt, either `text` (sent as it is, with the model's own control tokens) or `user` (a
message that the engine puts into its model's chat format). Placeholders stand in braces. They are
filled in one pass: braces in a filled value stay what they are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from bioelx_ray.errors import ConfigError
from bioelx_ray.ranking.engine import Message, Prompt
from bioelx_ray.section import Section

PACKAGED = ("qwen3-reranker", "chat", "listwise")
OPENING, CLOSING = "<mention>", "</mention>"

_PLACEHOLDER = re.compile(r"\{([a-z]+)\}")
_ORDER = {
    "pointwise": ["context", "mention", "candidate"],
    "listwise": ["context", "mention", "candidates"],
}


class CardParts(Section):
    """How the parts of what is said of a candidate are joined; an empty part is left out."""

    name: str = "{name}"
    types: str = " ({types})"
    aliases: str = ". Also called: {aliases}"
    definition: str = ". {definition}"


class TemplateBody(Section):
    """A template's file.

    `yes` and `no` are the spellings of the two answers of a pointwise template; those count that
    the model's tokenizer has as one token. `option`, `none` and `blank` belong to a listwise one:
    a line of the list, the option for NIL, and what stands in a list without content.
    """

    kind: Literal["pointwise", "listwise"]
    text: str = ""
    user: str = ""
    card: CardParts = CardParts()
    yes: tuple[str, ...] = ()
    no: tuple[str, ...] = ()
    option: str = "{letter}. {card}"
    none: str = Field(default="none of the others", min_length=1)
    blank: str = Field(default="N/A", min_length=1)

    @model_validator(mode="after")
    def _usable(self) -> TemplateBody:
        if bool(self.text) == bool(self.user):
            raise ValueError("give either text or user")
        found = _PLACEHOLDER.findall(self.text or self.user)
        # most to least shared: an engine's prefix cache holds what candidates have in common
        if found != _ORDER[self.kind]:
            raise ValueError(
                f"placeholders {found}: expected {_ORDER[self.kind]}, each once, in this order"
            )
        if self.kind == "pointwise" and not (self.yes and self.no):
            raise ValueError("a pointwise template needs spellings of yes and no")
        if set(self.yes) & set(self.no):
            raise ValueError("a spelling stands both for yes and for no")
        if self.kind == "listwise" and _PLACEHOLDER.findall(self.option) != ["letter", "card"]:
            raise ValueError("option must hold {letter} and {card}, each once, in this order")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A template with its name and its version, ``sha256:`` and the hash of its file's bytes."""

    name: str
    version: str
    body: TemplateBody

    def prompt(self, values: Mapping[str, str]) -> Prompt:
        """The prompt with its placeholders filled."""
        if self.body.text:
            return fill(self.body.text, values)
        return (Message(role="user", content=fill(self.body.user, values)),)


def open_template(name: str) -> Template:
    """A packaged template by its name, or one from a YAML file.

    Raises:
        ConfigError: there is none, or it is no template.
    """
    if name in PACKAGED:
        source = resources.files("bioelx_ray.ranking") / "templates" / f"{name}.yaml"
        data = source.read_bytes()
    else:
        data = _read(Path(name))
    version = f"sha256:{hashlib.sha256(data).hexdigest()}"
    try:
        body = TemplateBody.model_validate(yaml.safe_load(data))
    except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: no prompt template ({error})") from error
    return Template(name=Path(name).stem, version=version, body=body)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"prompt template {str(path)!r}: neither one of {', '.join(PACKAGED)} nor a file "
            f"that can be read ({error})"
        ) from error


def fill(text: str, values: Mapping[str, str]) -> str:
    """A text with its placeholders replaced, each by its value as it is."""
    return _PLACEHOLDER.sub(lambda match: values[match[1]], text)
