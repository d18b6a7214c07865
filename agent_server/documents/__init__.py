"""Documents that belong to one caller, and that only this caller's turns and calls search."""
