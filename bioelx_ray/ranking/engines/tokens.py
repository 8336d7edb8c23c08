"""A Hugging Face tokenizer as the engines use it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bioelx_ray.errors import EngineError
from bioelx_ray.quiet import quiet_transformers
from bioelx_ray.ranking.engine import Prompt


class Tokens:
    """Texts and messages to token ids. Nothing is added: a template writes its own control tokens.

    Attributes:
        special_tokens: what is read as one token wherever it stands.
    """

    def __init__(self, model: str) -> None:
        self._name = model
        self._tokenizer = _load(model)
        added = set(self._tokenizer.get_added_vocab())
        self.special_tokens = frozenset(added | set(self._tokenizer.all_special_tokens))

    def count(self, text: str) -> int:
        """The number of tokens."""
        return len(self.ids(text))

    def ids(self, prompt: Prompt) -> list[int]:
        """The token ids of a prompt, messages in the model's chat format.

        Raises:
            EngineError: the model has no chat format.
        """
        text = prompt if isinstance(prompt, str) else self._chat(prompt)
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _chat(self, prompt: Prompt) -> str:
        messages = [
            {"role": m.role, "content": m.content} for m in prompt if not isinstance(m, str)
        ]
        if not self._tokenizer.chat_template:
            raise EngineError(
                f"{self._name}: its tokenizer has no chat template; take a prompt template with "
                "`text` instead of `user`"
            )
        text: str = self._tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,  # Qwen3's; other templates do not look at it
        )
        return text

    def single(self, answers: Sequence[str]) -> list[int | None]:
        """The id of each answer that is one token; None for others and for repeated ids.

        Tokenizers that fold case or white space have one token for several spellings, and its
        probability must not count twice.
        """
        seen: set[int | None] = {None, self._tokenizer.unk_token_id}
        found: list[int | None] = []
        for answer in answers:
            ids = self.ids(answer)
            only = ids[0] if len(ids) == 1 and ids[0] not in seen else None
            seen.add(only)
            found.append(only)
        return found


def _load(model: str) -> Any:  # noqa: ANN401 (transformers is untyped)
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(
                model, local_files_only=Path(model).is_dir(), trust_remote_code=False
            )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise EngineError(f"{model}: transformers finds no tokenizer ({error})") from error
