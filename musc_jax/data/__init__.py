"""Samples from disk: a module for each dataset behind `open_dataset`."""

from musc_jax.data.dataset import Dataset
from musc_jax.data.datasets import DATASETS
from musc_jax.data.folder_layout import Camera, FolderLayout
from musc_jax.data.opening import open_dataset
from musc_jax.data.sample import DataError, Sample, SampleError

__all__ = ["DATASETS", "Camera", "DataError", "Dataset", "FolderLayout", "Sample", "SampleError", "open_dataset"]
