"""`launch.prepare` whose workers stop for `test_prepare.py`: so many scans are cleaned, the next waits for a file.

Workers run this file, too, before their work. Whichever waits leaves a file called by its process id.
"""

import os
import time
from pathlib import Path

from launch import command, prepare
from musc_jax.data.cleaning import mvtec3d as plane_cleaning

FOLDER, free = Path(os.environ["HELD_FOLDER"]), int(os.environ["HELD_AFTER"])
clean_scan = plane_cleaning.clean_scan


def held(*arguments, **options):
    global free
    free -= 1
    if free < 0:
        (FOLDER / str(os.getpid())).touch()
        while not (FOLDER / "go on").exists():
            time.sleep(0.01)
    return clean_scan(*arguments, **options)


plane_cleaning.clean_scan = held
if __name__ == "__main__":
    command.run(prepare.main)
