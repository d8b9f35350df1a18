"""Unpacking: everything comes back, and nothing that is damaged or means harm is unpacked, anywhere."""

import collections
import contextlib
import gzip
import io
import json
import os
import random
import resource
import shutil
import stat
import tarfile
import zipfile

import pytest

from engine.errors import ConfigurationError
from engine.pack import pack, unpack
from engine.packing import archive_reader, manifest
from engine.packing.manifest import NAME, ManifestError, path_fault
from tests.helpers.packed_runs import archive, digest, manifest_text, member

CONFIG = member("config.gin", b"# the configuration\n")


def contents_of(folder):
    """Everything in a folder: path -> contents of a file, target of a link, or None for a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    return found


@pytest.fixture
def refused(packing, tmp_path):
    """Unpacks bytes, which must be refused with one line, without a trace on the disk; returns the line."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")

    def run(contents):
        path = tmp_path / "run.tar"
        path.write_bytes(contents)
        before = contents_of(tmp_path)
        code, said, errors = packing(unpack=path, output=tmp_path / "inner" / "run")
        assert (code, said, errors.count("\n")) == (2, "", 1), errors
        assert "Traceback" not in errors
        assert contents_of(tmp_path) == before
        return errors

    return run


def test_everything_comes_back(small_run, packing, tmp_path):
    code, said, errors = packing(workdir=small_run, output=tmp_path / "run.tar")
    assert (code, errors) == (0, "")
    assert "16 files" in said and "--unpack=" in said
    code, said, errors = packing(unpack=tmp_path / "run.tar", output=tmp_path / "a" / "b" / "copy")
    assert (code, errors) == (0, "")
    copy = tmp_path / "a" / "b" / "copy"
    assert contents_of(copy) == contents_of(small_run)
    assert os.listdir(copy.parent) == ["copy"]
    pair = [copy / folder / "00000008" / "state.index" for folder in ("best", "checkpoints")]
    assert os.path.samefile(*pair)
    assert not [
        path for path in copy.rglob("*") if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o111
    ]
    assert f"--gin_file={copy}/config.gin --workdir={copy}\n" in said


def test_without_hard_links_shared_files_are_copied(small_run, tmp_path, monkeypatch):
    def no_links(source, target):
        raise OSError(1, "Operation not permitted")

    pack(workdir=str(small_run), output=str(tmp_path / "run.tar"))
    monkeypatch.setattr(os, "link", no_links)
    unpack(archive=str(tmp_path / "run.tar"), output=str(tmp_path / "copy"))
    assert contents_of(tmp_path / "copy") == contents_of(small_run)


def test_long_and_foreign_names(small_run, tmp_path):
    for name in ("x" * 200, "Fußgänger 写真.png", "a b'c"):
        (small_run / "samples" / name).write_text(name)
    pack(workdir=str(small_run), output=str(tmp_path / "run.tar"))
    unpack(archive=str(tmp_path / "run.tar"), output=str(tmp_path / "copy"))
    assert contents_of(tmp_path / "copy") == contents_of(small_run)
    with tarfile.open(tmp_path / "run.tar") as other:  # what any other program sees
        assert f"samples/{'x' * 200}" in other.getnames()


def test_a_name_that_not_every_system_has_is_refused_before_it_is_packed(small_run, packing, tmp_path):
    (small_run / "samples" / "12:30.png").write_text("")
    code, _, errors = packing(workdir=small_run, output=tmp_path / "run.tar")
    assert code == 2 and "'samples/12:30.png' has characters" in errors and "rename or remove it" in errors
    assert not (tmp_path / "run.tar").exists()


# --- archives that mean harm

BAD_PATHS = [
    ("../evil", "leads out"),
    ("checkpoints/../../evil", "leads out"),
    ("..", "leads out"),
    ("a\\..\\..\\evil", "leads out"),
    ("/tmp/evil", "absolute"),
    ("\\\\server\\share\\evil", "absolute"),
    ("\\evil", "absolute"),
    ("C:\\evil", "absolute"),
    ("c:evil", "absolute"),
    ("samples\\evil", "characters"),
    ("config.gin:stream", "characters"),
    ("line\nbreak", "characters"),
    ("\x1b[2Jevil", "characters"),
    ("name\udcff", "characters"),
    ("./config.gin", "plain"),
    ("samples//evil", "plain"),
    ("samples/./evil", "plain"),
    ("config.gin.", "plain"),
    ("config.gin ", "plain"),
    ("", "plain"),
    ("x/" * 600 + "x", "too long"),
    ("x" * 256, "too long"),
    (NAME, "manifest"),
    (f"{NAME}/x", "manifest"),
]


@pytest.mark.parametrize("path, expected", BAD_PATHS)
def test_paths_out_of_the_target_are_refused(refused, path, expected):
    assert expected in path_fault(path)
    listed = archive(CONFIG, text=manifest_text({"config.gin": CONFIG[1], path: b"evil"}))
    assert "its manifest" in refused(listed) and expected in refused(listed)
    if not path:
        return  # no header has an empty name that differs from another's
    hidden = archive(CONFIG, member(path, b"evil"), text=manifest_text({"config.gin": CONFIG[1]}))
    error = refused(hidden)
    # tarfile itself does not write a final slash or a "./"; then the name is that of another file.
    assert expected in error or "is there twice" in error


@pytest.mark.parametrize(
    "path", ["config.gin", "checkpoints/00000008/state.index", "Ü/写真 (1).png", "a" * 255]
)
def test_plain_paths_are_accepted(path):
    assert path_fault(path) is None


LINKS = {
    "a symbolic link": [
        member("config.gin", type=tarfile.SYMTYPE, linkname=target)
        for target in ("/etc/passwd", "../outside/secret", "log.txt", "")
    ],
    "a hard link": [
        member("config.gin", type=tarfile.LNKTYPE, linkname=target)
        for target in ("/etc/passwd", "../outside/secret", NAME)
    ],
    "a device": [
        member("config.gin", type=kind, devmajor=1, devminor=5) for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE)
    ],
    "a FIFO": [member("config.gin", type=tarfile.FIFOTYPE)],
    "a directory": [member("config.gin", type=tarfile.DIRTYPE), member("config.gin", type=b"D")],
    "a sparse file": [member("config.gin", type=tarfile.GNUTYPE_SPARSE)],
    "of an unknown type": [
        member("config.gin", type=kind) for kind in (b"7", b"Z", b"\0", b"M", b"V", b"N", b"\xff")
    ],
}


@pytest.mark.parametrize("expected, bad", [(kind, each) for kind, all_ in LINKS.items() for each in all_])
def test_what_is_no_regular_file_is_refused(refused, expected, bad):
    expected = "unknown type" if bad[0].type == b"D" else expected
    assert f"'config.gin' is {expected}" in refused(archive(bad)) or "unknown type" in expected


def test_a_link_through_which_a_later_member_would_write_is_refused(refused, tmp_path):
    """The classical escape: a link to a folder outside, then a file in it."""
    link = member("samples", type=tarfile.SYMTYPE, linkname=str(tmp_path / "outside"))
    assert "'samples' is both a file and a folder" in refused(
        archive(link, member("samples/secret", b"evil"))
    )
    through = manifest_text({"samples/secret": b"evil"})
    errors = refused(archive(link, member("samples/secret", b"evil"), text=through))
    assert "'samples' is a symbolic link" in errors


def test_extended_headers_are_refused_by_name(refused):
    """They rename members, change sizes and make files sparse, and are read into memory whole."""
    info, contents = member("config.gin", b"evil")
    info.pax_headers = {"path": "../evil", "GNU.sparse.realsize": str(10**15), "GNU.sparse.major": "1"}
    assert "is an extended header" in refused(archive((info, contents), format=tarfile.PAX_FORMAT))
    file = io.BytesIO()
    with tarfile.open(
        fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "../evil"}
    ) as tar:
        tar.addfile(member(NAME, manifest_text({}))[0], io.BytesIO(manifest_text({})))
    assert "is an extended header" in refused(file.getvalue())
    # A sparse file as GNU tar writes it.
    sparse = bytearray(archive(member("config.gin", b"x" * 512)))
    position = sparse.rindex(b"config.gin\0")
    header = sparse[position : position + 512]
    header[156:157] = b"S"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    sparse[position : position + 512] = header
    assert "'config.gin' is a sparse file" in refused(bytes(sparse))


def test_long_names_that_fill_the_memory_are_refused(refused):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 5000
    text = manifest_text({"config.gin": CONFIG[1]})
    assert "unknown type" in refused(archive((info, b"a" * 5000), CONFIG, text=text))
    info.size = 200
    twice = archive((info, b"a" * 200), (info, b"b" * 200), CONFIG, text=text)
    assert "unknown type" in refused(twice)
    link = tarfile.TarInfo("././@LongLink")
    link.type, link.size = tarfile.GNUTYPE_LONGLINK, 20
    assert "a link with a long name" in refused(archive((link, b"/etc/passwd".ljust(20)), CONFIG, text=text))
    # A long name hides nothing: it is the name that is checked.
    hidden = archive(CONFIG, member("x" * 150 + "/../../../evil", b"evil"), text=text)
    assert "leads out of the target" in refused(hidden)


def test_members_that_the_manifest_does_not_list_are_refused(refused):
    text = manifest_text({"config.gin": CONFIG[1]})
    assert "'lock' is not in its manifest" in refused(archive(CONFIG, member("lock", b"x"), text=text))
    assert "'config.gin' is there twice" in refused(archive(CONFIG, CONFIG, text=text))
    assert "'config.gin' is missing" in refused(archive(text=text))
    other = member("config.gin", b"import evil          \n"[: len(CONFIG[1])])
    assert "'config.gin' is damaged" in refused(archive(other, text=text))
    longer = member("config.gin", CONFIG[1] + b"import evil\n")
    assert "has 32 bytes, and 20 by its manifest" in refused(archive(longer, text=text))


def test_files_that_claim_to_be_the_same_are_compared(refused):
    data = member("checkpoints/00000008/state.index", b"index")
    same = {"bytes": 5, "sha256": digest(b"index"), "same_as": data[0].name}

    def with_entry(path, **changes):
        files = {data[0].name: b"index", "best/x": same, path: same | changes}
        return archive(data, text=manifest_text(files))

    assert "'best/y' is not the same file" in refused(with_entry("best/y", sha256=digest(b"other")))
    assert "'best/y' is not the same file" in refused(with_entry("best/y", bytes=10**12))
    assert "'best/y' is not the same file" in refused(with_entry("best/y", same_as="/etc/passwd"))
    assert "'best/y' is not the same file" in refused(with_entry("best/y", same_as="best/x"))
    # A file that training appends to must never be a link to another.
    assert "'train.jsonl' is not the same file" in refused(with_entry("train.jsonl"))
    assert "is not described" in refused(with_entry("best/y", same_as=["best/x"]))
    assert "leads out of the target" in refused(with_entry("../best/y"))


@pytest.mark.parametrize(
    "text, expected",
    [
        (b"", "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"[" * 200_000, "is damaged"),
        (b"{" + b'"a":{' * 100_000, "is damaged"),
        (b"[]", "is damaged"),
        (b"null", "is damaged"),
        (b"1" * 10_000, "is damaged"),
        (b"{}", "is not that of a packed run"),
        (manifest_text({}, format="something"), "is not that of a packed run"),
        (manifest_text({}, version=2), "has version 2, and this is 1"),
        (manifest_text({}, version="x" * 10_000), "has version"),
        (manifest_text({}, files=[]), "is damaged"),
        (manifest_text({}, part=None), "is damaged"),
        (manifest_text({}, examples=-1), "is damaged"),
        (manifest_text({}, examples=True), "is damaged"),
        (manifest_text({"a": b"x"}).replace(b'"bytes": 1', b'"bytes": 2'), "is damaged"),
        (manifest_text({"a": {"bytes": 1}}), "'a' is not described"),
        (manifest_text({"a": {"bytes": 1.5, "sha256": "0" * 64}}), "'a' is not described"),
        (manifest_text({"a": {"bytes": -1, "sha256": "0" * 64}}), "'a' is not described"),
        (manifest_text({"a": {"bytes": 2**80, "sha256": "0" * 64}}), "'a' is not described"),
        (manifest_text({"a": {"bytes": 1, "sha256": "x" * 64}}), "'a' is not described"),
        (manifest_text({"a": {"bytes": 1, "sha256": "0" * 64, "mode": 511}}), "'a' is not described"),
        (manifest_text({"a": b"", "a/b": b""}), "'a' is both a file and a folder"),
        (manifest_text({"a": b""}).replace(b'"a":', b'"a": {}, "a":'), "is damaged"),
    ],
)
def test_manifests_that_are_refused(refused, text, expected):
    errors = refused(archive(text=text))
    assert expected in errors and len(errors) < 500


def test_too_many_files_and_too_large_a_manifest_are_refused(refused, monkeypatch, small_run, tmp_path):
    monkeypatch.setattr(manifest, "MOST_FILES", 5)
    members = [member(f"samples/{number}", b"") for number in range(6)]
    assert "lists 6 files, more than 5" in refused(archive(*members))
    assert "is not in its manifest" in refused(archive(*members, text=manifest_text({})))
    with pytest.raises(ConfigurationError, match="lists 16 files, more than 5, so it cannot be packed"):
        pack(workdir=str(small_run), output=str(tmp_path / "many.tar"))
    with (
        monkeypatch.context() as patch,
        pytest.raises(ConfigurationError, match="bytes to list, more than 900"),
    ):
        patch.setattr(manifest, "MOST_FILES", 50)
        patch.setattr(manifest, "LARGEST_BYTES", 900)
        pack(workdir=str(small_run), output=str(tmp_path / "many.tar"))
    info, _ = member(NAME)
    info.size = manifest.LARGEST_BYTES + 1
    large = info.tobuf(tarfile.GNU_FORMAT) + b" " * info.size + b"\0" * 2048
    assert f"a manifest of {info.size} bytes" in refused(large)


def test_a_bomb_of_zeros_is_refused_before_anything_is_written(packing, tmp_path):
    """A hole in a file takes no room: the archive is small, and its only member is a terabyte."""
    path, size = tmp_path / "bomb.tar", 2**40
    text = manifest_text({"config.gin": {"bytes": size, "sha256": "0" * 64}})
    info, _ = member("config.gin")
    info.size = size
    start = archive(text=text)[: 512 + -(-len(text) // 512) * 512] + info.tobuf(tarfile.GNU_FORMAT)
    with open(path, "wb") as file:
        file.write(start)
        file.truncate(len(start) + size + 1024)
    code, _, errors = packing(unpack=path, output=tmp_path / "run")
    assert (code, errors.count("\n")) == (2, 1)
    assert f"it takes {size} bytes, and " in errors and "make room there" in errors
    assert os.listdir(tmp_path) == ["bomb.tar"]
    # Without the terabyte, the size is a lie.
    os.truncate(path, len(start) + 1024)
    assert "is cut short in 'config.gin'" in packing(unpack=path, output=tmp_path / "run")[2]


def test_shared_files_count_for_the_room_that_they_may_take(packing, tmp_path, monkeypatch):
    """Where there are no hard links, a thousand links to one file are a thousand files."""
    data = member("checkpoints/00000008/state.index", b"x" * 1000)
    same = {"bytes": 1000, "sha256": digest(data[1]), "same_as": data[0].name}
    links = {f"best/{number}": same for number in range(1000)}
    (tmp_path / "run.tar").write_bytes(archive(data, text=manifest_text({data[0].name: data[1], **links})))
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**7, 10**7 - 10**6, 10**6))
    code, _, errors = packing(unpack=tmp_path / "run.tar", output=tmp_path / "run")
    assert code == 2 and "it takes 1001000 bytes, and 1000000 are free" in errors
    assert os.listdir(tmp_path) == ["run.tar"]


def test_compressed_archives_are_never_expanded(refused):
    plain = archive(CONFIG)
    assert "is compressed with gzip; packed runs are plain .tar files" in refused(gzip.compress(plain))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zip_:
        zip_.writestr("config.gin", "x")
    assert "is compressed with zip" in refused(file.getvalue())
    for mode, name in (("w:bz2", "bzip2"), ("w:xz", "xz")):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode=mode) as tar:
            tar.addfile(CONFIG[0], io.BytesIO(CONFIG[1]))
        assert f"is compressed with {name}" in refused(file.getvalue())


def test_what_is_no_packed_run_is_refused(refused, packing, tmp_path):
    for contents in (b"", b"x", b"text\n" * 1000, os.urandom(5000)):
        assert "is no .tar file" in refused(contents)
    assert f"does not begin with {NAME}" in refused(b"\0" * 10240)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(CONFIG[0], io.BytesIO(CONFIG[1]))
    assert f"does not begin with {NAME}" in refused(file.getvalue())
    for path in (tmp_path, tmp_path / "nothing.tar", "/dev/zero"):
        assert "no such file" in packing(unpack=path, output=tmp_path / "x")[2]


# --- damage


def test_no_part_of_an_archive_is_unpacked(refused, small_run, tmp_path):
    pack(workdir=str(small_run), output=str(tmp_path / "whole.tar"))
    whole = (tmp_path / "whole.tar").read_bytes()
    (tmp_path / "whole.tar").unlink()
    shutil.rmtree(small_run)
    end = len(whole.rstrip(b"\0"))
    lengths = {*range(512, end + 512, 512), *range(0, end, 997), end}
    for length in sorted(lengths):
        assert "cut short" in refused(whole[:length]) or length < 512
    assert "goes on after its end" in refused(whole + whole)
    assert "goes on after its end" in refused(whole + b"\0" * 10240)


def test_no_flipped_bit_changes_what_is_unpacked(small_run, tmp_path):
    """A bit of every byte of the manifest's header and of another one, and 1,000 others."""
    shutil.rmtree(small_run / "checkpoints" / "00000004")
    shutil.rmtree(small_run / "tensorboard")
    pack(workdir=str(small_run), output=str(tmp_path / "whole.tar"))
    whole, expected = (tmp_path / "whole.tar").read_bytes(), contents_of(small_run)
    second = whole.index(b"DONE\0\0\0")
    draw = random.Random(5)
    bits = [8 * (start + byte) + draw.randrange(8) for start in (0, second) for byte in range(512)]
    bits += draw.sample(range(8 * len(whole)), 1000)
    harmless = 0
    for bit in bits:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "damaged.tar").write_bytes(damaged)
        try:
            unpack(archive=str(tmp_path / "damaged.tar"), output=str(tmp_path / "copy"))
        except ConfigurationError as error:
            assert "\n" not in str(error)
            assert not (tmp_path / "copy").exists()
        else:
            assert contents_of(tmp_path / "copy") == expected
            shutil.rmtree(tmp_path / "copy")
            harmless += 1
    # Only the bytes of a header after the digits of its checksum count for nothing.
    assert harmless <= 6
    assert sorted(os.listdir(tmp_path)) == ["damaged.tar", "run", "whole.tar"]


# --- the target, and full disks


def test_only_a_new_or_empty_target_is_written(packing, tmp_path):
    (tmp_path / "run.tar").write_bytes(archive(CONFIG))

    def refused(target):
        before = contents_of(tmp_path)
        code, _, errors = packing(unpack=tmp_path / "run.tar", output=target)
        assert (code, errors.count("\n")) == (2, 1) and contents_of(tmp_path) == before
        return errors

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "full" / "mine" / "nothing")
    assert "exists and is not empty; choose a new directory" in refused(tmp_path / "full")
    assert "exists and is not empty" in refused(tmp_path / "run.tar")
    assert "cannot be" in refused(tmp_path / "run.tar" / "below")
    assert "cannot be" in refused(tmp_path / "dangling")
    assert "cannot be written (File name too long)" in refused(tmp_path / ("x" * 250))
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    assert packing(unpack=tmp_path / "run.tar", output=f"{tmp_path}/link/")[0] == 0
    assert (tmp_path / "empty" / "config.gin").read_bytes() == CONFIG[1]
    assert (tmp_path / "link").is_symlink()


def test_what_appears_at_the_target_meanwhile_stays(tmp_path, monkeypatch):
    (tmp_path / "run.tar").write_bytes(archive(CONFIG))
    extract = archive_reader._extract

    def extract_beside(*args):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "mine").write_text("mine")
        extract(*args)

    monkeypatch.setattr(archive_reader, "_extract", extract_beside)
    with pytest.raises(ConfigurationError, match="run: cannot be written"):
        unpack(archive=str(tmp_path / "run.tar"), output=str(tmp_path / "run"))
    assert contents_of(tmp_path / "run") == {"mine": b"mine"}
    assert sorted(os.listdir(tmp_path)) == ["run", "run.tar"]


def test_ctrl_c_leaves_nothing(small_run, tmp_path, monkeypatch):
    pack(workdir=str(small_run), output=str(tmp_path / "run.tar"))

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(archive_reader, "link_or_copy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unpack(archive=str(tmp_path / "run.tar"), output=str(tmp_path / "copy"))
    assert sorted(os.listdir(tmp_path)) == ["run", "run.tar"]


@contextlib.contextmanager
def full_disk():
    """The operating system refuses files of more than 2,000 bytes, as a full disk would.

    No fixture, because pytest writes its own output before a fixture ends.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_nothing(small_run, tmp_path, monkeypatch):
    pack(workdir=str(small_run), output=str(tmp_path / "run.tar"))
    usage = collections.namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(2000, 1000, 1000))
        with pytest.raises(ConfigurationError, match="other.tar: cannot be written .*bytes, and 1000 are fr"):
            pack(workdir=str(small_run), output=str(tmp_path / "other.tar"))
        with pytest.raises(ConfigurationError, match="copy: cannot be written .*bytes, and 1000 are free"):
            unpack(archive=str(tmp_path / "run.tar"), output=str(tmp_path / "copy"))
    assert sorted(os.listdir(tmp_path)) == ["run", "run.tar"]


def test_a_disk_that_becomes_full_leaves_nothing(small_run, tmp_path, packing):
    with full_disk():
        code, _, errors = packing(workdir=small_run, output=tmp_path / "other" / "run.tar")
    assert code == 2 and "run.tar: cannot be written (File too large); make room there" in errors
    assert sorted(os.listdir(tmp_path)) == ["run"]


def test_a_disk_that_becomes_full_while_unpacking_leaves_nothing(small_run, tmp_path, packing):
    pack(workdir=str(small_run), output=str(tmp_path / "run.tar"))
    with full_disk():
        code, _, errors = packing(unpack=tmp_path / "run.tar", output=tmp_path / "a" / "copy")
    assert code == 2 and "copy: cannot be written (File too large); make room there" in errors
    assert sorted(os.listdir(tmp_path)) == ["run", "run.tar"]


# --- flags


@pytest.mark.parametrize(
    "argv, expected",
    [
        ([], "no --output given"),
        (["--output=x"], "no --workdir given"),
        (["--workdir=x"], "no --output given"),
        (["--workdir=x", "--output=y", "z"], "'z': unexpected argument"),
        (["--unpack=x.tar"], "no --output given"),
        (["--unpack=x.tar", "--output=y", "--workdir=z"], "--workdir: is for packing"),
        (["--unpack=x.tar", "--output=y", "--data"], "--data: is for packing"),
        (["--unpack=x.tar", "--output=y", "--part=best"], "--part: is for packing"),
        (["--unpack=x.tar", "--output=y", "--overwrite"], "--overwrite: is for packing"),
        (["--unpack=x.tar", "--output=y"], "--unpack=x.tar: no such file"),
        (["--workdir=x", "--output=y", "--python_version=3.12"], "also give --wheels"),
        (["--workdir=x", "--output=y", "--platform=win_amd64"], "also give --wheels"),
        (["--workdir=x", "--output=y", "--wheels=cpu", "--python_version=2.7"], "3.11, 3.12, 3.13"),
        (["--workdir=x", "--output=y", "--wheels=cpu", "--platform=amiga"], "--platform=amiga: not known"),
    ],
)
def test_wrong_flags(packing, tmp_path, monkeypatch, argv, expected):
    monkeypatch.chdir(tmp_path)
    code, said, errors = packing(*argv)
    assert (code, said, errors.count("\n")) == (2, "", 1)
    assert expected in errors
    assert os.listdir(tmp_path) == []


def test_an_archive_is_replaced_only_on_request(packing, small_run, tmp_path):
    path = tmp_path / "run.tar"
    path.write_bytes(b"mine")
    code, _, errors = packing(workdir=small_run, output=path)
    assert code == 2 and "exists already; choose another name, or replace it with --overwrite" in errors
    assert path.read_bytes() == b"mine"
    assert packing("--overwrite", workdir=small_run, output=path)[0] == 0
    assert packing(unpack=path, output=tmp_path / "copy")[0] == 0
    assert packing("--overwrite", workdir=small_run, output=tmp_path / "copy")[0] == 2
    assert "cannot be written" in packing(workdir=small_run, output=path / "below.tar")[2]


def test_a_manifest_is_what_it_was():
    text = manifest_text({"config.gin": CONFIG[1], "log.txt": b""})
    parsed = manifest.parse(text)
    assert parsed.to_text().encode() == text
    assert json.loads(text)["files"]["config.gin"]["bytes"] == parsed.total_bytes == 20
    with pytest.raises(ManifestError, match="is damaged"):
        manifest.parse(text.replace(b"20", b"21"))
