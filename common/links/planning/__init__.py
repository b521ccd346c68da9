"""Which models to run under a budget: pure functions over tables of qualities and costs."""
