"""Test downloads from a local server."""

import gzip
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path

import pytest

from aae_core.data.fetch import fetch_files
from aae_core.data.mnist import IdxDataSet, IdxSet
from aae_core.data.sets import TrainingData
from aae_core.data.svhn import Svhn
from aae_core.errors import DataError


@dataclass
class Server:
    url: str  # URL of the folder `files`, ending in a slash
    files: Path
    requests: list[str] = field(default_factory=list)

    def mirror(self, name: str) -> str:
        (self.files / name).mkdir(exist_ok=True)
        return f"{self.url}{name}/"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    files = tmp_path / "served"
    files.mkdir()
    requests: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            requests.append(self.path)

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(files)))
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Server(f"http://127.0.0.1:{httpd.server_port}/", files, requests)
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def good(server: Server, idx_bytes: dict[str, bytes]) -> str:
    mirror = server.mirror("good")
    for name, content in idx_bytes.items():
        (server.files / "good" / f"{name}.gz").write_bytes(gzip.compress(content))
    return mirror


def _set(published: IdxDataSet, root: Path, *mirrors: str) -> IdxSet:
    return IdxSet(replace(published, mirrors=mirrors), root)


def _fetch_and_read(data_set: IdxSet) -> TrainingData:
    data_set.fetch("train")
    return data_set.training()


def test_fetch_downloads_only_the_files_of_the_split(
    server: Server, good: str, published: IdxDataSet, tmp_path: Path
) -> None:
    data_set = _set(published, tmp_path / "root", good)
    data_set.fetch("train")
    assert sorted(server.requests) == ["/good/train-images.gz", "/good/train-labels.gz"]
    data_set.fetch()
    assert len(server.requests) == 4
    data_set.fetch()
    assert len(server.requests) == 4
    assert all(verdict.ok for verdict in data_set.verify())
    assert not list(data_set.folder.glob("*.part"))


def test_fetch_tries_the_next_mirror_after_a_failure(
    server: Server, good: str, published: IdxDataSet, tmp_path: Path
) -> None:
    unreachable, empty, wrong = (
        "http://127.0.0.1:1/",
        server.mirror("empty"),
        server.mirror("wrong"),
    )
    for name in ("train-images.gz", "train-labels.gz"):
        (server.files / "wrong" / name).write_bytes(gzip.compress(b"\0\0\x08\x01 other bytes"))
    data = _fetch_and_read(_set(published, tmp_path / "root", unreachable, empty, wrong, good))
    assert data.x_train.shape == (40, 36)


def test_fetch_error_names_the_failure_of_every_mirror(
    server: Server, published: IdxDataSet, tmp_path: Path
) -> None:
    mirrors = "http://127.0.0.1:1/", server.mirror("empty"), server.mirror("wrong")
    (server.files / "wrong" / "train-images.gz").write_bytes(b"<html>")
    data_set = _set(published, tmp_path / "root", *mirrors)
    with pytest.raises(DataError) as caught:
        data_set.fetch("train")
    first, unreachable, not_found, wrong, advice = str(caught.value).splitlines()
    assert first == f"train-images.gz, train-labels.gz: not in {data_set.folder}"
    assert unreachable.strip() == "http://127.0.0.1:1/train-images.gz: ConnectionError"
    assert not_found.strip() == f"{mirrors[1]}train-images.gz: HTTP status 404"
    assert "wrong content: " in wrong
    assert "begins with 0x3c68746d" in wrong
    assert "AAE_DATA" in advice
    assert "the sweep quickstart" in advice
    assert [path.name for path in data_set.folder.iterdir() if path.name != ".lock"] == []


def test_fetch_error_names_a_folder_that_cannot_be_created(
    published: IdxDataSet, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    data_set = _set(published, tmp_path / "file", "http://127.0.0.1:1/")
    with pytest.raises(
        DataError, match=r"train-images\.gz, .*\n  the folder cannot be written: Not"
    ) as caught:
        data_set.fetch()
    assert f"runs: aae-sweep data fetch {data_set.folder.name}\n" in str(caught.value)


def test_fetch_from_several_threads_downloads_once(
    server: Server, good: str, published: IdxDataSet, tmp_path: Path
) -> None:
    data_set = _set(published, tmp_path / "root", good)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(_fetch_and_read, [data_set] * 4))
    assert len({data.sha256 for data in read}) == 1
    assert sorted(server.requests) == ["/good/train-images.gz", "/good/train-labels.gz"]


def test_fetch_from_several_processes_downloads_once(
    server: Server, good: str, published: IdxDataSet, tmp_path: Path
) -> None:
    data_set = _set(published, tmp_path / "root", good)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        read = list(pool.map(_fetch_and_read, [data_set] * 2))
    assert len({data.sha256 for data in read}) == 1
    assert sorted(server.requests) == ["/good/train-images.gz", "/good/train-labels.gz"]


def test_fetch_overwrites_the_partial_download_of_a_killed_process(
    good: str, tmp_path: Path
) -> None:
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / ".train-images.gz.part").write_bytes(b"torn" * 10_000)
    fetch_files(["train-images.gz"], folder, [good], check=lambda path, name: None)
    assert (folder / "train-images.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert not (folder / ".train-images.gz.part").exists()


def test_svhn_fetch_accepts_only_the_published_checksum(
    server: Server, svhn_set: Svhn, tmp_path: Path
) -> None:
    good, wrong = server.mirror("svhn"), server.mirror("wrong")
    for path in svhn_set.folder.iterdir():
        path.rename(server.files / "svhn" / path.name)
        (server.files / "wrong" / path.name).write_bytes(b"other bytes")
    fetching = replace(svhn_set, mirrors=(wrong, good))
    fetching.fetch()
    assert sorted(server.requests) == [
        f"/{mirror}/{split}_32x32.mat"
        for mirror in ("svhn", "wrong")
        for split in ("test", "train")
    ]
    replace(fetching, extra=True).fetch("train")
    assert sorted(path.name for path in svhn_set.folder.glob("*.mat")) == [
        "extra_32x32.mat", "test_32x32.mat", "train_32x32.mat",
    ]  # fmt: skip
    assert all(verdict.ok for verdict in svhn_set.verify())
    with pytest.raises(DataError, match=r"wrong content: .*not the published train_32x32\.mat"):
        replace(svhn_set, root=tmp_path / "elsewhere", mirrors=(wrong,)).fetch("train")


def test_fetch_prints_nothing_to_either_stream(
    good: str, published: IdxDataSet, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _set(published, tmp_path / "root", good).fetch()
    assert capfd.readouterr() == ("", "")
