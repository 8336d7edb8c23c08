"""Every error that bioelx_ray raises on purpose.

::

    BioelxError
    ├── ConfigError              a setting is unknown, missing or out of range
    ├── InputError               a file, a row or a text of the user's cannot be used
    │   ├── MentionError         a mention's offsets do not lie in its text
    │   └── TooManyRejects       more bad rows than the configured share
    ├── ArtifactError            a built directory cannot be used
    │   ├── ArtifactNotFound     nothing there, or no manifest
    │   ├── ArtifactCorrupt      a file's checksum, size or format is wrong
    │   └── ArtifactMismatch     sound, but it does not fit what it is used with
    ├── EncoderError             an encoder cannot be loaded, exported or run
    ├── EngineError              a ranker's model cannot be loaded, reached or run
    │   └── EngineTimeout        the deadline passed before the model had answered
    ├── TrainingError            a training cannot go on, or its result cannot be kept
    └── IndexBuildError          an index misses the recall that it must reach

A message says what was found, what was expected, where, and what to do.
"""


class BioelxError(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(BioelxError):
    """A setting is unknown, missing or out of range."""


class InputError(BioelxError):
    """A file, a row or a text given by the user cannot be used."""


class MentionError(InputError):
    """A mention's offsets do not lie in its text."""


class TooManyRejects(InputError):
    """A source has more bad rows than the configured share."""


class ArtifactError(BioelxError):
    """A built directory cannot be used."""


class ArtifactNotFound(ArtifactError):
    """There is no artifact of the wanted kind at a path."""


class ArtifactCorrupt(ArtifactError):
    """A file of an artifact is missing, or differs from its manifest."""


class ArtifactMismatch(ArtifactError):
    """A sound artifact that does not fit what it is used with."""


class EncoderError(BioelxError):
    """An encoder cannot be loaded, exported or run."""


class EngineError(BioelxError):
    """A ranker's model cannot be loaded, reached or run."""


class EngineTimeout(EngineError):
    """The deadline passed before a ranker's model had answered."""


class TrainingError(BioelxError):
    """A training cannot go on, or its result cannot be kept."""


class IndexBuildError(BioelxError):
    """An index misses the recall against exact search that it must reach."""
