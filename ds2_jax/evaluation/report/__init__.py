"""An evaluation as a person reads it: intervals, breakdowns, comparisons, and a page that shows what went wrong."""
