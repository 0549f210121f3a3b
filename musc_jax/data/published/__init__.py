"""Published datasets: comparison with what is on disk, preparation."""
