"""Language models: which one answers, how it is asked, and what its failures mean."""
