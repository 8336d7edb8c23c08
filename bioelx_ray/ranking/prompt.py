"""Mention and candidates -> prompts, the mention marked in its context.

The parts go from most to least shared (instruction, context, mention, candidate), so that an
engine computes what candidates of a mention have in common once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from bioelx_ray.config_ranking import MAX_OPTIONS, PromptConfig
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.ranking.card import card_maker
from bioelx_ray.ranking.engine import Engine, Prompt
from bioelx_ray.ranking.plain import plain_text, visible
from bioelx_ray.ranking.template import CLOSING, OPENING, Template, fill
from bioelx_ray.ranking.window import around, without_middle
from bioelx_ray.records import Candidate, Mention

LETTERS = ascii_uppercase[:MAX_OPTIONS]

_LINE_BREAK = re.compile(r"\s*[\n\r\x0b\x0c\x85\u2028\u2029]\s*")
_SPACE = re.compile(r"[^\S\n]+")
_REACH_EACH_TOKEN = 64
"""Code points of context that are cleaned for each token of the budget."""


class Prompts:
    """The prompts of a template over a knowledge base, for an engine's tokenizer."""

    def __init__(
        self, template: Template, kb: KnowledgeBase, *, engine: Engine, config: PromptConfig
    ) -> None:
        self.template = template
        self._config = config
        self._count = engine.count
        self._plain = plain_text({*engine.special_tokens, OPENING, CLOSING})
        self.card = card_maker(
            kb, parts=template.body.card, config=config, count=engine.count, plain=self._plain
        )

    def subject(self, mention: Mention) -> dict[str, str]:
        """The marked context, and the mention by itself."""
        text = without_middle(
            self._plain(mention.text), self._config.mention_tokens, count=self._count
        )
        left, right = around(
            self._side(mention.left, end=True),
            self._side(mention.right, end=False),
            self._config.context_tokens,
            count=self._count,
        )
        # cleaned again: line breaks told where sentences end, and a cut may join what was apart
        before, after = self._edged(left), self._edged(right)
        return {"context": f"{before}{OPENING}{text}{CLOSING}{after}".strip(), "mention": text}

    def pointwise(self, subject: dict[str, str], candidate: Candidate, lang: str) -> Prompt:
        """The question about one candidate."""
        return self.template.prompt({**subject, "candidate": self.card(candidate, lang)})

    def listwise(self, subject: dict[str, str], options: Sequence[str]) -> Prompt:
        """The question about options, lettered in their order."""
        lines = [
            fill(self.template.body.option, {"letter": letter, "card": card})
            for letter, card in zip(LETTERS, options, strict=False)
        ]
        return self.template.prompt({**subject, "candidates": "\n".join(lines)})

    def blank(self, n: int) -> Prompt:
        """A list of `n` options without content: what is answered to it is position bias."""
        blank = self.template.body.blank
        subject = {"context": f"{OPENING}{blank}{CLOSING}", "mention": blank}
        return self.listwise(subject, [blank] * n)

    def _side(self, text: str, *, end: bool) -> str:
        """One side of a mention near it, plain but for the ends of its lines."""
        reach = _REACH_EACH_TOKEN * (self._config.context_tokens + 1)
        near = text[-reach:] if end else text[:reach]
        lines = _LINE_BREAK.sub("\n", visible(near)).split("\n")
        edges = [self._edged(line) for line in lines]
        return "\n".join(edges)

    def _edged(self, text: str) -> str:
        """Plain, with a space at each end where white space was: words stay apart from the mark."""
        inner = self._plain(text)
        if not inner:
            return " " if text else ""
        return f"{' ' * text[0].isspace()}{inner}{' ' * text[-1].isspace()}"
