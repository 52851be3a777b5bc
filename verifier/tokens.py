"""Text to token ids and back, through the model's own tokenizer.json. Wraps the untyped `tokenizers` library.

Token ids are the truth; text is derived from them. A prompt that the tokenizer cannot write down is refused rather than answered
as another prompt.
"""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from verifier.card import MAX_TOKENIZER_BYTES, find_tokenizer, read_bounded


class PromptRefused(Exception):
    """A prompt that this model cannot take: empty, too long, or with signs that it has no token for."""


@dataclass(frozen=True, slots=True)
class TextTokenizer:
    tokenizer: Tokenizer
    unknown: int | None  # the token that stands for whatever has none

    @property
    def size(self) -> int:
        """One more than the largest token id."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


def load_tokenizer(directory: Path) -> TextTokenizer:
    """The directory's tokenizer, without the truncation and padding that its file may ask for."""
    content = read_bounded(find_tokenizer(directory), MAX_TOKENIZER_BYTES)
    tokenizer = Tokenizer.from_buffer(content)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    name: str | None = getattr(tokenizer.model, "unk_token", None)
    return TextTokenizer(tokenizer, None if name is None else tokenizer.token_to_id(name))


def encode_prompt(tokenizer: TextTokenizer, prompt: str, context_tokens: int) -> list[int]:
    """The prompt's token ids, leaving room for at least one more.

    Raises: PromptRefused
    """
    if not prompt:
        raise PromptRefused("the prompt is empty; expected at least one character")
    encoding = tokenizer.tokenizer.encode(prompt)
    ids: list[int] = encoding.ids
    if tokenizer.unknown is not None and tokenizer.unknown in ids:
        start, end = encoding.offsets[ids.index(tokenizer.unknown)]
        raise PromptRefused(f"the model's vocabulary has no token for {prompt[start:end][:20]!r} at character {start}")
    if not ids:
        raise PromptRefused("the prompt holds no token of the model's vocabulary")
    if len(ids) >= context_tokens:
        raise PromptRefused(
            f"the prompt has {len(ids)} tokens, the model takes at most {context_tokens - 1} of them; shorten the prompt"
        )
    return ids


def decode_tokens(tokenizer: TextTokenizer, tokens: list[int]) -> str:
    """The text of these tokens; special ones, such as end-of-text, have none."""
    return tokenizer.tokenizer.decode(tokens, skip_special_tokens=True)
