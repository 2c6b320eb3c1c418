"""What DVC runs: `python -m stages NAME ITEM`, warm where a stage server is up, the same bytes."""

import os
import sys

# Before any other import, which a folder on Python's path may have in another's place. A review has
# Python note from there what a stage reads.
if __name__ == "__main__" and os.environ.get("PYTHONPATH") and "FACET_TRACE" not in os.environ:
    del os.environ["PYTHONPATH"]
    os.execv(sys.executable, [sys.executable, "-m", "stages", *sys.argv[1:]])

from facet.environment import enter, stage_environment
from facet.launch import find_stage, launch_stage

if __name__ == "__main__":
    name = find_stage(sys.argv[1:2])
    enter(stage_environment(name), ["-m", "stages", *sys.argv[1:]])
    launch_stage(name, sys.argv[2:])
