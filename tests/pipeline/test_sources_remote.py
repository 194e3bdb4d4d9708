"""HTTP and S3 sources on loopback servers: what is found, what is read, which faults pass and which do not."""

from __future__ import annotations

import functools
import http.server
import json
import socket
import threading
import time
from dataclasses import replace

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.errors import RequestError
from manifests.store import Store
from manifests.tars import TarWriter
from pipeline import opening
from pipeline.ingest import StoreConfig, ingest
from pipeline.opening import open_input
from pipeline.shipped_speech import conversation_path
from pipeline.sources import ColumnMap, list_inputs


def read(item) -> bytes:
    with open_input(item) as file:
        return file.read()


class Handler(http.server.SimpleHTTPRequestHandler):
    """A folder over HTTP, with ranges; files named ``<status>-…`` answer with that status, ``cut-…`` break off half-way."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer(with_body=True)

    def do_HEAD(self):
        self._answer(with_body=False)

    def _answer(self, with_body):
        self.server.requests.append((self.command, self.path))
        name = self.path.partition("?")[0].rsplit("/", 1)[1]
        status = name.split("-")[0]
        if status.isdigit() and (with_body or not self.server.is_well_while_listed):
            self.send_response(int(status))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        with open(self.translate_path(self.path), "rb") as file:
            data = file.read()
        start, stop = 0, len(data)
        if wanted := self.headers.get("Range"):
            first, last = wanted.removeprefix("bytes=").split("-")
            start, stop = int(first), min(stop, int(last) + 1)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{len(data)}"')
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.end_headers()
        if with_body:
            self.wfile.write(data[start : start + (stop - start) // 2] if name.startswith("cut") else data[start:stop])
            self.close_connection = name.startswith("cut")


@pytest.fixture
def web(tmp_path):
    """(folder that is served, its address, the server)."""
    folder = tmp_path / "web"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    server.requests, server.is_well_while_listed = [], True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}", server
    server.shutdown()


def shard() -> bytes:
    tar = TarWriter()
    tar.add("a.flac", b"A" * 5000)
    tar.add("a.json", b'{"transcript": "one"}')
    tar.add("b.flac", b"B" * 3)
    return tar.close()[0]


def parquet(folder, name="t.parquet"):
    audio = pa.array(
        [{"bytes": bytes([i]) * 9, "path": None} for i in range(5)], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    pq.write_table(pa.table({"audio": audio}), folder / name)
    return folder / name


def test_urls_alone_in_lists_and_in_manifests(web, tmp_path):
    folder, address, server = web
    for i in range(30):
        (folder / f"{i}.wav").write_bytes(bytes([i]) * (i + 1))
    (folder / "m.jsonl").write_text(json.dumps({"path": "3.wav", "text": "three"}))
    (tmp_path / "urls.txt").write_text("".join(f"{address}/{i}.wav?sig=x%2F1\n" for i in range(30)))
    found = list_inputs([str(tmp_path / "urls.txt")])
    assert sorted(item.num_bytes for item in found) == list(range(1, 31))
    server.requests.clear()
    assert sorted(map(read, found)) == [bytes([i]) * (i + 1) for i in range(30)]
    assert {command for command, _ in server.requests} == {"GET"}
    assert len(server.requests) == 30  # one request an input
    (alone,) = list_inputs([f"{address}/7.wav"])
    assert (alone.uri, alone.num_bytes, alone.version) == (f"{address}/7.wav", 8, "8")
    (named,) = list_inputs([f"{address}/m.jsonl"])
    assert (named.uri, named.facts["text"], read(named)) == (f"{address}/3.wav", "three", b"\3" * 4)


def test_tars_and_tables_over_http_are_read_by_range(web):
    folder, address, _server = web
    (folder / "s.tar").write_bytes(shard())
    parquet(folder)
    a, b = list_inputs([f"{address}/s.tar"], ColumnMap(text="transcript"))
    assert (read(a), read(b), a.facts["text"], a.uri) == (b"A" * 5000, b"B" * 3, "one", f"{address}/s.tar#a.flac")
    assert [read(item) for item in list_inputs([f"{address}/t.parquet"])] == [bytes([i]) * 9 for i in range(5)]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("404-a.wav", "does not exist"), ("403-a.wav", "may not be read.*HTTP 403"), ("503-a.wav", "cannot be reached.*503")],
)
def test_a_bad_url_in_a_list_is_named_with_its_line(web, tmp_path, name, complaint):
    folder, address, server = web
    server.is_well_while_listed = False
    (folder / "a.wav").write_bytes(b"a")
    (tmp_path / "urls.txt").write_text(f"{address}/a.wav\n{address}/{name}\n")
    with pytest.raises(RequestError, match=f"line 2: '{address}/{name}' {complaint}"):
        list_inputs([str(tmp_path / "urls.txt")])


@pytest.mark.parametrize(
    ("name", "kind"), [("404-a.wav", FileNotFoundError), ("410-a.wav", FileNotFoundError), ("403-a.wav", PermissionError)]
)
def test_what_will_not_pass_is_quarantined(web, name, kind):
    folder, address, _ = web
    (folder / name).write_bytes(b"x")
    (item,) = list_inputs([f"{address}/{name}"])
    with pytest.raises(kind), open_input(item) as file:
        file.read()
    (row,) = ingest(item, StoreConfig(), TarWriter(), {}).quarantine_rows
    assert row["reason"] == ("not_readable" if kind is PermissionError else "gone")
    assert "None" not in row["message"]


@pytest.mark.parametrize("name", ["503-a.wav", "429-a.wav", "500-a.wav", "cut-a.wav"])
def test_what_may_pass_is_an_os_error_for_the_engine_to_try_again(web, name):
    folder, address, _ = web
    (folder / name).write_bytes(b"x" * 100_000)
    (item,) = list_inputs([f"{address}/{name}"])
    with pytest.raises(OSError, match=r"HTTP|status|payload|Response|TransferEncoding|429|50") as fault:
        ingest(item, StoreConfig(), TarWriter(), {})
    assert not isinstance(fault.value, FileNotFoundError | PermissionError)


def test_an_answer_that_is_no_http_may_pass(web):
    folder, address, _ = web
    (folder / "a.wav").write_bytes(b"x")
    (item,) = list_inputs([f"{address}/a.wav"])
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def garble():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"garbage\r\n\r\n")

        threading.Thread(target=garble, daemon=True).start()
        moved = replace(item, uri=f"http://127.0.0.1:{port}/a.wav")
        with pytest.raises(ConnectionError, match="ClientResponseError"), open_input(moved) as file:
            file.read()


def test_a_server_that_is_not_there_is_told(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(RequestError, match="cannot be reached"):
            list_inputs([f"http://127.0.0.1:{taken.getsockname()[1]}/a.wav"])


@pytest.fixture(scope="module")
def bucket(s3, tmp_path_factory):
    """A bucket with two files of audio, a shard and a table."""
    uri, folder = s3.bucket(), tmp_path_factory.mktemp("bucket")
    fs = fsspec.filesystem("s3")
    fs.pipe(f"{uri}/in/a b#1.wav", b"a" * 10)
    fs.pipe(f"{uri}/in/deep/b.flac", b"b" * 20)
    fs.pipe(f"{uri}/in/notes.pdf", b"x")
    fs.pipe(f"{uri}/s.tar", shard())
    fs.pipe(f"{uri}/t.parquet", parquet(folder).read_bytes())
    fs.pipe(f"{uri}/in/m.jsonl", json.dumps({"path": "deep/b.flac", "text": "bee"}).encode())
    return uri


def test_a_bucket_is_a_folder_a_glob_a_manifest_a_shard_and_a_table(bucket):
    a, b = list_inputs([f"{bucket}/in"])
    assert (a.uri, b.uri, a.num_bytes) == (f"{bucket}/in/a b#1.wav", f"{bucket}/in/deep/b.flac", 10)
    assert (read(a), read(b)) == (b"a" * 10, b"b" * 20)
    assert list_inputs([f"{bucket}/in/*.wav"]) == [a]
    (named,) = list_inputs([f"{bucket}/in/m.jsonl"])
    assert (named.input_id, named.facts["text"]) == (b.input_id, "bee")
    members = list_inputs([f"{bucket}/s.tar"])
    assert [read(item) for item in members] == [b"A" * 5000, b"B" * 3]
    rows = list_inputs([f"{bucket}/*.parquet"])
    assert [read(item) for item in rows] == [bytes([i]) * 9 for i in range(5)]
    assert list_inputs([f"{bucket}/s.tar", f"{bucket}/t.parquet"], planned=[*members, *rows]) == []


def test_many_files_of_a_bucket_cost_a_listing_not_a_request_each(s3, s3_at, serve, tmp_path):
    uri, requests = s3.bucket(), []
    fs = fsspec.filesystem("s3")
    fs.pipe({f"{uri}/{i:03d}.wav": b"x" * i for i in range(150)})
    (tmp_path / "m.txt").write_text("".join(f"{uri}/{i:03d}.wav\n" for i in range(150)))

    def counting(environ, start_response):
        requests.append(environ["REQUEST_METHOD"])
        return s3.application(environ, start_response)

    s3_at(serve(counting))
    assert [item.num_bytes for item in list_inputs([str(tmp_path / "m.txt")])] == list(range(150))
    assert len(requests) <= 3


def test_what_is_not_in_the_bucket_and_a_bucket_that_is_not_are_told(bucket):
    with pytest.raises(RequestError, match="does not exist"):
        list_inputs([f"{bucket}/nowhere"])
    with pytest.raises(RequestError, match="'s3://no-such-bucket-here/in' does not exist"):
        list_inputs(["s3://no-such-bucket-here/in"])
    with pytest.raises(RequestError, match=r"holds no audio|does not exist"):
        list_inputs(["s3://no-such-bucket-here/*.wav"])


@pytest.mark.slow  # the client's own patience
def test_an_endpoint_that_is_not_there_is_told_in_bounded_time(s3_at):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        s3_at(f"http://127.0.0.1:{taken.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(RequestError, match=r"cannot be reached.*Could not connect"):
            list_inputs(["s3://b/in"])
        assert time.monotonic() - began < 30


def test_faults_of_the_bucket_while_it_is_read(s3, s3_at, serve, bucket):
    item = list_inputs([f"{bucket}/in/deep/b.flac"])[0]
    member = list_inputs([f"{bucket}/s.tar"])[0]
    status = ["403 Forbidden"]

    def failing(_, start_response):
        start_response(status[0], [("Content-Length", "0")])
        return [b""]

    s3_at(serve(failing))
    opening._unchanged.cache_clear()  # as in a new worker
    for opened in (item, member):
        with pytest.raises(PermissionError), open_input(opened) as file:
            file.read()
    status[0] = "500 Internal Server Error"
    with pytest.raises(OSError, match=r"500|Internal") as fault:
        ingest(item, StoreConfig(), TarWriter(), {})
    assert not isinstance(fault.value, FileNotFoundError | PermissionError)


@pytest.mark.slow
def test_a_corpus_in_a_bucket_is_that_on_disk(s3, light, tmp_path, assert_equal_corpora):
    from pipeline.build import build

    source = f"{s3.bucket()}/in/conversation.wav"
    fsspec.filesystem("s3").put(conversation_path(), source)
    out = f"{s3.bucket()}/corpus"
    built = build([source], out, light())
    assert (built.num_recordings, built.num_refused) == (1, 0)
    assert build([source], out, light()).num_tasks_done == 0
    build([source], str(tmp_path / "corpus"), light())
    assert_equal_corpora(out, str(tmp_path / "corpus"))
    assert Store(out).exists("corpus.json")
