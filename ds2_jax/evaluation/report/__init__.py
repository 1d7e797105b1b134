"""Reports an evaluation to a person: intervals, breakdowns, comparisons, and a page that shows the errors."""
