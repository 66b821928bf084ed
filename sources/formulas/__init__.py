"""Chemical formulas as people print them -> amounts of the elements."""
