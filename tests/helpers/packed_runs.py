"""Archives of runs as engine.pack writes them, and as somebody might who means harm."""

import hashlib
import io
import json
import tarfile

from engine.packing.manifest import NAME
from engine.storage import manifest


def write_checkpoint(directory, examples, contents=b""):
    """A checkpoint as far as packing looks: files with digests."""
    folder = directory / f"{examples:08d}"
    folder.mkdir(parents=True)
    (folder / "state.index").write_bytes(b"index" + contents)
    (folder / "state.data-00000-of-00001").write_bytes(b"\x00values" * 300 + contents)
    manifest.write_manifest(str(folder), examples=examples)
    return folder


def digest(contents):
    return hashlib.sha256(contents).hexdigest()


def manifest_text(listed, **changes):
    """The text of a manifest that lists files: path -> contents, or the entry itself."""
    entries = {
        path: entry if isinstance(entry, dict) else {"bytes": len(entry), "sha256": digest(entry)}
        for path, entry in listed.items()
    }
    content = {"format": "gantry run", "version": 1, "part": "all", "examples": 8, "files": entries} | changes
    own = digest(json.dumps(content, sort_keys=True).encode())
    return (json.dumps({**content, "sha256": own}, indent=1, sort_keys=True) + "\n").encode()


def member(name, contents=b"", **fields):
    """A member of an archive, with any fields of its header changed."""
    info = tarfile.TarInfo(name)
    info.size = len(contents)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, contents


def archive(*members, text=None, format=tarfile.GNU_FORMAT):
    """The bytes of an archive: a manifest that lists its members, or another one, then the members."""
    if text is None:
        text = manifest_text({info.name: contents for info, contents in members})
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for info, contents in [member(NAME, text), *members]:
            tar.addfile(info, io.BytesIO(contents))
    return file.getvalue()
