"""The command line. Each verb is one module with a frozen argument dataclass and a function that returns a Result."""
