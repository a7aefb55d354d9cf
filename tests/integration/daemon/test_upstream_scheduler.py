"""A scheduler as upstream's in what is told of lengths: it stores an absent one as 0, and calls what has length 0 empty."""

from typing import Any

import pytest

from darner.core.announce import Announced, EmptyTask, Register, SchedulerAnswer
from darner.core.task import Download
from darner.testing.origin import CountingOrigin

MIB = 1024 * 1024


@pytest.fixture
def forgetful(lab: Any) -> Any:
    """The scheduler, with upstream's reading of lengths."""
    usual = lab.scheduler.match

    def match(announced: Announced) -> list[SchedulerAnswer]:
        message = announced.message
        if isinstance(message, Register) and not message.download.actual_content_length and not message.download.metadata_only:
            lab.scheduler.lengthless += 1
            return [EmptyTask(certain=False)]
        return list(usual(announced))

    lab.scheduler.lengthless = 0
    lab.scheduler._answering = match
    return lab


async def test_a_content_whose_length_was_not_told_is_not_taken_for_empty(forgetful: Any) -> None:
    lab = forgetful
    with CountingOrigin({"/a.bin": 9 * MIB, "/b.bin": 5 * MIB, "/small": MIB, "/empty": 0}) as origin:
        async with lab.daemon("p1") as one, lab.daemon("p2") as two:
            for path in ("/a.bin", "/b.bin", "/small", "/empty"):
                for peer in (one, two):
                    output = lab.directory / "out"
                    await lab.collect(peer, Download(url=origin.url(path), output_path=str(output), overwrite=True))
                    assert output.read_bytes() == origin.content(path).bytes()
        assert origin.body_bytes("/a.bin") <= 9 * MIB + 2
        assert origin.body_bytes("/b.bin") <= 5 * MIB + 2
        assert origin.body_bytes("/small") >= 2 * MIB, "what is small comes straight from the origin, as upstream's daemons do it"
    assert lab.scheduler.lengthless == 2, "each daemon learns it once"
