"""Tell URLs from local paths, and show them without secrets."""

from __future__ import annotations

import posixpath
import re

# With the caches of fsspec before it, if any: filecache::s3://bucket/features.npz. One letter is a drive.
URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*::)*([A-Za-z][A-Za-z0-9+.-]+)://")
LOCAL = ("file", "local")

# User and password before the host; a signature or a token in the query or fragment.
_SECRETS = re.compile(
    r"(?P<start>(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*+://)(?:[^\s/?#]*@)?(?P<address>[^\s?#]*)(?:[?#]\S*)?"
)


def is_url(name: str) -> bool:
    """Whether a name is a URL of something that does not lie in the local file system."""
    found = URL.match(name) if "://" in name else None
    return found is not None and not (found.end() == len(found[1]) + 3 and found[1].lower() in LOCAL)


def without_secrets(text: str) -> str:
    """A name or a sentence, without what the URLs in it may hold beside the address: passwords and keys."""
    return _SECRETS.sub(r"\g<start>\g<address>", text)


def suffix_of(name: str) -> str:
    """What a file's name ends with, in small letters and without the dot; of a URL, the end of its path."""
    return posixpath.splitext(path_of_url(name))[1].lower().removeprefix(".")


def local_path(name: str) -> str:
    """A name without `file://`; a URL as it is."""
    found = URL.match(name)
    return name[found.end() :] if found is not None and not is_url(name) else name


def path_of_url(name: str) -> str:
    """The path of a URL; any other name as it is."""
    if not is_url(name):
        return name
    # Not urlsplit, which raises on what is none: a cell of a table may hold anything.
    address = re.split("[?#]", name.rpartition("::")[2], maxsplit=1)[0]
    return "/".join(address.split("/")[3:])
