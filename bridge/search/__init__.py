"""Search: a query becomes an upstream filter and an exact FHIR predicate on the opened resources, always applied.

Facts: https://hl7.org/fhir/R4/search.html. iCure finds by what lies in clear only; each parameter says how what iCure
finds stands to FHIR: *exact*, *superset* (the predicate drops the rest), *narrower* (iCure's index sees less than
FHIR), or *scan* (nothing upstream helps).

Strategy: `query` reads the arguments, `names` what a parameter name means; `criteria` makes of each a filter
(`recipes`) and a predicate (`predicates`); `candidates` asks iCure for ids and reads them in order; `pages` and
`answer` say them.
"""

from bridge.search.among import among, check
from bridge.search.answer import reduced, search
from bridge.search.includes import included
from bridge.search.names import PARAMETERS, include_values, parameter, parameters, reverse_include_values
from bridge.search.pages import Page, run
from bridge.search.query import CONTROLS, MOST_COUNT, Query, parse
from bridge.search.recipes import found_by
from bridge.search.values import alternatives

__all__ = [
    "CONTROLS",
    "MOST_COUNT",
    "PARAMETERS",
    "Page",
    "Query",
    "alternatives",
    "among",
    "check",
    "found_by",
    "include_values",
    "included",
    "parameter",
    "parameters",
    "parse",
    "reduced",
    "reverse_include_values",
    "run",
    "search",
]
