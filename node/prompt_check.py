"""Whether a model can take a prompt, told before it is paid for: by the model's own tokenizer, where this node has the model.

The ledger knows no tokenizer and bounds a prompt only by its bytes; a prompt that is too long beyond that would make every member
abstain, and the job fail. A node without the model leaves it at that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import trio

from node.faults import Fault, Trouble
from protocol.errors import Rejection
from protocol.models import ModelCard, compute_model_id
from protocol.units import ModelId
from verifier.card import ModelRefused, load_card

MAX_TOKENS: Final = 2**31  # a bound that no prompt reaches: the length is judged here

if TYPE_CHECKING:
    from verifier.tokens import TextTokenizer


@dataclass(frozen=True, slots=True)
class PromptCheck:
    """The tokenizers of this node's models, each loaded when it is first needed: they take 10 MB or more."""

    directories: Mapping[ModelId, Path]
    loaded: "dict[ModelId, TextTokenizer]" = field(default_factory=dict)

    async def check(self, model: ModelId, card: ModelCard, prompt: str) -> None:
        """Accepts what the model can take, and anything where this node does not have it.

        Raises: Fault(PROMPT_TOO_LONG | PROMPT_REFUSED).
        """
        directory = self.directories.get(model)
        if directory is not None and prompt:
            # In a thread: a large vocabulary takes a second to load, and the node's loop must go on.
            await trio.to_thread.run_sync(self._check, model, directory, card, prompt)

    def _check(self, model: ModelId, directory: Path, card: ModelCard, prompt: str) -> None:
        from verifier.tokens import PromptRefused, encode_prompt, load_tokenizer

        if model not in self.loaded:
            try:
                self.loaded[model] = load_tokenizer(directory)
            except ModelRefused:
                return  # the worker says what is wrong with the model; the prompt is not to blame
        try:
            tokens = len(encode_prompt(self.loaded[model], prompt, MAX_TOKENS))
        except PromptRefused as error:
            raise Fault(Trouble.PROMPT_REFUSED, f"{card.name} cannot take this prompt: {error}") from error
        if tokens >= card.context_tokens:
            raise Fault(
                Rejection.PROMPT_TOO_LONG,
                f"the prompt has {tokens} tokens, {card.name} takes at most {card.context_tokens - 1}",
            )


def find_prompt_models(directories: Sequence[Path]) -> PromptCheck:
    """The check for the models in these directories; one whose card cannot be read is left to the worker to report."""
    found: dict[ModelId, Path] = {}
    for directory in directories:
        try:
            found[compute_model_id(load_card(directory))] = directory
        except ModelRefused:
            continue  # the worker does not get ready with it, and says why
    return PromptCheck(found)


NO_PROMPTS: Final = PromptCheck(MappingProxyType({}))
"""For a node that has no model."""
