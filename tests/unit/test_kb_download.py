"""Downloads from a real server on this machine that misbehaves on request."""

import contextlib
import errno
import fcntl
import hashlib
import json
import resource
import shutil
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bioelx_ray.errors import InputError
from bioelx_ray.kb.fetch.checksums import MAX_LIST, Checksum, published_checksum
from bioelx_ray.kb.fetch.download import download
from bioelx_ray.kb.fetch.web import Retry, new_client

DATA = bytes(i * i % 251 for i in range(300_000))
OTHER = DATA[::-1] + b"longer"


def sha256(data):
    return Checksum(algorithm="sha256", digest=hashlib.sha256(data).hexdigest())


class Script:
    """What the server does. `steps` are taken one a request; the last one stays."""

    def __init__(self):
        self.body, self.etag, self.modified = DATA, '"v1"', None
        self.ranges, self.careless = True, False
        self.steps, self.requests = [], []

    def step(self):
        return self.steps.pop(0) if len(self.steps) > 1 else (self.steps or [{}])[0]

    def headers(self, name):
        return [request.get(name) for request in self.requests]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        """Say nothing."""

    def do_GET(self):
        script = self.server.script
        script.requests.append({**self.headers, "path": self.path})
        step = script.step()
        for name, value in step.get("change", {}).items():
            setattr(script, name, value)
        if status := step.get("status"):
            self.reply(status, step.get("headers", {}))
        elif script.etag and self.headers["If-None-Match"] == script.etag:
            self.reply(304, {})
        else:
            self.send_body(script, step)

    def reply(self, status, headers):
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def send_body(self, script, step):
        start, body = self.start(script), script.body
        if start is not None and start >= len(body):
            self.reply(416, {"Content-Range": f"bytes */{len(body)}"})
            return
        self.send_response(200 if start is None else 206)
        if start is not None:
            first = start + step.get("shift", 0)
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        rest = body[start or 0 :]
        if step.get("chunked"):
            self.send_header("Transfer-Encoding", "chunked")
            piece = f"{len(rest):x}\r\n".encode() + rest + b"\r\n"
            rest = piece + b"0\r\n\r\n" if "cut" not in step else piece
        else:
            self.send_header("Content-Length", str(len(rest)))
        for name, value in {"ETag": script.etag, "Last-Modified": script.modified}.items():
            if value:
                self.send_header(name, value)
        for name, value in step.get("headers", {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(rest[: step.get("cut")])
        self.close_connection = "cut" in step

    def start(self, script):
        asked, condition = self.headers["Range"], self.headers["If-Range"]
        same = script.careless or condition in {script.etag, script.modified}
        if asked is None or not script.ranges or not same:
            return None
        return int(asked.removeprefix("bytes=").removesuffix("-"))


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args):
        """A client that hangs up is no news here."""


@contextlib.contextmanager
def serving():
    server = Server(("127.0.0.1", 0), Handler)
    server.script = Script()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.script, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as (script, url):
        yield script, url + "/dir/file.obo"


@pytest.fixture
def waits():
    return []


@pytest.fixture
def get(server, waits, tmp_path):
    """Downloads the server's file into an empty directory; waits take no time."""

    def run(**options):
        retry = Retry(**{"attempts": 4, "sleep": waits.append, **options.pop("retry", {})})
        return download(server[1], tmp_path / "d" / "file.obo", retry=retry, **options)

    return run


def left(tmp_path):
    return sorted(p.name for p in (tmp_path / "d").iterdir() if not p.name.startswith("."))


def test_a_whole_file(server, get, tmp_path, waits):
    told = []
    path = get(checksum=sha256(DATA), progress=lambda *args: told.append(args))
    assert path.read_bytes() == DATA
    assert left(tmp_path) == ["file.obo", "file.obo.origin.json"]
    assert {(step, total) for step, _, total in told} == {("file.obo", len(DATA))}
    done = [n for _, n, _ in told]
    assert done == sorted(done)
    assert done[-1] == len(DATA)
    assert not waits
    origin = json.loads((tmp_path / "d" / "file.obo.origin.json").read_text())
    assert origin == {"address": server[1], "etag": '"v1"', "modified": None, "size": len(DATA)}
    [request] = server[0].requests
    assert request["Accept-Encoding"] == "identity"
    assert request["User-Agent"].startswith("bioelx-ray/")
    assert not {"Authorization", "Cookie", "Range", "If-Range"} & set(request)


def test_a_broken_connection_is_resumed(server, get, waits):
    script, _ = server
    script.steps = [{"cut": 100_000}, {"cut": 50_000}, {}]
    assert get(checksum=sha256(DATA)).read_bytes() == DATA
    assert script.headers("Range") == [None, "bytes=100000-", "bytes=150000-"]
    assert script.headers("If-Range") == [None, '"v1"', '"v1"']
    assert waits == [1, 2]


def test_a_date_identifies_a_file_without_etag(server, get):
    script, _ = server
    script.etag, script.modified = None, "Wed, 01 Jan 2025 00:00:00 GMT"
    script.steps = [{"cut": 100_000}, {}]
    assert get().read_bytes() == DATA
    assert script.headers("If-Range") == [None, script.modified]


@pytest.mark.parametrize("etag", ['W/"v1"', None])
def test_a_file_that_cannot_be_identified_starts_again(server, get, etag):
    script, _ = server
    script.etag = etag
    script.steps = [{"cut": 100_000}, {}]
    assert get().read_bytes() == DATA
    assert script.headers("Range") == [None, None]


def test_a_server_without_ranges_starts_again(server, get):
    script, _ = server
    script.ranges = False
    script.steps = [{"cut": 200_000}, {"cut": 100_000}, {}]
    assert get().read_bytes() == DATA
    assert script.headers("Range") == [None, "bytes=200000-", "bytes=100000-"]


def test_a_file_that_changes_in_between_starts_again(server, get):
    script, _ = server
    script.steps = [{"cut": 100_000}, {"change": {"etag": '"v2"', "body": OTHER}}]
    assert get(checksum=sha256(OTHER)).read_bytes() == OTHER
    assert script.headers("If-Range") == [None, '"v1"']


@pytest.mark.parametrize(
    "step",
    [
        {"shift": 1},  # another range than the one asked for
        {"change": {"etag": '"v2"'}},  # If-Range is ignored
        {"change": {"body": OTHER}},  # the same ETag, another size
    ],
)
def test_a_range_that_does_not_continue_the_part_starts_again(server, get, step):
    script, _ = server
    script.careless = True
    script.steps = [{"cut": 100_000}, step, {}]
    assert get().read_bytes() == script.body
    assert script.headers("Range") == [None, "bytes=100000-", None]


def test_a_part_of_unknown_size(server, get, tmp_path):
    script, _ = server
    script.steps = [{"chunked": True, "cut": 100_000}, {"chunked": True}]
    told = []
    assert get(progress=lambda *args: told.append(args)).read_bytes() == DATA
    assert script.requests[1]["Range"].startswith("bytes=99")
    assert told[-1] == ("file.obo", len(DATA), len(DATA))
    origin = json.loads((tmp_path / "d" / "file.obo.origin.json").read_text())
    assert origin["size"] == len(DATA)


def test_a_whole_part_of_unknown_size_is_recognised(server, get):
    script, _ = server
    script.steps = [{"chunked": True, "cut": len(DATA) + 9}, {"chunked": True}]
    assert get().read_bytes() == DATA
    assert script.headers("Range") == [None, f"bytes={len(DATA)}-"]


def test_a_range_that_the_server_has_not_starts_again(server, get):
    script, _ = server
    script.steps = [
        {"cut": 100_000},
        {"status": 416, "headers": {"Content-Range": "bytes */9"}},
        {},
    ]
    assert get().read_bytes() == DATA
    assert script.headers("Range") == [None, "bytes=100000-", None]


def test_an_empty_file(server, get):
    server[0].body = b""
    assert get(checksum=sha256(b"")).read_bytes() == b""


def test_attempts_are_bounded_and_the_part_is_kept(server, get, waits, tmp_path):
    script, _ = server
    script.steps = [{"cut": 100_000}, {"cut": 0}]
    with pytest.raises(InputError, match="given up after 4 attempts"):
        get()
    assert waits == [1, 2, 4]
    assert left(tmp_path) == ["file.obo.part", "file.obo.part.json"]
    assert (tmp_path / "d" / "file.obo.part").read_bytes() == DATA[:100_000]


def test_progress_renews_the_attempts(server, get, waits):
    server[0].steps = [{"cut": 30_000}]
    assert get(retry={"attempts": 2, "renewed_by": 10_000}).read_bytes() == DATA
    assert waits == [1] * 9


def test_starting_again_and_again_is_no_progress(server, get, waits):
    server[0].ranges = False
    server[0].steps = [{"cut": 200_000}]
    with pytest.raises(InputError, match="given up after 2 attempts"):
        get(retry={"attempts": 2, "renewed_by": 300_000})
    with pytest.raises(InputError, match="given up"):
        get(retry={"attempts": 3, "renewed_by": 10_000})
    assert len(server[0].requests) < 8


def test_what_will_not_pass_is_not_asked_for_again(server, get, waits):
    for status in (404, 403, 410):
        server[0].steps = [{"status": status}]
        with pytest.raises(InputError, match=rf"file\.obo: the server answers {status}"):
            get()
    assert len(server[0].requests) == 3
    assert not waits


def test_errors_that_pass(server, get, waits):
    server[0].steps = [{"status": s} for s in (500, 502, 503)] + [{}]
    assert get().read_bytes() == DATA
    assert waits == [1, 2, 4]


def test_the_server_says_how_long_to_wait(server, get, waits):
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    server[0].steps = [
        *({"status": 429, "headers": {"Retry-After": w}} for w in ("7", at, past, "soon")),
        {},
    ]
    assert get(retry={"attempts": 9}).read_bytes() == DATA
    assert waits[0] == 7
    assert waits[1] == pytest.approx(90, abs=5)
    assert waits[2:] == [0, 8]


def test_too_long_a_wait_is_not_waited_for(server, get, waits):
    server[0].steps = [{"status": 429, "headers": {"Retry-After": "86400"}}]
    with pytest.raises(InputError, match="asks to wait for 86400 s"):
        get()
    assert not waits


def test_a_server_that_is_not_there(tmp_path, waits):
    with serving() as (_, url):
        pass
    with pytest.raises(InputError, match="ConnectError"):
        download(url + "/x", tmp_path / "x", retry=Retry(attempts=3, sleep=waits.append))
    assert waits == [1, 2]


def test_a_server_that_says_nothing(server, tmp_path, waits):
    script, address = server
    script.steps = [{"headers": {}, "cut": 10}]
    with new_client() as client, contextlib.ExitStack() as stack:
        client.timeout = 0.05
        release = threading.Event()
        stack.callback(release.set)
        kept = Handler.do_GET
        stack.callback(setattr, Handler, "do_GET", kept)
        Handler.do_GET = lambda self: release.wait(10)
        with pytest.raises(InputError, match="ReadTimeout"):
            download(
                address,
                tmp_path / "x",
                retry=Retry(attempts=2, sleep=waits.append),
                client=client,
            )


def test_a_wrong_checksum_keeps_the_bytes_aside(server, get, tmp_path):
    with pytest.raises(InputError) as caught:
        get(checksum=sha256(b"x"))
    assert sha256(DATA).digest in str(caught.value)
    assert sha256(b"x").digest in str(caught.value)
    assert left(tmp_path) == ["file.obo.bad"]
    assert (tmp_path / "d" / "file.obo.bad").read_bytes() == DATA
    assert get(checksum=sha256(DATA)).read_bytes() == DATA
    assert server[0].headers("Range") == [None, None]


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_checksums_of_every_kind(get, algorithm):
    digest = hashlib.new(algorithm, DATA).hexdigest().upper()
    assert get(checksum=Checksum(algorithm=algorithm, digest=digest)).read_bytes() == DATA


def test_a_finished_file_is_not_downloaded_again(server, get):
    get()
    assert get().read_bytes() == DATA
    assert server[0].headers("If-None-Match") == [None, '"v1"']
    get(checksum=sha256(DATA))
    assert len(server[0].requests) == 2


def test_a_finished_file_without_etag_is_asked_for_by_its_date(server, get):
    script, _ = server
    script.etag, script.modified = None, "Wed, 01 Jan 2025 00:00:00 GMT"
    get()
    script.steps = [{"status": 304}]
    assert get().read_bytes() == DATA
    assert script.headers("If-Modified-Since") == [None, script.modified]


def test_a_finished_file_that_has_changed_is_replaced(server, get, tmp_path):
    path = get()
    server[0].body, server[0].etag = OTHER, '"v2"'
    server[0].steps = [{"cut": 5}]
    with pytest.raises(InputError, match="given up"):
        get()
    assert path.read_bytes() == DATA
    server[0].steps = []
    assert get().read_bytes() == OTHER
    assert left(tmp_path) == ["file.obo", "file.obo.origin.json"]


def test_a_finished_file_that_was_damaged_is_replaced(server, get):
    path = get()
    path.write_bytes(DATA[:1000])
    assert get().read_bytes() == DATA
    path.write_bytes(OTHER)
    assert get(checksum=sha256(DATA)).read_bytes() == DATA


def test_a_file_of_someone_else_is_not_touched(server, get, tmp_path):
    (tmp_path / "d").mkdir()
    mine = tmp_path / "d" / "file.obo"
    mine.write_bytes(b"mine")
    for checksum in (None, sha256(DATA)):
        with pytest.raises(InputError, match="not downloaded by this program"):
            get(checksum=checksum)
    assert mine.read_bytes() == b"mine"
    assert get(checksum=sha256(b"mine")) == mine
    assert not server[0].requests


def test_a_part_beside_a_file_that_is_up_to_date_goes(get, tmp_path):
    get()
    (tmp_path / "d" / "file.obo.part").write_bytes(b"x")
    assert get().read_bytes() == DATA
    assert left(tmp_path) == ["file.obo", "file.obo.origin.json"]


class Killed(BaseException):
    """As KeyboardInterrupt, which pytest takes for itself."""


def test_an_interrupted_download_goes_on_in_the_next_call(server, get, tmp_path):
    def kill(step, done, total):
        if done > 1000:
            raise Killed

    with pytest.raises(Killed):
        get(progress=kill)
    held = (tmp_path / "d" / "file.obo.part").stat().st_size
    assert 1000 < held < len(DATA)
    told = []
    assert get(progress=lambda *args: told.append(args[1])).read_bytes() == DATA
    assert server[0].headers("Range") == [None, f"bytes={held}-"]
    assert told[0] > held


def test_killed_before_the_last_step(server, get, tmp_path, monkeypatch):
    monkeypatch.setattr("bioelx_ray.kb.fetch.download._save", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        get()
    monkeypatch.undo()
    directory = tmp_path / "d"
    (directory / "file.obo.part").write_bytes(DATA)
    state = {"address": server[1], "etag": '"v1"', "modified": None, "size": len(DATA)}
    (directory / "file.obo.part.json").write_text(json.dumps(state))
    assert get().read_bytes() == DATA
    assert len(server[0].requests) == 1


@pytest.mark.parametrize(
    "state",
    [
        None,
        "{",
        '{"address": 1}',
        '{"address": "http://x/", "etag": "\\"v1\\"", "modified": null, "size": 300000}',
        '{"address": "ADDRESS", "etag": "\\"v1\\"", "modified": null, "size": 3}',
    ],
)
def test_a_part_of_unknown_origin_is_not_trusted(server, get, tmp_path, state):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "file.obo.part").write_bytes(b"something else")
    if state:
        (tmp_path / "d" / "file.obo.part.json").write_text(state.replace("ADDRESS", server[1]))
    assert get().read_bytes() == DATA
    assert server[0].headers("Range") == [None]


def test_a_disk_that_fills_up(server, get, tmp_path):
    """The kernel refuses to write past a limit, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, hard))
    try:
        with pytest.raises(InputError, match=r"part: cannot be written .* make room"):
            get()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    held = (tmp_path / "d" / "file.obo.part").stat().st_size
    assert 0 < held <= 120_000
    assert get(checksum=sha256(DATA)).read_bytes() == DATA
    assert server[0].headers("Range") == [None, f"bytes={held}-"]


def test_a_disk_without_room_is_noticed_before(get, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(InputError, match=r"300,000 bytes are still to come.* room for 1,000"):
        get()
    assert left(tmp_path) == []
    # a part that is given up makes room
    (tmp_path / "d" / "file.obo.part").write_bytes(OTHER)
    assert get().read_bytes() == DATA


def test_a_directory_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        download(server[1], tmp_path / "file" / "x")


def test_two_processes_do_not_write_one_part(get, tmp_path):
    (tmp_path / "d").mkdir()
    with (tmp_path / "d" / ".file.obo.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process"):
            get()
    assert get().read_bytes() == DATA


def test_redirects_are_followed_with_the_range(server, get):
    script, _ = server
    away = {"status": 302, "headers": {"Location": "/away", "Set-Cookie": "a=b"}}
    script.steps = [away, {"cut": 100_000}, away, {}]
    assert get().read_bytes() == DATA
    assert script.headers("path") == ["/dir/file.obo", "/away"] * 2
    assert script.headers("Range") == [None, None, "bytes=100000-", "bytes=100000-"]
    assert script.headers("Cookie") == [None] * 4


def test_redirects_without_end(server, get):
    server[0].steps = [{"status": 302, "headers": {"Location": "/away"}}]
    with pytest.raises(InputError, match="more than 10 redirects"):
        get()


def test_credentials_are_not_sent(server, get, tmp_path):
    script, address = server
    with_credentials = address.replace("//", "//me:secret@")
    with pytest.raises(InputError, match="credentials"):
        download(with_credentials, tmp_path / "x")
    script.steps = [{"status": 302, "headers": {"Location": with_credentials}}, {}]
    with pytest.raises(InputError, match="credentials"):
        get()
    assert script.headers("Authorization") == [None]


def test_a_redirect_out_of_https_is_refused(tmp_path):
    import httpx

    asked = []

    def answer(request):
        asked.append(str(request.url))
        return httpx.Response(302, headers={"Location": "http://example.org/x"})

    with (
        httpx.Client(transport=httpx.MockTransport(answer)) as client,
        pytest.raises(InputError, match="not encrypted"),
    ):
        download("https://example.org/x", tmp_path / "x", client=client)
    assert asked == ["https://example.org/x"]


def test_a_packed_answer_is_refused(server, get):
    server[0].steps = [{"headers": {"Content-Encoding": "gzip"}}]
    with pytest.raises(InputError, match="packed as gzip"):
        get()


@pytest.mark.parametrize("status", [204, 304])
def test_answers_that_hold_no_file(server, get, tmp_path, status):
    server[0].steps = [{"status": status}]
    with pytest.raises(InputError, match=f"answers {status}"):
        get()
    assert left(tmp_path) == []


@pytest.mark.parametrize("address", ["http://", "nonsense", "ftp://example.org/x"])
def test_addresses_that_are_none(tmp_path, address):
    with pytest.raises(InputError, match="check the address"):
        download(address, tmp_path / "x")


def test_the_contact_is_told(server, tmp_path):
    with new_client("mailto:me@example.org") as client:
        download(server[1], tmp_path / "x", client=client)
    assert server[0].requests[0]["User-Agent"].endswith(" (mailto:me@example.org)")
    for bad in ("a\nb", "ü@example.org"):
        with pytest.raises(InputError, match="expected an e-mail"):
            new_client(bad)


def test_published_checksums(server):
    script, address = server
    digest = hashlib.sha1(DATA).hexdigest()
    script.body = (
        f"{'0' * 40}  file.obo.gz\r\n{'0' * 32}  file.obo\nrubbish \xff\n{digest} *file.obo\n"
    ).encode("latin-1")
    script.steps = [{"status": 503}, {"cut": 10}, {}]
    retry = Retry(sleep=lambda seconds: None)
    found = published_checksum(address, "file.obo", algorithm="sha1", retry=retry)
    assert found == Checksum(algorithm="sha1", digest=digest)
    with pytest.raises(InputError, match="holds no sha1 checksum of other"):
        published_checksum(address, "other", algorithm="sha1")
    script.body = b"0" * (MAX_LIST + 1)
    with pytest.raises(InputError, match="too long"):
        published_checksum(address, "file.obo", algorithm="sha1")


def test_a_full_disk_says_so(get, tmp_path, monkeypatch):
    """ENOSPC at the last step: the state cannot be written."""

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("bioelx_ray.kb.fetch.download.os.fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        get()
