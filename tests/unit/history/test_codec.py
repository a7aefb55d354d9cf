"""Blobs are small, read back to the byte, by any thread, and damaged ones are told."""

import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner.core.errors import DarnerError, NotFoundError
from darner.history.codec import DICTIONARY_BYTES, Codec, train


def sample(number: int) -> bytes:
    dice = random.Random(number)  # noqa: S311  (test data)
    url = f"https://registry-{dice.randrange(5)}.example.com/v2/team-{dice.randrange(40)}/blobs/sha256:{dice.getrandbits(256):064x}"
    return (
        f'{{"v":1,"a":{{"application":"app-{dice.randrange(60)}","concurrent_peer_count":500,"scope":"single_seed_peer","url":"{url}",'
        f'"filtered_query_params":"X-Amz-Algorithm&X-Amz-Credential&X-Amz-Date&X-Amz-Expires&X-Amz-SignedHeaders&X-Amz-Signature",'
        f'"timeout":3600000000000}},"r":{{"state":"SUCCEEDED","job_states":[{{"task_name":"preheat","error":"","ttl":86400}}]}}}}'
    ).encode()


@pytest.fixture(scope="module")
def dictionary() -> bytes:
    return train([sample(number) for number in range(1_000)])


def test_a_dictionary_makes_small_documents_small(dictionary: bytes) -> None:
    assert len(dictionary) <= DICTIONARY_BYTES
    codec, raw = Codec.with_dictionary("preheat", dictionary), [sample(number) for number in range(2_000, 2_100)]
    folds = [codec.fold("preheat", one) for one in raw]
    assert sum(map(len, raw)) / sum(len(one.body) for one in folds) >= 5
    assert [codec.unfold(one.dict_id, one.body) for one in folds] == raw
    assert {(one.dict_id, one.raw_len) for one in folds} == {(1, len(one)) for one in raw}


def test_a_type_without_a_dictionary_is_folded_without(dictionary: bytes) -> None:
    codec = Codec.with_dictionary("preheat", dictionary)
    folded = codec.fold("gc", sample(1))
    assert folded.dict_id == 0
    assert Codec().unfold(0, folded.body) == sample(1)


def test_neither_a_checksum_nor_a_number_of_the_dictionary_is_in_the_frame(dictionary: bytes) -> None:
    descriptor = Codec.with_dictionary("preheat", dictionary).fold("preheat", sample(1)).body[4]
    assert descriptor & 0b111 == 0, "RFC 8878, 3.1.1.1.1"


@given(st.binary(max_size=5_000))
def test_any_bytes_come_back(raw: bytes) -> None:
    folded = Codec().fold("x", raw)
    assert Codec().unfold(folded.dict_id, folded.body) == raw
    assert Codec().refold(0, raw) == folded


@given(st.binary(max_size=300), st.integers(0, 1 << 20))
def test_what_is_no_blob_is_an_error_and_never_something_else(noise: bytes, at: int) -> None:
    body = bytearray(Codec().fold("x", sample(1)).body)
    for wrong in (noise, bytes(body[: at % len(body)]), bytes(body) + b"x"):
        with pytest.raises(DarnerError, match="cannot be read"):
            Codec().unfold(0, wrong)


def test_a_dictionary_that_was_not_learned_is_named() -> None:
    for ask in (lambda: Codec().unfold(7, b""), lambda: Codec().refold(7, b"")):
        with pytest.raises(NotFoundError, match="Dictionary 7"):
            ask()


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(DarnerError, match="2 samples"):
        train([b"a", b"b"])


def test_threads_share_a_codec(dictionary: bytes) -> None:
    codec, wrong = Codec.with_dictionary("preheat", dictionary), []

    def work(first: int) -> None:
        for number in range(first, first + 300):
            folded = codec.fold("preheat", sample(number))
            if codec.unfold(folded.dict_id, folded.body) != sample(number):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
