"""Features on disk: shards that appear whole, each row under the key of the image it was computed from.

A store is a folder with `store.json`, which says what the features were computed with, and files
`shard-*.safetensors` with `features` (m, d) float32 and `keys` (m, 32) uint8. A shard is written once and
never changed; a kill at any moment leaves whole shards and at most one temporary file, which is ignored. Two
processes may write to one store: at worst a row is there twice.

A shard is named by the digest of its content, which is compared before its rows are used. In a store that is
only read, a damaged one is an error; in one that is written to, it is set aside, and its rows computed again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as decode_tensors
from safetensors.numpy import save as encode_tensors
from torch import Tensor

from divacli.errors import StoreError, listed
from divacli.features.feature_identity import identity_fingerprint, require_same_identity
from divacli.features.feature_rows import GatheredRows
from divacli.features.keys import KEY_BYTES, digest_of
from divacli.features.store_files import (
    ASIDE,
    FORMAT,
    HEAD_FILE,
    MEND,
    NAME_LENGTH,
    SHARDS,
    DamagedDescription,
    damage,
    described,
    is_whole,
    open_shards,
    set_aside,
    tidy,
)
from divacli.files.path_or_url import STORE_FILE, Place, read_whole
from divacli.files.regular import reason
from divacli.files.tar import MAX_BYTES
from divacli.files.write import write_bytes, write_text
from divacli.manifest import ArrayFile

_NOT_ITS_NAME = "its content is not what its name was made from"


class FeatureStore:
    """The features of many images under one backbone.

    Args:
        folder: An existing store; one at a URL can be read only.
        mends: Set damaged shards aside, instead of refusing the store.

    Raises:
        DataError: A URL cannot be read.
        StoreError: No store, one of a later format, or a shard that is damaged.

    Attributes:
        written: Names of the shards that were appended.
        damaged: Names of the files that were damaged, and are set aside or written anew.
    """

    def __init__(self, folder: Place, *, mends: bool = False) -> None:
        self.folder = folder
        self.about = described(folder)
        self.damaged: list[str] = []
        self._mends = mends
        self._blocks: list[ArrayFile] = []
        self._keys: np.ndarray = np.zeros((0, KEY_BYTES), np.uint8)
        self._block: np.ndarray = np.zeros(0, np.int32)
        self._row: np.ndarray = np.zeros(0, np.int64)
        self._order: np.ndarray = np.zeros(0, np.int64)
        self.written: list[str] = []
        self._load(sorted(folder.glob(SHARDS)))

    @classmethod
    def create(cls, folder: Path, identity: dict[str, str], n_features: int) -> FeatureStore:
        """Open the store in a folder to write to it, made new where there is none.

        Args:
            folder: Where it lies.
            identity: Everything that the features depend on beside the images.
            n_features: d.

        Raises:
            StoreError: The folder holds features of something else; the message names what differs.
            OutputError: It cannot be written.
        """
        return cls._opened(folder, identity, n_features, vouched=False)

    @classmethod
    def in_cache(cls, cache: Path, identity: dict[str, str], n_features: int) -> FeatureStore:
        """As `create`, of the one store for these features that all commands share.

        Args:
            cache: Folder of what is kept between commands.
            identity: Everything that the features depend on beside the images; the folder is named by it.
            n_features: d.
        """
        folder = cache / "features" / identity_fingerprint(identity)[:NAME_LENGTH]
        return cls._opened(folder, identity, n_features, vouched=True)

    @classmethod
    def _opened(
        cls, folder: Path, identity: dict[str, str], n_features: int, *, vouched: bool
    ) -> FeatureStore:
        """Open a store to write to it.

        Args:
            folder: As for `create`, and so are the others.
            identity: What the features are to depend on.
            n_features: d.
            vouched: Whether the folder holds nothing but features of this identity, whatever its description
                says. Else nobody knows what the shards beside a damaged one were computed with.
        """
        tidy(folder)
        file = folder / STORE_FILE
        wanted = {"format": FORMAT, "n_features": n_features, "identity": identity}
        damaged: list[str] = []
        if file.exists():
            try:
                about = described(folder)
                if not vouched:
                    require_same_identity(identity, about["identity"], str(folder))
                whole = about == wanted
            except DamagedDescription:
                whole = False
            if not whole:
                damaged.append(file.name)
                if not vouched:
                    for other in (*folder.glob(SHARDS), folder / HEAD_FILE):
                        damaged += set_aside(other)
        if damaged or not file.exists():
            write_text(file, json.dumps(wanted, indent=2, sort_keys=True) + "\n")
        store = cls(folder, mends=True)
        store.damaged += damaged
        return store

    @property
    def identity(self) -> dict[str, str]:
        """Everything that the features depend on beside the images."""
        return dict(self.about["identity"])

    @property
    def fingerprint(self) -> str:
        """Digest of `identity`."""
        return identity_fingerprint(self.identity)

    def __len__(self) -> int:
        """Rows in the store."""
        return len(self._keys)

    def positions(self, keys: np.ndarray) -> np.ndarray:
        """Where each key is found, (m,) int64, and -1 where it is not.

        Args:
            keys: (m, 32) uint8.
        """
        if not len(self._keys) or not len(keys):
            return np.full(len(keys), -1, np.int64)
        prefixes = _prefix(self._keys)[self._order]
        place = np.searchsorted(prefixes, _prefix(keys)).clip(max=len(prefixes) - 1)
        found = self._order[place]
        return np.where((self._keys[found] == keys).all(axis=1), found, -1)

    def rows(self, keys: np.ndarray) -> GatheredRows:
        """The features of these images, in this order.

        Raises:
            StoreError: Some are not here, or are damaged.
        """
        found = self.positions(keys)
        if (found < 0).any():
            # Their keys may be what is damaged.
            for block in self._damaged_blocks(np.arange(len(self._keys))):
                raise damage(self._blocks[block].path, _NOT_ITS_NAME)
            raise StoreError(
                f"{self.folder} lacks {int((found < 0).sum()):,} of {len(keys):,} images",
                expected="all of them",
                hint="embed the images again",
            )
        for block in self._damaged_blocks(found):
            raise damage(self._blocks[block].path, _NOT_ITS_NAME)
        empty = np.zeros((0, int(self.about["n_features"])), np.float32)
        blocks: list[ArrayFile | np.ndarray] = [*self._blocks] or [empty]
        return GatheredRows(blocks, self._block[found], self._row[found])

    def mend(self, keys: np.ndarray) -> None:
        """Set aside what is damaged of the shards that hold these images; their rows are then not here.

        Args:
            keys: (m, 32) uint8.
        """
        # What one shard has lost, another one may have that is damaged, too.
        while damaged := self._damaged_blocks(self.positions(keys)):
            for block in damaged:
                self.damaged += set_aside(self._blocks[block].path)
            left = ~np.isin(self._block, damaged)
            self._index(self._keys[left], self._block[left], self._row[left])

    def told(self, tell: Callable[[str], None], damaged: Iterable[str] | None = None) -> None:
        """Say what was damaged, in one sentence, where something was.

        Args:
            tell: Told.
            damaged: Names of the files, where other processes may have found some, too.
        """
        found = set(self.damaged if damaged is None else damaged)
        names = sorted(found, key=lambda name: (name not in (STORE_FILE, HEAD_FILE), name))
        if names:
            aside = names[-1] not in (STORE_FILE, HEAD_FILE)
            tell(
                f"{len(names):,} damaged {'file' if len(names) == 1 else 'files'} in {self.folder}: "
                f"{listed(names)}. What was lost is made again"
                + (f"; the damaged shards are kept beside it as *{ASIDE}" if aside else "")
            )

    def append(self, keys: np.ndarray, features: np.ndarray) -> None:
        """Write one shard: on return it is on disk, whole.

        Args:
            keys: (m, 32) uint8.
            features: (m, d) float32.

        Raises:
            OutputError: It cannot be written.
        """
        content = encode_tensors({"features": np.ascontiguousarray(features, np.float32), "keys": keys})
        # Named by its content: two writers can neither overwrite nor mix each other's shards.
        target = self._writable / f"shard-{digest_of(content)[:32]}.safetensors"
        write_bytes(target, content)
        self._load([target])
        self.written.append(target.name)

    def include(self, shards: Sequence[str]) -> None:
        """Take in shards that another process has written to the folder.

        Args:
            shards: Their names, `written` of the other's store.

        Raises:
            StoreError: They are not here.
        """
        others = [self.folder / name for name in shards if name not in self.written]
        missing = [place for place in others if not place.exists()]
        if missing:
            raise StoreError(
                f"{self.folder} lacks {len(missing):,} files that another process of this job has written",
                expected="one folder that all processes see",
                hint="put it on a shared file system, with --cache-dir DIR",
            )
        self._load(others)

    def save_head(self, head: tuple[Tensor, Tensor] | None) -> None:
        """Keep the network's own last layer, (K, d) weight and (K,) bias, beside its features."""
        if head is None:
            return
        # The encoder takes an array's bytes as they lie, whatever its strides.
        weight, bias = (np.ascontiguousarray(part.detach().float().cpu().numpy()) for part in head)
        digest = _head_digest(weight, bias)
        try:
            kept = self.load_head()
            whole = kept is None or _head_digest(*(part.numpy() for part in kept)) == digest
        except StoreError:
            kept, whole = None, False
        if not whole:
            self.damaged.append(HEAD_FILE)
        if kept is None or not whole:
            content = encode_tensors({"weight": weight, "bias": bias}, metadata={"digest": digest})
            write_bytes(self._writable / HEAD_FILE, content)

    def load_head(self) -> tuple[Tensor, Tensor] | None:
        """The network's own last layer, or None where its features feed no such layer.

        Raises:
            StoreError: The file is damaged.
        """
        source = self.folder / HEAD_FILE
        if not source.exists():
            return None
        try:
            content = read_whole(source, MAX_BYTES)
            tensors = decode_tensors(content)
            weight, bias = tensors["weight"], tensors["bias"]
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            # Those written before there were digests have none.
            if header.get("__metadata__", {}).get("digest") not in (None, _head_digest(weight, bias)):
                raise ValueError("its content has changed")
            return torch.from_numpy(weight), torch.from_numpy(bias)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise StoreError(
                f"{source} is damaged ({reason(error)})",
                expected="the weight and bias of the network's last layer",
                hint=MEND,
            ) from error

    @property
    def _writable(self) -> Path:
        assert isinstance(self.folder, Path)  # as `create` made it
        return self.folder

    def _load(self, shards: Sequence[Place]) -> None:
        keys, blocks, rows = [self._keys], [self._block], [self._row]
        opened = open_shards(shards, int(self.about["n_features"]))
        for shard, found in zip(shards, opened, strict=True):
            if isinstance(found, StoreError):
                if not self._mends:
                    raise found
                self.damaged += set_aside(shard)
                continue
            features, shard_keys = found
            blocks.append(np.full(len(shard_keys), len(self._blocks), np.int32))
            rows.append(np.arange(len(shard_keys)))
            keys.append(shard_keys)
            self._blocks.append(features)
        self._index(np.concatenate(keys), np.concatenate(blocks), np.concatenate(rows))

    def _index(self, keys: np.ndarray, block: np.ndarray, row: np.ndarray) -> None:
        """Find rows by these keys from now on: (n, 32) uint8, the shard of each and its row in it."""
        self._keys, self._block, self._row = keys, block, row
        self._order = np.argsort(_prefix(keys), kind="stable")

    def _damaged_blocks(self, positions: np.ndarray) -> list[int]:
        """Which of the shards are not what they were when written that hold rows at these positions."""
        wanted = np.unique(self._block[positions[positions >= 0]]).tolist()
        # Of a file at a URL only the rows are fetched that are asked for, and their length is checked.
        local = [(block, path) for block in wanted if isinstance(path := self._blocks[block].path, Path)]
        # Hashing releases the interpreter lock.
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            whole = pool.map(lambda one: is_whole(one[1]), local)
            return [block for (block, _), good in zip(local, whole, strict=True) if not good]


def _prefix(keys: np.ndarray) -> np.ndarray:
    """The first eight bytes of each digest as a number: enough to search by, the rest is compared."""
    return np.ascontiguousarray(keys[:, :8]).view(np.uint64)[:, 0]


def _head_digest(weight: np.ndarray, bias: np.ndarray) -> str:
    return digest_of(repr((weight.shape, bias.shape)).encode(), weight.tobytes(), bias.tobytes())
