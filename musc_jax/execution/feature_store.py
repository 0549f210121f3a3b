"""Features on disk, for categories that do not fit into memory: written as they are extracted, read in parts."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, Int


class StoreError(OSError):
    """A file of the store could not be written or read; `filename` is that file, `strerror` the reason.

    A type of its own, because what else fails while a store is open is not the store's fault.
    """


@contextlib.contextmanager
def _of_store(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(error.errno, error.strerror or str(error), str(path)) from error


class StoredArray:
    """N equal arrays in a file, of which any few are read at a time.

    The file is read with plain reads: pages of a memory map would count as this process's memory.

    Attributes:
        shape: As if all were one array.
        dtype: Of the values.
        mean: Over all samples and all axes but the last, in float32; None unless it was asked for.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        dtype: np.dtype,
        mean: np.ndarray | None,
        index: np.ndarray | None = None,
    ) -> None:
        self._path, self._index = path, index
        self.shape = shape if index is None else (len(index), *shape[1:])
        self.dtype, self.mean = dtype, mean
        self._whole = shape

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """How many axes the whole has."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __getitem__(self, key: "int | Int[np.ndarray, ' k']") -> "np.ndarray | StoredArray":
        """One of the arrays, or a view of several that is not read yet."""
        if isinstance(key, int | np.integer):
            return self.rows(np.array([key]))[0]
        known = np.arange(len(self)) if self._index is None else self._index
        return StoredArray(self._path, self._whole, self.dtype, self.mean, known[key])

    def rows(self, index: "Int[np.ndarray, ' k']") -> np.ndarray:
        """Read some of the arrays, (k, ...)."""
        places = np.asarray(index) if self._index is None else self._index[index]
        out = np.empty((len(places), *self.shape[1:]), self.dtype)
        size = out[0].nbytes if len(out) else 0
        with _of_store(self._path), self._path.open("rb", buffering=0) as file:
            for row, place in zip(out, places, strict=True):
                file.seek(int(place) * size)
                _read_into(file, memoryview(row).cast("B"))
        return out

    def load(self) -> np.ndarray:
        """Read all of them."""
        return self.rows(np.arange(len(self)))

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return self.load() if dtype is None else self.load().astype(dtype)


def _read_into(file, view: memoryview) -> None:  # type: ignore[no-untyped-def]
    while view:
        count = file.readinto(view)
        if not count:
            raise OSError("is shorter than it was written; is somebody else using the cache folder?")
        view = view[count:]


class StoreWriter:
    """Writes the samples' arrays of one kind one after the other.

    Args:
        path: The file.
        with_mean: Also find the mean, which scoring subtracts.
    """

    def __init__(self, path: Path, *, with_mean: bool = False) -> None:
        self._path, self._with_mean = path, with_mean
        with _of_store(path):
            self._file = path.open("wb", buffering=0)
        self._count, self._shape, self._dtype = 0, (), np.dtype(np.float32)
        self._sum: np.ndarray | float = 0.0

    def append(self, arrays: "Float[np.ndarray | jax.Array, 'k *rest'] | np.ndarray") -> None:
        """Add the arrays of one or more samples along the first axis."""
        host = np.ascontiguousarray(arrays)
        self._shape, self._dtype = host.shape[1:], host.dtype
        view = memoryview(host.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        with _of_store(self._path):
            while view:
                view = view[self._file.write(view) :]
        self._count += len(host)
        if self._with_mean:
            self._sum = self._sum + host.reshape(-1, host.shape[-1]).sum(axis=0, dtype=np.float64)

    def close(self) -> None:
        """Close the file, also where it will not be read."""
        with _of_store(self._path):
            self._file.close()

    def finish(self) -> StoredArray:
        """Close the file; what was written can be read."""
        self.close()
        mean = None
        if self._with_mean:
            tokens = self._count * int(np.prod(self._shape[:-1]))
            mean = (self._sum / max(tokens, 1)).astype(np.float32)  # type: ignore[union-attr]
        return StoredArray(self._path, (self._count, *self._shape), self._dtype, mean)


class FeatureStore:
    """A folder for the features of one category.

    As a context it closes in the end what is still being written, where a sample was refused: the folder is removed
    then, and on Windows nobody removes open files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, StoreWriter] = {}

    def __enter__(self) -> "FeatureStore":
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers.values():
            writer.close()

    def writer(self, name: str, *, with_mean: bool = False) -> StoreWriter:
        """A writer for a new file."""
        if name in self._writers:
            raise ValueError(f"feature store: {name} is there already")
        self._writers[name] = StoreWriter(self._folder / name, with_mean=with_mean)
        return self._writers[name]

    def writers(self, name: str, count: int, *, with_mean: bool = False) -> Sequence[StoreWriter]:
        """Writers of several files of a kind."""
        return [self.writer(f"{name}_{i}", with_mean=with_mean) for i in range(count)]

    def free(self) -> int:
        """Bytes that are free where the store lies."""
        with _of_store(self._folder):
            return shutil.disk_usage(self._folder).free


class HeldArray(StoredArray):
    """N equal arrays in the host's memory, of which any few are taken at a time.

    Args:
        samples: The arrays.
        mean: As in `StoredArray`.
        index: Which of them are meant; default all.
    """

    def __init__(self, samples: list[np.ndarray], mean: np.ndarray | None, index: np.ndarray | None = None) -> None:
        super().__init__(Path(), (len(samples), *samples[0].shape), samples[0].dtype, mean, index)
        self._samples = samples

    def __getitem__(self, key: "int | Int[np.ndarray, ' k']") -> "np.ndarray | StoredArray":
        if isinstance(key, int | np.integer):
            return self.rows(np.array([key]))[0]
        known = np.arange(len(self)) if self._index is None else self._index
        return HeldArray(self._samples, self.mean, known[key])

    def rows(self, index: "Int[np.ndarray, ' k']") -> np.ndarray:
        """Copy some of the arrays, (k, ...)."""
        places = np.asarray(index) if self._index is None else self._index[index]
        return np.stack([self._samples[place] for place in places])


class HeldWriter(StoreWriter):
    """Keeps the samples' arrays of one kind in the host's memory."""

    def __init__(self, *, with_mean: bool = False) -> None:
        self._with_mean = with_mean
        self._samples: list[np.ndarray] = []
        self._sum: np.ndarray | float = 0.0

    def append(self, arrays: "Float[np.ndarray | jax.Array, 'k *rest'] | np.ndarray") -> None:
        """Add copies of the arrays of one or more samples along the first axis."""
        host = np.array(arrays)
        self._samples += list(host)
        if self._with_mean:
            self._sum = self._sum + host.reshape(-1, host.shape[-1]).sum(axis=0, dtype=np.float64)

    def close(self) -> None:
        """There is nothing to close."""

    def finish(self) -> StoredArray:
        """What was added can be taken."""
        tokens = sum(sample[..., 0].size for sample in self._samples)
        mean = np.asarray(self._sum / max(tokens, 1), np.float32) if self._with_mean else None
        return HeldArray(self._samples, mean)


class HostStore(FeatureStore):
    """The features of one category in the memory of the device's host, where the device has no room for them."""

    def __init__(self) -> None:
        super().__init__(Path())

    def writer(self, name: str, *, with_mean: bool = False) -> StoreWriter:
        """A writer of a kind."""
        if name in self._writers:
            raise ValueError(f"feature store: {name} is there already")
        self._writers[name] = HeldWriter(with_mean=with_mean)
        return self._writers[name]
