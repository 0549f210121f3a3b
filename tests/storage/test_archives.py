"""Archives that are what they should be, and archives made to do harm."""

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import time
import zipfile
import zlib

import pytest

from musc_jax.storage import archives, atomic
from musc_jax.storage.archives import ArchiveError, Inventory, Member, extract, inspect

CONTENT = {
    "top/a/000.png": bytes(range(256)) * 30,
    "top/a/001.png": b"",
    "top/b.txt": b"about",
    "c d/é.png": b"1" * 512,
}
PACKED = {"": lambda data: data, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.fixture
def place(tmp_path):
    """The archive's folder, the target's parent, and a look at everything but the archive."""
    (tmp_path / "work").mkdir()
    (tmp_path / "outside").write_text("untouched")
    return tmp_path


def tree(root):
    return {
        str(p.relative_to(root)): p.read_bytes() if p.is_file() else None
        for p in sorted(root.rglob("*"))
        if not p.name.startswith("archive")
    }


def files(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def entry(name, data=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def tar(*entries, packing="", fmt=tarfile.GNU_FORMAT, end=True):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=fmt) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data) if info.isreg() else None)
        length = out.tell()
    data = out.getvalue()
    return PACKED[packing](data if end else data[:length])


def zipped(*entries, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data, *mode in entries:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            info.external_attr = (mode[0] if mode else stat.S_IFREG | 0o644) << 16
            archive.writestr(info, data)
    return out.getvalue()


def patched(data, old, new, count=-1):
    assert old in data
    assert len(old) == len(new)
    return data.replace(old, new, count)


def good_tar(packing="", fmt=tarfile.GNU_FORMAT):
    folders = [entry("./", type=tarfile.DIRTYPE), entry("./top/", type=tarfile.DIRTYPE, mode=0o777)]
    return tar(*folders, *(entry(f"./{k}", v, mode=0o4777) for k, v in CONTENT.items()), packing=packing, fmt=fmt)


def good_zip(method=zipfile.ZIP_DEFLATED):
    return zipped(("top/", b"", stat.S_IFDIR | 0o755), *CONTENT.items(), method=method)


GOOD = {
    "tar": lambda: good_tar(),
    "pax": lambda: good_tar(fmt=tarfile.PAX_FORMAT),
    "ustar": lambda: good_tar(fmt=tarfile.USTAR_FORMAT),
    "tar.gz": lambda: good_tar(".gz"),
    "tar.bz2": lambda: good_tar(".bz2"),
    "tar.xz": lambda: good_tar(".xz"),
    "two xz streams and padding": lambda: (
        lzma.compress(good_tar()[:3000]) + b"\0" * 8 + lzma.compress(good_tar()[3000:])
    ),
    "two gzip streams": lambda: gzip.compress(good_tar()[:3000]) + gzip.compress(good_tar()[3000:]),
    "zip": good_zip,
    "zip, stored": lambda: good_zip(zipfile.ZIP_STORED),
}


def put(place, data):
    path = place / "archive"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", GOOD)
def test_good_archives(place, kind):
    archive = put(place, GOOD[kind]())
    seen = []
    inventory = extract(archive, place / "work" / "new", progress=lambda *report: seen.append(report))
    assert files(place / "work" / "new") == CONTENT
    assert [p.name for p in (place / "work").iterdir()] == ["new"]
    assert inventory.total == sum(map(len, CONTENT.values()))
    assert inventory.tops == ("top", "c d")
    assert inventory == inspect(archive)
    assert {stage for stage, _, _ in seen} == {"checking archive", "unpacking archive"}
    assert all(0 <= done <= total == archive.stat().st_size for _, done, total in seen)
    if os.name == "posix":
        assert not any(p.stat().st_mode & 0o7111 for p in (place / "work").rglob("*") if p.is_file())


def test_long_names(place):
    name = "/".join(["folder" * 20] * 5) + "/" + "x" * 200 + ".png"
    for fmt in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        extract(put(place, tar(entry(name, b"1"), fmt=fmt)), place / "work")
    assert files(place / "work") == {name: b"1"}


def link(kind, name, to):
    return entry(name, type=kind, linkname=to)


def sparse():
    info, _ = entry("holes", type=tarfile.GNUTYPE_SPARSE)
    return tar((info, b""))


def lying_zip(declared, data=b"0" * 5000, *, summed=0):
    """The member has more (or less) than both its headers say; the sum is that of the declared part, or of more."""
    whole = zipped(("a.png", data))
    size, crc = struct.pack("<L", len(data)), struct.pack("<L", zlib.crc32(data))
    whole = patched(whole, size, struct.pack("<L", declared))
    return patched(whole, crc, struct.pack("<L", zlib.crc32(data[: declared + summed])))


def overlapping_zip():
    """Two entries of the table lead to one member."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.png", b"x" * 100)
        archive.writestr("b.png", b"y" * 100)
        archive.filelist[1].header_offset = archive.filelist[0].header_offset
    return out.getvalue()


def huge_pax_header():
    info, _ = entry("././@PaxHeader", b"x" * (1 << 20), type=tarfile.XHDTYPE)
    info.size = 1 << 20
    return gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) + b"1048575 path=" + b"x" * (1 << 20) + b"\0" * 2048)


def nested_pax_headers():
    header = entry("x", type=tarfile.XHDTYPE)[0]
    record = b"12 mtime=10\n"
    header.size = len(record)
    return gzip.compress((header.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0")) * 5000 + b"\0" * 1024)


def negative_size():
    head = bytearray(entry("a.png")[0].tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"\xff" * 10 + b"\xf0\x00"
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) * 3 + b"\0" * 1024


def changed_header():
    data = bytearray(good_tar())
    data[data.index(b"./top/b.txt")] ^= 1
    return bytes(data)


def declares(size, packing=".gz"):
    return PACKED[packing](entry("a.png")[0].tobuf() + entry_header("b.png", size) + b"\0" * 4096)


def entry_header(name, size):
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def streamed_bomb(packing):
    """Members within the limits, and then very much after the end mark."""
    return PACKED[packing](tar(entry("a.png", b"1")) + b"\0" * (40 << 20))


def big_dictionary():
    """An xz file that wants 1.5 GiB before it gives its first byte."""
    data = bytearray(lzma.compress(b"x" * 100, preset=0))
    at = data.index(b"\x21\x01")  # the block header's LZMA2 filter, followed by the dictionary's size
    data[at + 2] = 39
    size = (data[12] + 1) * 4
    data[12 + size - 4 : 12 + size] = struct.pack("<L", zlib.crc32(bytes(data[12 : 12 + size - 4])))
    return bytes(data)


LNK, SYM = tarfile.LNKTYPE, tarfile.SYMTYPE
HOSTILE = {
    # names
    "climbs": (lambda: tar(entry("../outside", b"x")), "climbs out"),
    "climbs later": (lambda: tar(entry("a/b/../../../outside", b"x")), "climbs out"),
    "climbs after good ones": (lambda: tar(entry("a.png", b"1"), entry("..", type=tarfile.DIRTYPE)), "climbs out"),
    "climbs, packed": (lambda: tar(entry("../outside", b"x"), packing=".xz"), "climbs out"),
    "climbs, pax": (lambda: tar(entry("a/" * 60 + "../" * 70 + "o", b"x"), fmt=tarfile.PAX_FORMAT), "climbs out"),
    "climbs, zip": (lambda: zipped(("../outside", b"x")), "climbs out"),
    "absolute": (lambda: tar(entry("/tmp/outside", b"x")), "absolute"),
    "absolute, zip": (lambda: zipped(("/tmp/outside", b"x")), "absolute"),
    "drive": (lambda: zipped(("C:/outside", b"x")), "absolute"),
    "drive, tar": (lambda: tar(entry("C:outside", b"x")), "absolute"),
    "backslash": (lambda: zipped(("..\\outside", b"x")), "absolute"),
    "backslash, tar": (lambda: tar(entry("a\\..\\..\\outside", b"x")), "absolute"),
    "share": (lambda: tar(entry("\\\\host\\share", b"x")), "absolute"),
    "NUL": (lambda: patched(zipped(("a.png_.exe", b"x")), b"a.png_.exe", b"a.png\0.exe"), "unprintable"),
    "NUL, pax": (
        lambda: patched(tar(entry("é" * 70, b"x"), fmt=tarfile.PAX_FORMAT), "path=é".encode(), b"path=a\0"),
        "unprintable",
    ),
    "escape sequence": (lambda: tar(entry("a\x1b[2J.png", b"x")), "unprintable"),
    "not UTF-8": (lambda: tar(entry("a\udcff.png", b"x")), "unprintable"),
    "too long a part": (lambda: tar(entry("a" * 300, b"x")), "too long"),
    "too long": (lambda: tar(entry("abcdefg/" * 200 + "a", b"x")), "too long"),
    "too deep": (lambda: tar(entry("a/" * 60 + "a", b"x")), "too deep"),
    "a device's name": (lambda: tar(entry("a/Aux.png", b"x")), "not every system"),
    "ends in a dot": (lambda: tar(entry("a./b", b"x")), "not every system"),
    "twice": (lambda: tar(entry("a.png", b"1"), entry("./a.png", b"2")), "twice"),
    "differs in case": (lambda: tar(entry("a.png", b"1"), entry("A.png", b"2")), "case only"),
    "folders differ in case": (lambda: zipped(("Good/1.png", b"1"), ("good/2.png", b"2")), "case only"),
    "spelled in two ways": (lambda: tar(entry("\u00e9", b"1"), entry("e\u0301", b"2")), "case only"),
    "file then folder": (lambda: tar(entry("a", b"1"), entry("a/b", b"2")), "as a file and as a folder"),
    "folder then file": (lambda: tar(entry("a/b", b"2"), entry("a", b"1")), "as a file and as a folder"),
    "no name": (lambda: tar(entry("./", b"1")), "without a name|file and folder|damaged|empty"),
    # what is no file
    "symbolic link": (lambda: tar(link(SYM, "a", "../outside")), "a link"),
    "link, then through it": (lambda: tar(link(SYM, "a", ".."), entry("a/outside", b"x")), "a link"),
    "hard link": (lambda: tar(entry("b", b"1"), link(LNK, "a", "b")), "a link"),
    "hard link outside": (lambda: tar(link(LNK, "a", "/etc/passwd")), "a link"),
    "symbolic link, zip": (lambda: zipped(("a", b"../outside", stat.S_IFLNK | 0o777)), "a link"),
    "device, zip": (lambda: zipped(("a", b"", stat.S_IFBLK | 0o644)), "a device"),
    "character device": (lambda: tar(entry("a", type=tarfile.CHRTYPE)), "a device"),
    "block device": (lambda: tar(entry("a", type=tarfile.BLKTYPE)), "a device"),
    "pipe": (lambda: tar(entry("a", type=tarfile.FIFOTYPE)), "a device or pipe"),
    "sparse": (sparse, "neither file nor folder"),
    "unknown type": (lambda: tar(entry("a", type=b"Z")), "neither file nor folder"),
    "folder with content, zip": (lambda: zipped(("a/", b"content")), "file and folder at once"),
    "encrypted": (lambda: patched(zipped(("a", b"1")), b"\x14\0\0\0", b"\x14\0\1\0"), "encrypted"),
    "bzip2 in zip": (lambda: zipped(("a", b"1" * 99), method=zipfile.ZIP_BZIP2), "method 12"),
    # bombs
    "bomb, zip": (lambda: zipped(("a", bytes(8 << 20))), "200 times"),
    "many small bombs, zip": (lambda: zipped(*((f"{i}", bytes(1 << 20)) for i in range(6))), "200 times"),
    "bomb, gzip": (lambda: tar(entry("a", bytes(8 << 20)), packing=".gz"), "200 times"),
    "bomb, bzip2": (lambda: tar(entry("a", bytes(8 << 20)), packing=".bz2"), "200 times"),
    "bomb, xz": (lambda: tar(entry("a", bytes(8 << 20)), packing=".xz"), "200 times"),
    "bomb after the end, gzip": (lambda: streamed_bomb(".gz"), "200 times"),
    "bomb after the end, xz": (lambda: streamed_bomb(".xz"), "200 times"),
    "claims a terabyte": (lambda: declares(1 << 40), "more than"),
    "more than declared, zip": (lambda: lying_zip(100), "damaged"),
    "more than declared, all summed, zip": (lambda: lying_zip(100, summed=1), "not as long as it says"),
    "much more than declared, zip": (lambda: lying_zip(100, bytes(8 << 20)), "damaged"),
    "less than declared, zip": (lambda: lying_zip(5001), "not as long as it says|damaged"),
    "overlapping, zip": (overlapping_zip, "overlap"),
    "huge header": (huge_pax_header, "a header of"),
    "headers in headers": (nested_pax_headers, "damaged"),
    "negative size": (negative_size, "damaged|less than no bytes"),
    "big dictionary": (big_dictionary, "damaged"),
    # broken
    "empty file": (lambda: b"", "is no tar"),
    "a picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4, "is no tar"),
    "a page": (lambda: b"<!DOCTYPE html>" + b" " * 600, "is a web page, not the file itself"),
    "no members": (lambda: tar(), "is empty"),
    "no members, zip": (lambda: zipped(), "is empty"),
    "only folders that are nothing": (lambda: tar(entry("./", type=tarfile.DIRTYPE)), "is empty"),
    "no end mark": (lambda: tar(entry("a", b"1"), entry("b", b"2"), end=False), "cut short"),
    "cut in a member": (lambda: good_tar()[:3000], "cut short"),
    "cut in a header": (lambda: good_tar()[:1300], "cut short"),
    "cut, gzip": (lambda: good_tar(".gz")[:-20], "damaged|cut short"),
    "sum cut off, gzip": (lambda: good_tar(".gz")[:-4], "damaged|cut short"),
    "sum wrong, gzip": (lambda: good_tar(".gz")[:-8] + bytes(8), "damaged"),
    "cut, bzip2": (lambda: good_tar(".bz2")[:-20], "damaged|cut short"),
    "cut, xz": (lambda: good_tar(".xz")[:-20], "damaged|cut short"),
    "flipped, xz": (lambda: good_tar(".xz")[:200] + b"!" + good_tar(".xz")[201:], "damaged"),
    "cut, zip": (lambda: good_zip()[:-30], "damaged"),
    "flipped, zip": (lambda: patched(zipped(("a", b"12345678"), method=0), b"12345678", b"12345679"), "damaged"),
    "header changed": (changed_header, "damaged"),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("exists", [False, True])
def test_refused_and_nothing_is_left(place, kind, exists):
    make, message = HOSTILE[kind]
    archive, target = put(place, make()), place / "work" / "target"
    if exists:
        target.mkdir()
        (target / "mine.txt").write_text("mine")
    before, started = tree(place), time.process_time()  # of this process: others may keep the machine busy
    with pytest.raises(ArchiveError, match=message) as error:
        extract(archive, target)
    assert time.process_time() - started < 2
    assert tree(place) == before
    assert str(archive) in str(error.value)
    assert str(error.value).isprintable()
    assert "nothing was unpacked" in str(error.value)


def test_every_flipped_byte_is_refused_or_harmless(place):
    """Whatever a damaged archive is, it is no crash and leaves nothing."""
    for make in (good_tar, lambda: good_tar(".gz"), lambda: good_tar(".bz2"), lambda: good_tar(".xz"), good_zip):
        whole = make()
        for at in range(0, len(whole), max(1, len(whole) // 60)):
            archive = put(place, whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
            target = place / "work" / "target"
            try:
                extract(archive, target)
            except ArchiveError:
                assert list((place / "work").iterdir()) == []
            else:
                assert [p.name for p in (place / "work").iterdir()] == ["target"]
                assert len(files(target)) == len(CONTENT)
                target.rename(place / f"archive_{at}_{len(whole)}")


def test_limits_of_the_caller(place):
    archive = put(place, good_tar())
    total = sum(map(len, CONTENT.values()))
    with pytest.raises(ArchiveError, match=f"more than {total - 1} bytes"):
        extract(archive, place / "work", max_bytes=total - 1)
    assert files(place / "work") == {}
    extract(archive, place / "work", max_bytes=total)


def test_too_many_members(place, monkeypatch):
    monkeypatch.setattr(archives, "_MOST_MEMBERS", 3)
    for make in (good_tar, good_zip):
        with pytest.raises(ArchiveError, match="more than 3 members"):
            inspect(put(place, make()))


def test_an_archive_that_changes_between_the_readings(place):
    archive = put(place, good_tar())
    for data in (tar(entry("../outside", b"x")), tar(entry("new", b"x")), tar(entry("top/a/000.png", b"x"))):
        inventory = inspect(archive)
        other = put(place, data)
        with pytest.raises(ArchiveError, match=r"changed while|climbs out"):
            extract(other, place / "work" / "target", inventory=inventory)
        archive = put(place, good_tar())
    shorter = Inventory((*inventory.members, Member("more.png", 1, False)))
    with pytest.raises(ArchiveError, match="changed while"):
        extract(archive, place / "work" / "target", inventory=shorter)
    assert list((place / "work").iterdir()) == []


def test_no_room(place, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(ArchiveError, match="make room"):
        extract(put(place, good_tar()), place / "work" / "target")
    assert list((place / "work").iterdir()) == []


@pytest.mark.parametrize("stage", ["checking", "unpacking"])
def test_an_interruption_leaves_nothing(place, stage):
    def stop(what, done, total):
        if what.startswith(stage):
            raise KeyboardInterrupt

    (place / "work" / "target").mkdir()
    for target in (place / "work" / "new", place / "work" / "target"):
        before = tree(place)
        with pytest.raises(KeyboardInterrupt):
            extract(put(place, good_zip()), target, progress=stop)
        assert tree(place) == before


def test_what_a_killed_process_left_goes(place, monkeypatch):
    target = place / "work"
    monkeypatch.setattr(atomic, "_RUN", "00000000")
    with atomic.temporary(target / "unpacked") as part:
        name = part.name
    monkeypatch.undo()
    (target / name).mkdir()
    (target / name / "half").write_text("half")
    extract(put(place, good_tar()), target)
    assert files(target) == CONTENT
    assert not (target / name).exists()


class TestMerging:
    def test_into_what_is_there(self, place):
        target = place / "work"
        (target / "top" / "a").mkdir(parents=True)
        (target / "top" / "a" / "000.png").write_bytes(CONTENT["top/a/000.png"])
        (target / "top" / "a" / "mine.png").write_bytes(b"mine")
        kept = (target / "top" / "a" / "000.png").stat().st_mtime_ns
        for _ in range(2):
            extract(put(place, good_tar()), target)
            assert files(target) == CONTENT | {"top/a/mine.png": b"mine"}
        assert (target / "top" / "a" / "000.png").stat().st_mtime_ns == kept

    @pytest.mark.parametrize("clash", ["content", "folder", "file"])
    def test_never_over_something_else(self, place, clash):
        target = place / "work"
        if clash == "content":
            (target / "top" / "a").mkdir(parents=True)
            (target / "top" / "a" / "001.png").write_bytes(b"other")
        elif clash == "folder":
            (target / "top" / "b.txt").mkdir(parents=True)
        else:
            (target / "top").write_bytes(b"a file")
        before = tree(place)
        with pytest.raises(ArchiveError, match="is there with other content") as error:
            extract(put(place, good_tar()), target)
        assert tree(place) == before
        assert "\n" not in str(error.value)

    def test_not_through_links(self, place):
        target, elsewhere = place / "work", place / "elsewhere"
        elsewhere.mkdir()
        (target / "top").symlink_to(elsewhere)
        with pytest.raises(ArchiveError, match="is a link"):
            extract(put(place, good_tar()), target)
        assert list(elsewhere.iterdir()) == []
        assert [p.name for p in target.iterdir()] == ["top"]

    def test_a_target_that_is_a_link_is_the_users_choice(self, place):
        (place / "link").symlink_to(place / "work")
        extract(put(place, good_tar()), place / "link")
        assert files(place / "work") == CONTENT
        assert (place / "link").is_symlink()

    def test_a_target_that_is_a_file(self, place):
        with pytest.raises(ArchiveError, match="is a file"):
            extract(put(place, good_tar()), place / "outside")
        assert (place / "outside").read_text() == "untouched"

    @pytest.mark.parametrize("problem", [KeyboardInterrupt, OSError(28, "No space left on device")])
    def test_stopped_half_way(self, place, monkeypatch, problem):
        target = place / "work"
        (target / "top" / "a").mkdir(parents=True)
        before = tree(place)
        archive, rename, count = put(place, good_tar()), type(place).rename, []

        def failing(self, other):
            count.append(other)
            if len(count) == 3:
                raise problem
            return rename(self, other)

        monkeypatch.setattr(type(place), "rename", failing)
        with pytest.raises(KeyboardInterrupt if problem is KeyboardInterrupt else ArchiveError):
            extract(archive, target)
        monkeypatch.undo()
        assert len(count) > 3, "what was moved was moved back"
        assert tree(place) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs permissions that count")
def test_a_folder_that_cannot_be_written(place):
    (place / "work").chmod(0o500)
    with pytest.raises(ArchiveError, match="Permission denied"):
        extract(put(place, good_tar()), place / "work" / "target")
    (place / "work").chmod(0o700)


def test_a_missing_archive(place):
    with pytest.raises(ArchiveError, match="No such file"):
        extract(place / "archive", place / "work")
