"""Published datasets: sources, counts, comparison with what is on disk, preparation."""
