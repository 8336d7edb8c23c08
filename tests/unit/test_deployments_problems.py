"""Errors: their status and pointer, and that no text of a request comes back."""

from __future__ import annotations

import logging

import pytest

from tests.serving import BAD, CANARY, JSON, ask, assert_problem, document, local_api, request


@pytest.fixture(scope="module")
def api():
    return local_api()


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_problems_without_their_text(api, name):
    sent, status, pointers = BAD[name]
    assert_problem(ask(api, "POST", "/v1/link", **sent), status, pointers)


def test_a_body_without_length_is_counted_while_it_is_read(api):
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            sent += 1
            yield CANARY.encode() * 5000

    assert_problem(ask(api, "POST", "/v1/link", content=endless(), headers=JSON), 413)
    assert sent < 100


@pytest.mark.parametrize("length", ["many", "-1", "9" * 40])
def test_a_content_length_that_lies_is_refused(api, length):
    headers = {**JSON, "content-length": length}
    answer = ask(api, "POST", "/v1/link", content=b"{}", headers=headers)
    assert_problem(answer, 413 if length.isdigit() else 400)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/{CANARY}", 404),
        ("GET", f"/ui/{CANARY}", 404),
        ("GET", "/ui/../app.py", 404),
        ("GET", f"/v1/concepts/{CANARY}", 404),
        ("GET", "/v1/link", 405),
        ("POST", "/v1/info", 405),
    ],
)
def test_wrong_routes_are_problems(api, method, path, status):
    assert_problem(ask(api, method, path), status)


def test_a_wrong_method_is_told_the_right_one(api):
    assert ask(api, "PUT", "/v1/link").headers["allow"] == "POST"


def test_an_error_of_ours_is_a_500_and_its_message_is_not_logged(api, caplog):
    broken = document(f"broken {CANARY} asthma", mentions=[{"start": 0, "end": 27}])
    with caplog.at_level(logging.DEBUG, logger="deployments"):
        answer = ask(api, "POST", "/v1/link", json=request(broken))
    assert_problem(answer, 500)
    ours = [record for record in caplog.records if record.name.startswith("deployments")]
    assert answer.json()["request_id"] in ours[-1].getMessage()
    assert all(CANARY not in record.getMessage() and not record.exc_info for record in ours)


def test_a_request_id_is_kept_only_where_it_is_one(api):
    good = ask(api, "GET", "/nowhere", headers={"x-request-id": "abc-1.2_3"})
    assert good.json()["request_id"] == "abc-1.2_3"
    assert_problem(ask(api, "GET", "/nowhere", headers={"x-request-id": f"{CANARY} !"}), 404)
