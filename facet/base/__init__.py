"""What every stage reads: parameters, names, files, arrays, data sets between stages.

Importing it sets the limits that make bytes repeatable. So each stage imports it before anything
else of the library, and `facet` itself does.
"""

from facet.base.processor import limit_instructions

limit_instructions()
