"""Facts as data, each with its source and date: providers, the built-in model groups, prices."""
