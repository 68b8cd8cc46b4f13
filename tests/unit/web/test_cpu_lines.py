"""CPU lines of the live view: one for each of few processes, and of many those of the busiest."""

from __future__ import annotations

from llm_users.web.cpu_lines import COLUMNS, MOST_LINES, CpuLines


def test_few_processes_have_a_cpu_line_each() -> None:
    lines = CpuLines()
    assert lines.sample({0: 0.2}, 1.0) == {"cpu_0": 0.2, "cpu_rest": None}
    assert lines.sample({0: 0.3, 1: 0.9}, 2.0) == {"cpu_0": 0.3, "cpu_1": 0.9, "cpu_rest": None}
    assert lines.sample({1: 0.8}, 3.0) == {"cpu_0": None, "cpu_1": 0.8, "cpu_rest": None}, "the first one is gone"
    assert [(line["worker"], line["since_s"]) for line in lines.legend()] == [(0, 1.0), (1, 2.0)]
    assert lines.unused == {*COLUMNS[2:], "cpu_rest"}


def test_of_many_processes_the_busiest_have_the_lines_and_keep_them() -> None:
    lines = CpuLines()
    shares = {worker: 0.2 + 0.001 * worker for worker in range(20)}
    for second in range(5):
        made = lines.sample(shares, float(second))
    assert len(lines.legend()) == MOST_LINES
    assert made["cpu_rest"] == shares[19]
    assert {line["worker"] for line in lines.legend()} == set(range(8)), "equals do not swap"
    assert not lines.unused
    shares |= {2: 0.1, 15: 0.9, 16: 0.8}
    for second in range(5, 35):
        made = lines.sample(shares, float(second))
    owners = {line["worker"]: line for line in lines.legend()}
    assert set(owners) == {1, 3, 4, 5, 6, 7, 15, 16}
    assert made[str(owners[15]["column"])] == 0.9
    assert float(owners[15]["since_s"]) >= 5, "what was drawn before was another one's"
    assert made["cpu_rest"] == shares[19]
    del shares[15]
    shares[18] = 0.01
    lines.sample(shares, 40.0)
    assert 15 not in {line["worker"] for line in lines.legend()}, "who is gone makes room, for the idle too"
