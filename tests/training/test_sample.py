"""A small part of `make nano-eval`: a change of a prompt or a tool's text that breaks nano is seen.

The bar is far below what the model does; what it cannot survive is a prompt it does not know.
"""

from pathlib import Path

from ds4_agent.agent.config import Settings
from training.evaluate import MOST_TOKENS, MOST_TURNS, SEED, evaluate, held_tasks
from training.report import failures
from training.tasks.families import MEASURED

SETTINGS = Settings(
    model="nano", temp=0.0, max_turns=MOST_TURNS, max_tokens=MOST_TOKENS, prompt_profile="nano"
)


def test_the_bundled_model_does_most_of_a_sample_of_tasks(tmp_path: Path) -> None:
    outcomes = list(evaluate(held_tasks(MEASURED, 4, SEED), SETTINGS, tmp_path))
    right = sum(outcome.is_right for outcome in outcomes)
    assert right >= 0.6 * len(outcomes), failures(outcomes)
