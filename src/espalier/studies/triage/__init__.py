"""Deep Net Triage: replace a block of layers by one layer, train, and see how much the block was worth."""
