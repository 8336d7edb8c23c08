import threading

import pytest

from bioelx_ray.kb.stored.ahead import ahead


def threads():
    return sum(thread.name == "ahead" for thread in threading.enumerate())


def test_all_items_come_in_order():
    assert list(ahead(iter(range(1000)), depth=3)) == list(range(1000))
    assert list(ahead(iter(()), depth=1)) == []
    assert threads() == 0


def test_no_more_is_made_than_was_asked_for():
    made = []
    seen = threading.Event()

    def items():
        for number in range(100):
            made.append(number)
            if len(made) == 4:  # one handed over, two waiting, one in hand
                seen.set()
            yield number

    stream = ahead(items(), depth=2)
    assert next(stream) == 0
    assert seen.wait(5)
    assert len(made) <= 5
    stream.close()
    assert threads() == 0


def test_an_error_comes_in_its_place():
    def items():
        yield 1
        yield 2
        raise OSError("gone")

    stream = ahead(items(), depth=8)
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(OSError, match="gone"):
        next(stream)
    assert threads() == 0
