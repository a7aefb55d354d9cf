"""Secrets do not reach the log, however they get into an event."""

from typing import Any

from darner.kit.log import MASK, mask_secrets


def masked(**event: Any) -> dict[str, Any]:
    return dict(mask_secrets(None, "info", dict(event)))


def test_values_with_secret_names_are_masked_also_in_mappings() -> None:
    event = masked(password="a", headers={"Authorization": "b", "Accept": "c"}, api_key="d", url="e")
    assert event == {"password": MASK, "headers": {"Authorization": MASK, "Accept": "c"}, "api_key": MASK, "url": "e"}


def test_ids_of_tokens_are_no_secrets() -> None:
    assert masked(token_id=3, token_name="ci", token="x") == {"token_id": 3, "token_name": "ci", "token": MASK}
