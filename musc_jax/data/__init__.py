"""Samples from disk: one module per dataset layout behind `open_dataset`."""

from musc_jax.data.dataset import Dataset
from musc_jax.data.folder_layout import Camera, FolderLayout
from musc_jax.data.registry import DATASETS, open_dataset
from musc_jax.data.sample import DataError, Sample, SampleError

__all__ = ["DATASETS", "Camera", "DataError", "Dataset", "FolderLayout", "Sample", "SampleError", "open_dataset"]
