"""How many guesses are worth a place in a pass, from measured times and outcomes."""

from ds4_agent.engine.speculative.pace import ALWAYS, PROBE_EVERY, Pace

KIND = "match of 8"


def measured(one=1.0, passes=(), outcomes=(), mode="auto"):
    """A pace that saw passes (ids, seconds) and outcomes of KIND."""
    pace = Pace(mode)
    for _ in range(3):
        pace.took(1, one)
    for ids, seconds in passes:
        pace.took(ids, seconds)
    for outcome in outcomes:
        pace.came(KIND, is_hit=outcome)
    return pace


CHEAP = tuple((ids, 1 + 0.02 * ids) for ids in (2, 4, 8, 16))
DEAR = tuple((ids, 1.0 * ids) for ids in (2, 4, 8, 16))
RIGHT, WRONG = [True] * 60, [False] * 60


def test_good_guesses_in_cheap_passes_are_all_taken_along():
    assert measured(passes=CHEAP, outcomes=RIGHT).worth(KIND, 15) == 15


def test_guesses_that_never_come_true_are_not():
    assert measured(passes=CHEAP, outcomes=WRONG).worth(KIND, 15) == 0


def test_nothing_is_taken_along_where_a_pass_costs_as_much_as_its_ids_one_by_one():
    assert measured(passes=DEAR, outcomes=RIGHT).worth(KIND, 15) == 0


def test_middling_guesses_are_taken_along_as_far_as_they_pay():
    """Half come true: 1 + 1/2 + 1/4 … tokens, each further id a tenth of a pass."""
    pace = measured(
        passes=[(ids, 1 + 0.1 * (ids - 1)) for ids in (2, 4, 8, 16)], outcomes=[True, False] * 60
    )

    assert 2 <= pace.worth(KIND, 15) <= 4
    assert pace.worth(KIND, 1) == 1


def test_before_anything_is_measured_nothing_is_guessed_then_it_is_tried():
    assert Pace().worth(KIND, 7) == 0
    assert 1 <= measured().worth(KIND, 7) <= 3


def test_what_turned_itself_off_for_its_cost_looks_again_now_and_then():
    """Otherwise a machine that was busy for a moment would decide for ever."""
    pace = measured(passes=DEAR, outcomes=RIGHT)

    tried = [pace.worth(KIND, 15) for _ in range(3 * PROBE_EVERY)]

    assert sum(count > 0 for count in tried) == 3


def test_bad_guesses_are_not_looked_at_again():
    """They are compared with what comes whether they are computed or not."""
    pace = measured(passes=CHEAP, outcomes=WRONG)
    assert not any(pace.worth(KIND, 15) for _ in range(3 * PROBE_EVERY))

    for _ in range(60):
        pace.came(KIND, is_hit=True)
    assert pace.worth(KIND, 15) > 0


def test_one_slow_pass_decides_nothing():
    pace = measured(passes=[*CHEAP, (16, 400.0), *CHEAP], outcomes=RIGHT)

    assert pace.worth(KIND, 15) == 15


def test_a_dear_short_pass_does_not_keep_longer_ones_from_being_tried():
    pace = measured(passes=[(2, 1.8)], outcomes=RIGHT)
    assert pace.worth(KIND, 15) > 7

    for ids in (2, 2, 4, 8, 16):
        pace.took(ids, 1.0 * ids)
    assert pace.worth(KIND, 15) == 0


def test_kinds_are_measured_apart():
    pace = measured(passes=CHEAP, outcomes=WRONG)
    for _ in range(60):
        pace.came("match of 24", is_hit=True)

    assert pace.worth("match of 24", 7) == 7
    assert pace.worth(KIND, 7) == 0


def test_on_guesses_always_and_off_never():
    assert measured(passes=DEAR, outcomes=WRONG, mode="on").worth(KIND, 15) == ALWAYS - 1
    assert Pace("on").worth(KIND, 3) == 3
    assert measured(passes=CHEAP, outcomes=RIGHT, mode="off").worth(KIND, 15) == 0


def test_it_says_what_it_does_before_the_first_guess():
    assert Pace("off").account() == "speculation is off"
    assert Pace().account() == "speculation is auto: nothing was guessed yet"


def test_it_says_what_it_chose_and_why():
    pace = measured(passes=CHEAP, outcomes=RIGHT)
    for _ in range(60):
        pace.came("match of 24", is_hit=False)
        pace.came("match of 5", is_hit=True)

    assert pace.account() == (
        "speculation is auto: match of 5, 99% right, 15 at once; match of 8, 99% right, "
        "15 at once; match of 24, 1% right, left; passes, in times of one id: 2 ids 1.0, "
        "4 ids 1.1, 8 ids 1.2, 16 ids 1.3"
    )


def test_where_passes_are_dear_it_says_so():
    pace = measured(passes=DEAR, outcomes=RIGHT)

    assert "match of 8, 99% right, left; passes, in times of one id: 2 ids 2.0" in pace.account()
