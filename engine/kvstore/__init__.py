"""What was computed once, kept on disk. `disk` and the files below it know bytes and names:
immutable, verified files in a directory with a budget, shared by any number of processes."""
