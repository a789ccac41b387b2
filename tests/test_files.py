"""Files are written whole or not at all."""

from __future__ import annotations

import os
import stat

import pytest

from captum_transformer_lrp._files import write, written_whole


def test_a_file_is_replaced_and_keeps_its_mode(tmp_path):
    path = tmp_path / "report.html"
    write(path, "old")
    path.chmod(0o640)
    write(str(path), "new, ü\n")
    assert path.read_bytes() == "new, ü\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    write(path, b"bytes")
    assert path.read_bytes() == b"bytes"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_stood_there_stays_if_writing_fails(tmp_path, error):
    path = tmp_path / "report.html"
    write(path, "old")
    with pytest.raises(error), written_whole(path) as part:
        part.write_text("half of the n")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    write(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path):
    path, link = tmp_path / "real.html", tmp_path / "link.html"
    write(path, "old")
    link.symlink_to(path)
    write(link, "new")
    assert link.is_symlink() and path.read_text() == "new"


def test_what_is_no_file_is_written_directly(tmp_path):
    write(os.devnull, "nothing")
    assert not os.path.isfile(os.devnull)


def test_two_who_write_one_file_do_not_share_a_part(tmp_path):
    path = tmp_path / "report.html"
    with written_whole(path) as first, written_whole(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_a_name_may_be_as_long_as_the_system_lets_it(tmp_path):
    path = tmp_path / ("a" * 250 + ".html")
    write(path, "new")
    assert path.read_text() == "new"
