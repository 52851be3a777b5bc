"""A prompt becomes the model's tokens, or is refused by name; never another prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from verifier.tokens import PromptRefused, decode_tokens, encode_prompt, load_tokenizer


def test_text_goes_to_ids_and_back(untrained: Path) -> None:
    tokenizer = load_tokenizer(untrained)
    ids = encode_prompt(tokenizer, "23+58=", 64)
    assert ids == [4, 5, 12, 7, 10, 13]
    assert decode_tokens(tokenizer, ids) == "23+58="


def test_special_tokens_have_no_text(untrained: Path) -> None:
    assert decode_tokens(load_tokenizer(untrained), [10, 3, 1]) == "81"


@pytest.mark.parametrize(
    "prompt, message",
    [
        ("", "the prompt is empty"),
        ("2+x=", "no token for 'x' at character 2"),
        ("2 + 3", "no token for ' ' at character 1"),
        ("\n", "no token for"),
        ("é", "no token for 'é' at character 0"),
        ("<unk>", "no token for"),
        ("1" * 64, "the prompt has 64 tokens, the model takes at most 63"),
    ],
)
def test_a_prompt_that_the_model_cannot_take_is_refused(untrained: Path, prompt: str, message: str) -> None:
    with pytest.raises(PromptRefused, match=message):
        encode_prompt(load_tokenizer(untrained), prompt, 64)


def test_the_longest_prompt_leaves_room_for_one_token(untrained: Path) -> None:
    assert len(encode_prompt(load_tokenizer(untrained), "1" * 63, 64)) == 63
