"""Features on disk: shards that appear whole, each row under the key of the image it was computed from.

A store is a folder with `store.json`, which says what the features were computed with, and files
`shard-*.safetensors` with `features` (m, d) float32 and `keys` (m, 32) uint8. A shard is written once and
never changed; a kill at any moment leaves whole shards and at most one temporary file, which is ignored. Two
processes may write to one store: at worst a row is there twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as decode_tensors
from safetensors.numpy import save as encode_tensors
from torch import Tensor

from divacli.embed.gathered import GatheredRows
from divacli.embed.keys import KEY_BYTES, digest_of
from divacli.errors import StoreError
from divacli.files import STORE_FILE, Place, RemoteFile, read_range, size_of
from divacli.manifest import ArrayFile, write_bytes, write_text

FORMAT = 1
_SHARD = "shard-*.safetensors"
_HEAD = "head.safetensors"
_HEADER_BYTES = 1024  # the header of a shard is shorter, so that one request brings it
_REQUESTS = 16  # shards at a URL that are opened side by side


class FeatureStore:
    """The features of many images under one backbone.

    Args:
        folder: An existing store; one at a URL can be read only.

    Raises:
        DataError: A URL cannot be read.
        StoreError: No store, one of a later format, or a shard that is damaged.

    Attributes:
        written: Names of the shards that were appended.
    """

    def __init__(self, folder: Place) -> None:
        self.folder = folder
        self.about = _read_json(folder / STORE_FILE)
        if self.about.get("format") != FORMAT:
            raise StoreError(
                f"{folder} is a feature store of format {self.about.get('format')!r}",
                expected=f"format {FORMAT}",
                hint="embed the images again with this version",
            )
        if not isinstance(self.about.get("n_features"), int) or not isinstance(
            self.about.get("identity"), dict
        ):
            raise StoreError(
                f"{folder / STORE_FILE} lacks n_features or identity",
                expected="the description of a feature store",
                hint="make the store anew with: diva embed DATA --out DIR",
            )
        self._blocks: list[ArrayFile | np.ndarray] = []
        self._keys: np.ndarray = np.zeros((0, KEY_BYTES), np.uint8)
        self._block: np.ndarray = np.zeros(0, np.int32)
        self._row: np.ndarray = np.zeros(0, np.int64)
        self._order: np.ndarray = np.zeros(0, np.int64)
        self.written: list[str] = []
        self._load(sorted(folder.glob(_SHARD)))

    @classmethod
    def create(cls, folder: Path, identity: dict[str, str], n_features: int) -> FeatureStore:
        """Open the store in a folder, made new where there is none.

        Args:
            folder: Where it lies.
            identity: Everything that the features depend on beside the images.
            n_features: d.

        Raises:
            StoreError: The folder holds features of something else; the message names what differs.
            OutputError: It cannot be written.
        """
        if (folder / STORE_FILE).exists():
            store = cls(folder)
            require_same_identity(identity, store.identity, str(folder))
            return store
        content = {"format": FORMAT, "n_features": n_features, "identity": identity}
        write_text(folder / STORE_FILE, json.dumps(content, indent=2, sort_keys=True) + "\n")
        return cls(folder)

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
            StoreError: Some are not here.
        """
        found = self.positions(keys)
        if (found < 0).any():
            raise StoreError(
                f"{self.folder} lacks {int((found < 0).sum()):,} of {len(keys):,} images",
                expected="all of them",
                hint="embed the images again",
            )
        blocks = self._blocks or [np.zeros((0, int(self.about["n_features"])), np.float32)]
        return GatheredRows(blocks, self._block[found], self._row[found])

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
        target = self._writable / _HEAD
        if head is not None and not target.exists():
            # The encoder takes an array's bytes as they lie, whatever its strides.
            weight, bias = (np.ascontiguousarray(part.detach().float().cpu().numpy()) for part in head)
            write_bytes(target, encode_tensors({"weight": weight, "bias": bias}))

    def load_head(self) -> tuple[Tensor, Tensor] | None:
        """The network's own last layer, or None where its features feed no such layer.

        Raises:
            StoreError: The file is damaged.
        """
        source = self.folder / _HEAD
        if not source.exists():
            return None
        try:
            tensors = decode_tensors(source.read_bytes())
            return torch.from_numpy(tensors["weight"]), torch.from_numpy(tensors["bias"])
        except (OSError, KeyError, SafetensorError) as error:
            raise StoreError(
                f"{source} is damaged ({error})",
                expected="the weight and bias of the network's last layer",
                hint="delete that file and embed the images again",
            ) from error

    @property
    def _writable(self) -> Path:
        assert isinstance(self.folder, Path)  # as `create` made it
        return self.folder

    def _load(self, shards: Sequence[Place]) -> None:
        keys, blocks, rows = [self._keys], [self._block], [self._row]
        for features, shard_keys in _open_shards(shards, int(self.about["n_features"])):
            blocks.append(np.full(len(shard_keys), len(self._blocks), np.int32))
            rows.append(np.arange(len(shard_keys)))
            keys.append(shard_keys)
            self._blocks.append(features)
        self._keys, self._block, self._row = (
            np.concatenate(keys),
            np.concatenate(blocks),
            np.concatenate(rows),
        )
        self._order = np.argsort(_prefix(self._keys), kind="stable")


def identity_fingerprint(identity: dict[str, str]) -> str:
    """Hexadecimal digest of what features depend on."""
    return digest_of(json.dumps(identity, sort_keys=True).encode())


def require_same_identity(wanted: dict[str, str], found: dict[str, str], name: str) -> None:
    """Refuse to mix features of different networks.

    Args:
        wanted: What features are to depend on.
        found: What those of `name` depend on.
        name: A store or DATA.

    Raises:
        StoreError: What differs, by name.
    """
    different = [key for key in sorted({*wanted, *found}) if wanted.get(key) != found.get(key)]
    if different:
        differences = "; ".join(
            f"{key} {found.get(key, 'nothing')!r} and not {wanted.get(key, 'nothing')!r}" for key in different
        )
        raise StoreError(
            f"{name} holds features computed otherwise: {differences}",
            expected="the same network, weights, layer and transform",
            hint="embed the images again with the same options, in another folder",
        )


def require_same_space(wanted: dict[str, str], found: dict[str, str], name: str) -> None:
    """Refuse to mix embeddings that do not lie in one space.

    Images and texts of one CLIP model do: their identities agree in the entry `space`. Where neither has that
    entry, they must be features of one network. Embeddings without identity came without a network, so that
    there is nothing to compare.

    Args:
        wanted: What the one kind of embeddings depends on.
        found: What those of `name` depend on.
        name: A store or DATA.

    Raises:
        StoreError: They are of different models.
    """
    if not wanted or not found:
        return
    if "space" not in wanted and "space" not in found:
        require_same_identity(wanted, found, name)
    elif wanted.get("space") != found.get("space"):
        spaces = [identity.get("space", "none")[:12] for identity in (found, wanted)]
        raise StoreError(
            f"{name} holds embeddings of another model: space {spaces[0]} and not {spaces[1]}",
            expected="images and texts that one CLIP model has embedded",
            hint="give the same --model clip:NAME for both",
        )


def batched(n: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover `n` rows."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _prefix(keys: np.ndarray) -> np.ndarray:
    """The first eight bytes of each digest as a number: enough to search by, the rest is compared."""
    return np.ascontiguousarray(keys[:, :8]).view(np.uint64)[:, 0]


def _open_shards(shards: Sequence[Place], n_features: int) -> Iterator[tuple[ArrayFile, np.ndarray]]:
    """Features (where they lie) and keys of each shard."""
    if not any(isinstance(shard, RemoteFile) for shard in shards):
        for shard in shards:
            yield _open_shard(shard, n_features)
        return
    with ThreadPoolExecutor(_REQUESTS) as pool:
        yield from pool.map(lambda shard: _open_shard(shard, n_features), shards)


def _open_shard(path: Place, n_features: int) -> tuple[ArrayFile, np.ndarray]:
    """Features (where they lie) and keys of one shard."""
    try:
        beginning = read_range(path, 0, _HEADER_BYTES)
        start = 8 + int.from_bytes(beginning[:8], "little")
        if not 8 < start <= len(beginning):
            raise ValueError("no header")
        header = json.loads(beginning[8:start])
        spans = {name: header[name]["data_offsets"] for name in ("features", "keys")}
        m, d = header["features"]["shape"]
        if (
            header["features"]["dtype"] != "F32"
            or d != n_features
            or header["keys"]["shape"] != [m, KEY_BYTES]
        ):
            raise ValueError(f"features {header['features']}, keys {header['keys']}")
        if size_of(path) != start + max(stop for _, stop in spans.values()):
            raise ValueError("truncated")
        features = ArrayFile(path, start + spans["features"][0], (m, d), np.dtype(np.float32))
        keys = ArrayFile(path, start + spans["keys"][0], (m, KEY_BYTES), np.dtype(np.uint8))
        return features, keys[:]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} is damaged or not a shard of features ({error})",
            expected=f"a whole file with {n_features} features a row",
            hint="delete that file: what it held is computed again",
        ) from error


def _read_json(path: Place) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{path} cannot be read: {error}",
            expected="the description of a feature store",
            hint="make the store with: diva embed DATA --out DIR",
        ) from error
    if not isinstance(content, dict):
        raise StoreError(f"{path} holds no description of a feature store", expected="a JSON object")
    return content
