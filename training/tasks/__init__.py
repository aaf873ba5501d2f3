"""Tasks nano learns and is measured on: requests, repositories, right calls and right answers.

In: a seed and whether held-out words and phrasings are wanted. Out: `Task`s (tasks/task.py) that
`tasks/play.py` plays with the product's own tools. Nothing here is installed with the product.
"""
