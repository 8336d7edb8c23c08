import bz2
import gzip
import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isal import igzip

from bioelx_ray.errors import InputError
from bioelx_ray.kb.stored import bz2_blocks, chunks, lines
from bioelx_ray.kb.stored.chunks import Chunk, Damage, Split, plan_splits, read_chunks
from bioelx_ray.kb.stored.pieces import TRUNCATED

PLAIN = b"".join(b"%d %s\n" % (n, os.urandom(n % 40).hex().encode()) for n in range(20_000))
SLOW_FIXTURE = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def small(monkeypatch):
    """Chunks and tails of few bytes, so that small files have many."""
    monkeypatch.setattr(chunks, "_CHUNK", 16)
    monkeypatch.setattr(chunks, "_TAIL", 3)


def written(directory: Path, name: str, content: bytes) -> Path:
    path = directory / name
    path.write_bytes(content)
    return path


def read(path: Path, split_bytes: int = 1 << 30) -> tuple[bytes, list[Damage]]:
    """All data in the order of the splits, and the damage; each chunk must be whole lines."""
    data, damages = [], []
    for split in plan_splits(path, split_bytes=split_bytes):
        for item in read_chunks(split):
            if isinstance(item, Damage):
                damages.append(item)
            else:
                assert item.data
                data.append(item.data)
    assert all(part.endswith(b"\n") for part in data[:-1])
    return b"".join(data), damages


@SLOW_FIXTURE
@given(
    content=st.lists(st.sampled_from([b"\n", b"\r\n", b"a", b"bb", b"\xff\x00", b"c" * 50])),
    split_bytes=st.integers(1, 40),
)
def test_splits_of_plain_files_give_every_line_once(tmp_path, small, content, split_bytes):
    whole = b"".join(content)
    assert read(written(tmp_path, "a.json", whole), split_bytes) == (whole, [])


@SLOW_FIXTURE
@given(content=st.binary(max_size=200), split_bytes=st.integers(1, 40))
def test_a_split_owns_the_lines_whose_first_byte_it_holds(tmp_path, small, content, split_bytes):
    path = written(tmp_path, "a.txt", content)
    begins = [0, *(place + 1 for place, byte in enumerate(content) if byte == 10)]
    for split in plan_splits(path, split_bytes=split_bytes):
        given_ = list(read_chunks(split))
        owned = [b for b in begins if split.start <= b < split.stop]
        assert b"".join(chunk.data for chunk in given_).count(b"\n") in (
            len(owned),
            len(owned) - 1,
        )
        assert all(content[c.offset :].startswith(c.data) for c in given_)
        assert not owned or given_[0].offset == owned[0]


@settings(SLOW_FIXTURE, max_examples=20)
@given(
    sizes=st.lists(st.integers(0, 250_000), max_size=4),
    split_bytes=st.integers(20_000, 300_000),
    last=st.sampled_from([b"", b"\n", b"no end"]),
)
def test_splits_of_bz2_give_every_line_once(tmp_path, sizes, split_bytes, last):
    start, streams = 0, []
    for size in sizes:
        streams.append(bz2.compress(PLAIN[start : start + size], 1))
        start += size
    path = written(tmp_path, "a.bz2", b"".join([*streams, bz2.compress(last)]))
    assert read(path, split_bytes) == (PLAIN[:start] + last, [])


def test_bz2_splits_smaller_than_a_header_and_lines_longer_than_blocks(tmp_path):
    content = b"first\n" + random.Random(3).randbytes(300_000).hex().encode() + b"\nlast\n"
    path = written(tmp_path, "a.bz2", bz2.compress(b"") + bz2.compress(content, 1))
    for split_bytes in (70_001, 150_000):
        assert read(path, split_bytes) == (content, [])
    size = path.stat().st_size
    tiny = [Split(path=path, start=at, stop=min(at + 3, 60)) for at in range(0, 60, 3)]
    rest = Split(path=path, start=60, stop=size)
    found = [c.data for split in [*tiny, rest] for c in read_chunks(split)]
    assert b"".join(found) == content


def test_a_block_of_bz2_is_found_at_any_bit(tmp_path):
    content = PLAIN[:400_000]
    path = written(tmp_path, "a.bz2", bz2.compress(content, 1))
    with path.open("rb") as handle:
        shifts = {mark.bit % 8 for mark in bz2_blocks._marks(handle.fileno(), 0)}
    assert len(shifts) > 2
    for shift in range(8):
        mark = (bz2_blocks._END << (8 - shift)).to_bytes(7, "big")
        for before in (1, 2, 3, 65_537 * 2, (1 << 20) - 3):
            moved = written(tmp_path, "b.bz2", b"\0" * before + mark + b"\0" * 9)
            with moved.open("rb") as handle:
                [found] = bz2_blocks._marks(handle.fileno(), 0)
            assert (found.bit, found.ends_stream) == (8 * before + shift, True)


def test_data_that_look_like_a_mark_lose_nothing(tmp_path, monkeypatch):
    path = written(tmp_path, "a.bz2", bz2.compress(PLAIN[:400_000], 1))
    real = bz2_blocks._marks
    with path.open("rb") as handle:
        first, second, third, *_ = [mark.bit for mark in real(handle.fileno(), 0)]
    inside = (second + third) // 2

    def with_accident(descriptor, start, stop=None):
        stop = path.stat().st_size if stop is None else stop
        marks = list(real(descriptor, start, stop))
        if start <= inside // 8 < stop:
            marks.append(bz2_blocks._Mark(inside, ends_stream=False))
        yield from sorted(marks, key=lambda mark: mark.bit)

    monkeypatch.setattr(bz2_blocks, "_marks", with_accident)
    for split_bytes in (1 << 30, inside // 8, inside // 8 - 10, first // 8 + 50_000):
        assert read(path, split_bytes) == (PLAIN[:400_000], [])


def test_a_damaged_block_costs_that_block_alone(tmp_path):
    packed = bytearray(bz2.compress(PLAIN, 1))
    packed[len(packed) // 2] ^= 4
    path = written(tmp_path, "a.bz2", bytes(packed))
    for split_bytes in (1 << 30, 50_000, 200_000):
        data, [damage] = read(path, split_bytes)
        assert damage.offset <= len(packed) // 2 < damage.offset + damage.lost
        assert 80_000 < len(PLAIN) - len(data) < 110_000
        pairs = zip(data, PLAIN, strict=False)
        same = next(place for place, (left, right) in enumerate(pairs) if left != right)
        assert PLAIN.endswith(data[data.rfind(b"\n", 0, same) + 1 :])


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_truncated_bz2_gives_what_comes_before(tmp_path, share):
    packed = bz2.compress(PLAIN, 1)
    path = written(tmp_path, "a.bz2", packed[: int(len(packed) * share)])
    data, [damage, end] = read(path, 100_000)
    assert PLAIN.startswith(data)
    assert data.endswith(b"\n")
    assert len(data) > len(PLAIN) * share - 120_000
    assert damage.offset + damage.lost == path.stat().st_size
    assert (end.reason, end.lost) == (TRUNCATED, 0)


def test_bz2_without_its_last_mark_is_told_though_nothing_is_damaged(tmp_path):
    packed = bz2.compress(PLAIN, 1)
    path = written(tmp_path, "a.bz2", packed[:-10])
    data, damages = read(path, 100_000)
    assert PLAIN.startswith(data)
    assert damages[-1].reason == TRUNCATED
    assert read(written(tmp_path, "b.bz2", packed), 100_000)[1] == []


def test_what_is_no_bzip2_is_told(tmp_path):
    stream = bz2.compress(b"a\n")
    assert read(written(tmp_path, "a.bz2", stream + b"\0" * 512)) == (b"a\n", [])
    data, [damage] = read(written(tmp_path, "b.bz2", stream + b"rubbish\n"))
    assert (data, damage.offset, damage.lost) == (b"a\n", len(stream), 8)
    data, [damage] = read(written(tmp_path, "c.bz2", b"no bzip2 at all\n"))
    assert (data, damage.offset, damage.lost) == (b"", 0, 16)
    data, [damage] = read(written(tmp_path, "d.bz2", stream + b"rubbish\n" + stream))
    assert (data, damage.lost) == (b"a\na\n"[:2], 12)
    assert read(written(tmp_path, "e.bz2", b"")) == (b"", [])


@pytest.mark.parametrize("pack", [gzip.compress, igzip.compress])
def test_gzip_members_are_one_file(tmp_path, pack):
    members = [b"", PLAIN[:5], PLAIN[5:300_000], b"", PLAIN[300_000:], b"no end"]
    packed = b"".join(map(pack, members)) + b"\0" * 100
    path = written(tmp_path, "a.json.GZ", packed)
    assert plan_splits(path, split_bytes=10) == [Split(path=path, start=0, stop=len(packed))]
    assert read(path) == (PLAIN + b"no end", [])


def test_gzip_that_packs_well_comes_in_chunks_of_bounded_size(tmp_path):
    content = b"x" * 99 + b"\n"
    path = written(tmp_path, "a.gz", gzip.compress(content * 300_000))
    [split] = plan_splits(path, split_bytes=1)
    sizes = [len(chunk.data) for chunk in read_chunks(split)]
    assert sum(sizes) == 30_000_000
    assert max(sizes) <= 9 << 20


def test_gzip_resumes_where_a_chunk_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "_CHUNK", 50_000)
    path = written(
        tmp_path, "a.gz", gzip.compress(PLAIN[:200_000]) + gzip.compress(PLAIN[200_000:])
    )
    [split] = plan_splits(path, split_bytes=1)
    given_ = list(read_chunks(split))
    assert len(given_) > 5
    for number, chunk in enumerate(given_):
        assert PLAIN[chunk.offset :].startswith(chunk.data)
        rest = b"".join(c.data for c in given_[number + 1 :])
        resumed = list(read_chunks(split, resume_at=chunk.offset + len(chunk.data)))
        assert b"".join(c.data for c in resumed) == rest
        assert not resumed or resumed[0].offset == chunk.offset + len(chunk.data)


def test_gzip_goes_on_at_the_next_member(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "_CHUNK", 50_000)
    members = [PLAIN[:200_000], PLAIN[200_000:400_000], PLAIN[400_000:]]
    packed = [bytearray(gzip.compress(member)) for member in members]
    packed[1][30:60] = b"\x1f\x8b\x08" * 10
    path = written(tmp_path, "a.gz", b"".join(packed))
    data, [damage] = read(path)
    assert damage.offset + damage.lost == len(packed[0]) + len(packed[1])
    after = members[2].partition(b"\n")[2]
    assert data.endswith(after)
    assert PLAIN.startswith(data[: -len(after)])
    [split] = plan_splits(path, split_bytes=1)
    items = list(read_chunks(split))
    last = next(c for c in reversed(items) if isinstance(c, Chunk))
    assert list(read_chunks(split, resume_at=last.offset)) == [last]


@pytest.mark.parametrize("spoil", ["checksum", "magic", "cut", "garbage", "cut header"])
def test_damaged_gzip_gives_whole_lines_and_tells(tmp_path, spoil):
    sound = gzip.compress(PLAIN)
    packed = {
        "checksum": sound[:-8] + bytes(4) + sound[-4:],
        "magic": b"\x1f\x8c" + sound[2:],
        "cut": sound[: len(sound) // 2],
        "garbage": sound + b"garbage",
        "cut header": sound + sound[:5],
    }[spoil]
    data, [damage] = read(written(tmp_path, "a.gz", packed))
    assert PLAIN.startswith(data)
    assert not data or data.endswith(b"\n")
    assert damage.offset + damage.lost == len(packed)
    if spoil == "cut":
        assert len(data) > len(PLAIN) * 0.4
    if spoil in ("garbage", "cut header"):
        assert data == PLAIN


@pytest.mark.parametrize("suffix", [".json", ".gz", ".bz2"])
def test_a_line_without_end_is_refused(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(lines, "MAX_LINE", 1 << 20)
    monkeypatch.setattr(chunks, "_CHUNK", 1 << 18)
    pack = {".json": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}[suffix]
    path = written(tmp_path, "a" + suffix, pack(b"short\n" + b"x" * (3 << 20)))
    with pytest.raises(InputError, match=r"a\.\w+: the line that is open at byte [\d,]+ is longer"):
        read(path)


@pytest.mark.parametrize("name", ["missing.json", "missing.gz", "missing.bz2"])
def test_files_that_cannot_be_read_are_named(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(InputError, match=name):
        plan_splits(path, split_bytes=10)
    with pytest.raises(InputError, match=name):
        list(read_chunks(Split(path=path, start=0, stop=10)))


def test_an_empty_file_has_one_split_and_no_chunk(tmp_path):
    for name in ("a.json", "a.gz", "a.bz2"):
        path = written(tmp_path, name, b"")
        [split] = plan_splits(path, split_bytes=10)
        assert list(read_chunks(split)) == []


def test_offsets_tell_how_exact_they_are(tmp_path):
    [plain] = read_chunks(plan_splits(written(tmp_path, "a", b"ab\nc\n"), split_bytes=9)[0])
    assert (plain.offset_of(3), plain.is_exact) == (3, True)
    path = written(tmp_path, "a.bz2", bz2.compress(b"ab\nc\n"))
    [packed] = read_chunks(plan_splits(path, split_bytes=99)[0])
    assert (packed.offset_of(3), packed.is_exact) == (4, False)


@pytest.mark.parametrize("garbage", [b"x", b"\r\n", b"<html>gone</html>" * 99])
def test_what_follows_the_last_gzip_member_is_told_and_costs_nothing(tmp_path, garbage):
    packed = gzip.compress(PLAIN)
    data, [damage] = read(written(tmp_path, "a.gz", packed + garbage), 1 << 30)
    assert data == PLAIN
    assert (damage.offset, damage.lost) == (len(packed), len(garbage))
    assert damage.reason != TRUNCATED
