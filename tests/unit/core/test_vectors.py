"""Every test vector of the wire-compatible field: ids, rings, piece arithmetic, digests and vortex frames."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darner.core import digest, hashring, ids
from darner.core.errors import InvalidInputError
from darner.core.piece import interested_pieces, piece_count, piece_length_for, piece_span
from darner.core.ranges import ByteRange
from darner.core.task import Download
from darner.core.url import DEFAULT_FILTERED_QUERY_PARAMS, blob_of, normalise_url
from darner.wire import vortex

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "vectors.json").read_text())["vectors"]
Fields = dict[str, Any]


def download_of(given: Fields) -> Download:
    known = ("url", "tag", "application", "revision", "piece_length", "enable_task_id_based_blob_digest")
    fields = {key: given[key] for key in known if key in given}
    return Download(filtered_query_params=tuple(given.get("filtered_query_params", ())), **fields)


def task_id_url(given: Fields) -> Fields:
    asked = download_of(given)
    return {
        "normalised_url": normalise_url(asked.url, asked.filtered_query_params),
        "hashed_string": ids.hashed_string(asked),
        "task_id": ids.task_id(asked),
    }


def task_id_content(given: Fields) -> Fields:
    return {"task_id": ids.task_id(Download(url="http://unused.example/", **given))}


def task_id_blob_digest(given: Fields) -> Fields:
    found = blob_of(given["url"])
    if found is None:
        return {"is_blob_url": False, "task_id": None}
    try:
        return {"is_blob_url": True, "task_id": ids.task_id(download_of(given))}
    except InvalidInputError:
        return {"is_blob_url": True, "task_id": None, "error": "INVALID_ARGUMENT"}


def persistent_cache_task_id(given: Fields) -> Fields:
    if "content_for_calculating_task_id" in given:
        return task_id_content(given)
    content = given["file_content_utf8"].encode()
    return {"task_id": ids.persistent_cache_task_id(content, given["tag"], given["application"], given["piece_length"])}


def scheduler_ring_point(given: Fields) -> Fields:
    data = hashring.scheduler_point_input(given["address"])
    assert data.hex() == given["siphash_input_hex"]
    value = hashring.siphash24(data)
    return {"u64": str(value), "hex": f"{value:016x}"}


def scheduler_ring_key(given: Fields) -> Fields:
    data = hashring.scheduler_key_input(given["task_id_prefix"])
    assert data.hex() == given["siphash_input_hex"]
    value = hashring.siphash24(data)
    return {"u64": str(value), "hex": f"{value:016x}"}


def seed_ring_point(given: Fields) -> Fields:
    assert f"{given['replica']}{given['member']}" == given["hashed_string"]
    return {"u32": hashring.seed_point(given["member"], given["replica"])}


def piece_length(given: Fields) -> Fields:
    length = piece_length_for(given["content_length"])
    return {"piece_length": length, "piece_count": piece_count(given["content_length"], length)}


def interested(given: Fields) -> Fields:
    wanted = ByteRange(**given["range"]) if given["range"] else None
    try:
        numbers = list(interested_pieces(given["content_length"], given["piece_length"], wanted))
    except InvalidInputError:
        return {"error": "InvalidParameter"}
    if not numbers:
        return {"numbers": []}
    last = piece_span(numbers[-1], given["content_length"], given["piece_length"])
    return {"numbers": numbers, "last_offset": last.start, "last_length": last.length}


def whole_digest(algorithm: str, given: Fields) -> Fields:
    hasher = digest.new_hasher(algorithm)
    zeros = given.get("content_zero_bytes")
    hasher.update(given["content_utf8"].encode() if zeros is None else bytes(zeros))
    return {"digest": f"{algorithm}:{hasher.hexdigest()}"}


def vortex_request(given: Fields) -> Fields:
    assert vortex.kind_of(given["tag"]) == given["kind"]
    frame = vortex.encode_request(given["task_id"], given["piece_number"], tag=given["tag"], frame_id=given["id"])
    header = vortex.decode_header(frame[: vortex.HEADER_LENGTH])
    assert (header.tag, header.length) == (given["tag"], vortex.REQUEST_LENGTH)
    asked = vortex.decode_request(header, frame[vortex.HEADER_LENGTH :])
    assert (asked.task_id, asked.piece_number) == (given["task_id"], given["piece_number"])
    return {"hex": frame.hex(), "length": len(frame)}


def vortex_reply(given: Fields) -> Fields:
    assert vortex.kind_of(given["tag"]) == given["kind"]
    reply = vortex.Reply(
        number=given["number"],
        offset=given["offset"],
        length=given["length"],
        digest=given["digest"],
        parent_id=given["parent_id"],
        traffic_type=given["traffic_type"],
        cost_s=given["cost_seconds"],
        created_at=given["created_at"],
    )
    frame = vortex.encode_reply(reply, tag=given["tag"], frame_id=given["id"])
    header = vortex.decode_header(frame[: vortex.HEADER_LENGTH])
    assert vortex.decode_reply(frame[vortex.HEADER_LENGTH :]) == reply
    return {"hex": frame.hex(), "length": len(frame), "meta_len": header.length - 4, "frame_value_length": header.length}


def vortex_error(given: Fields) -> Fields:
    frame = vortex.encode_error(given["code"], given["message"], frame_id=given["id"])
    assert vortex.decode_error(frame[vortex.HEADER_LENGTH :]) == (given["code"], given["message"])
    return {"hex": frame.hex(), "length": len(frame)}


def vortex_close(given: Fields) -> Fields:
    frame = vortex.encode_close(frame_id=given["id"])
    return {"hex": frame.hex(), "length": len(frame)}


CHECKS: dict[str, Callable[[Fields], Fields]] = {
    "task_id_url": task_id_url,
    "task_id_content": task_id_content,
    "task_id_blob_digest": task_id_blob_digest,
    "persistent_task_id": lambda g: {"task_id": ids.persistent_task_id(g["url"], g["region"], g["endpoint"])},
    "persistent_cache_task_id": persistent_cache_task_id,
    "host_id": lambda g: {"host_id": ids.host_id(g["ip"], g["hostname"], seed=g["seed"])},
    "peer_id": lambda g: {"peer_id": ids.peer_id(g["ip"], g["hostname"], g["uuid4"], seed=g["seed"])},
    "piece_id": lambda g: {"piece_id": ids.piece_id(g["task_id"], g["number"])},
    "scheduler_ring_point": scheduler_ring_point,
    "scheduler_ring_key": scheduler_ring_key,
    "scheduler_ring_pick": lambda g: {"scheduler": hashring.pick_scheduler(g["task_id"], g["schedulers"])},
    "seed_ring_point": seed_ring_point,
    "seed_ring_pick": lambda g: {"seed": hashring.SeedRing(g["seeds"]).pick(g["task_id"])},
    "piece_length": piece_length,
    "interested_pieces": interested,
    "piece_digest": lambda g: whole_digest("crc32", g),
    "digest_flag": lambda g: {"accepted": digest.accepted_by_upstream_flag(g["digest"])},
    "piece_metadata_digest": lambda g: {"digest": digest.piece_metadata_digest(**g)},
    "vortex_request": vortex_request,
    "vortex_reply_header": vortex_reply,
    "vortex_error": vortex_error,
    "vortex_close": vortex_close,
    "vortex_tag": lambda g: {"kind": vortex.kind_of(g["tag"])},
}


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["group"] in CHECKS], ids=lambda v: str(v["name"]))
def test_vector_gives_the_expected_value(vector: Fields) -> None:
    assert CHECKS[vector["group"]](vector["input"]) == vector["expected"], vector["rule"]


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["group"] == "file_digest"], ids=lambda v: str(v["name"]))
def test_file_digest_vector(vector: Fields) -> None:
    algorithm = digest.Digest.parse(vector["expected"]["digest"]).algorithm
    assert whole_digest(algorithm, vector["input"]) == vector["expected"]


def test_default_filtered_query_params_are_upstreams() -> None:
    (vector,) = [v for v in VECTORS if v["group"] == "default_filtered_query_params"]
    assert sorted(DEFAULT_FILTERED_QUERY_PARAMS) == sorted(vector["expected"]["params"])


def test_no_vector_is_left_out() -> None:
    done = {*CHECKS, "file_digest", "default_filtered_query_params"}
    assert {v["group"] for v in VECTORS} == done
