"""A search for the options of the Trainer."""
