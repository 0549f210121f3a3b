"""Files that arrive whole or not at all: atomic writing, archives, reading ahead."""
