"""The latency page is read back to stand beside a later one."""

from __future__ import annotations

from benchmarks.latency import against, seconds_of

PAGE = """\
| method | first merge | new setting | goal | CPU s | first answer | examples | all |
| --- | --- | --- | --- | --- | --- | --- | --- |
| kfac | 4.00 | **2.00** | 2 | 4.18 | ± 2.6 | 1,024 | 4.38 |
| essential, level 1 | 1.05 | **1.10** | 3 | 1.56 | ± 2.6 | 1,024 | 3.26 |

| page | script run |
| --- | --- |
| merge | 0.08 |
"""


def test_a_page_is_read_back_and_compared():
    assert seconds_of(PAGE) == {"kfac": (4.0, 2.0), "essential, level 1": (1.05, 1.1)}
    later = PAGE.replace("4.00", "1.00").replace("**2.00**", "**0.50**")
    lines = against(PAGE, later).splitlines()
    assert "| kfac | 4.00 | 1.00 | 4× | 2.00 | **0.50** | 4× |" in lines
    assert "| essential, level 1 | 1.05 | 1.05 | 1× | 1.10 | **1.10** | 1× |" in lines
    assert len([line for line in lines if line.startswith("|")]) == 4
