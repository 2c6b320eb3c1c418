"""What DVC runs: `python -m stages NAME ITEM`, warm where a stage server is up, the same bytes."""

import sys

from facet.environment import enter, stage_environment
from facet.launch import find_stage, launch_stage

if __name__ == "__main__":
    name = find_stage(sys.argv[1:2])
    enter(stage_environment(name), ["-m", "stages", *sys.argv[1:]])
    launch_stage(name, sys.argv[2:])
