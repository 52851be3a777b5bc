"""Here epochs end, whatever the nodes of today do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True, scope="module")
def _epochs_end() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("protocol.params.ENDS_EPOCHS", True)
        yield
