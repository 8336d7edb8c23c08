"""Text of others made plain, so that it cannot be taken for the prompt's own structure.

A context, a mention, a name or a definition may hold a model's control tokens (``<|im_end|>``), our
own marks (``<mention>``) or lines that look like the template's. It becomes one line, and a space
parts what would otherwise be read as a token or as a tag. Nothing else of the text is changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

Plain = Callable[[str], str]
"""Text of others -> one line that holds no mark and no special token."""

_HALF = re.compile("[\ud800-\udfff]")  # no tokenizer takes half a surrogate pair
# Tags (U+E0000 to U+E007F) draw nothing and spell ASCII: text that only the model would see.
_UNSEEN = re.compile("[\x00-\x08\x0e-\x1b\x7f\U000e0000-\U000e007f]")
# As tokenizers spell special tokens and chat templates roles: <|x|>, <｜x｜>, </s>, <start_of_turn>
_TAG = re.compile(r"(?<=[<＜])(?=[|｜/!\\_▁\[A-Za-z])")
_BRACKET = re.compile(r"(?<=\[)(?=/?[A-Z][A-Z_0-9 ]+\])")  # [INST], [/INST], [CLS]


def plain_text(special_tokens: Iterable[str] = ()) -> Plain:
    """The cleaning for a model with these special tokens. Applied twice it changes nothing more."""
    # Some models have thousands, nearly all of which the general rules part already.
    wanted = {t for t in special_tokens if len(t) > 1 and not t.isspace() and _tagless(t) == t}
    tokens = tuple(sorted(wanted, key=lambda t: (-len(t), t)))

    def plain(text: str) -> str:
        return _parted(_tagless(" ".join(visible(text).split())), tokens)

    return plain


def visible(text: str) -> str:
    """Without halves of surrogate pairs, control characters other than white space, and tags."""
    return _UNSEEN.sub("", _HALF.sub("\ufffd", text))


def _tagless(text: str) -> str:
    return _BRACKET.sub(" ", _TAG.sub(" ", text))


def _parted(text: str, tokens: tuple[str, ...]) -> str:
    # Parting one token may leave another that overlapped it, so until nothing is found. Each round
    # adds spaces inside of tokens only, and no token is as long as the text: it ends.
    found = True
    while found:
        found = False
        for token in tokens:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
                found = True
    return text
