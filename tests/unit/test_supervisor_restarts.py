from compose.embedded.supervisor import RestartPolicy, Restarts

POLICY = RestartPolicy(first_delay_s=1.0, most_delay_s=5.0, steady_after_s=30.0)


def delays(lifetimes_s: list[float]) -> list[float]:
    """The delay after each life of a child that is started as soon as it is due."""
    now_s, found = 0.0, []
    restarts = Restarts(POLICY, now_s)
    for lifetime_s in lifetimes_s:
        now_s += lifetime_s
        found.append(restarts.ended(now_s))
        assert restarts.due_s == now_s + found[-1]
        now_s = restarts.due_s
        restarts.started(now_s)
        assert restarts.due_s is None
    return found


def test_early_ends_double_the_delay_up_to_a_limit() -> None:
    assert delays([0.1, 0.1, 0.1, 0.1, 0.1]) == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_after_a_long_life_the_delay_begins_again() -> None:
    assert delays([0.1, 0.1, 30.0, 0.1]) == [1.0, 2.0, 1.0, 2.0]
