"""Citations: which passages an answer may cite, and the marks that it cites them by."""
